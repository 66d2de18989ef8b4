"""Which checks are there, and in which order are they told?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from paceline import __version__
from paceline.config.machine import usable_memory_bytes
from paceline.config.processor import processor as processor_of
from paceline.doctor import limits, memory, processor, software, variables
from paceline.doctor.finding import Examination, Finding, Group
from paceline.doctor.host import Host
from paceline.doctor.software import Software

_OF_HOST: Final[Sequence[tuple[str, Sequence[Callable[[Host], Iterator[Finding]]]]]] = (
    ("Cores", (limits.cores, limits.throttling, limits.steal, limits.load, limits.pressure, processor.siblings)),
    ("Processor", (processor.model, processor.instructions, processor.frequency, processor.heat, processor.clock)),
    ("Memory", (memory.total, memory.killed, memory.swap, processor.nodes, memory.transparent_huge_pages,
                memory.reserved_huge_pages, memory.allocator, memory.shared)),
    ("Environment", (limits.place, variables.threads, variables.spinning, variables.pinning, variables.slow_modes)),
    ("Connections", (limits.files, limits.backlog, limits.ports)),
)  # fmt: skip
_OF_SOFTWARE: Final = (software.python, software.runtimes, software.old_versions, software.clashes)


def examine(host: Host, installed: Software) -> Examination:
    """Run every check."""
    groups = [
        Group(title=title, findings=[each for check in checks for each in check(host)]) for title, checks in _OF_HOST
    ]
    groups.append(Group(title="Software", findings=[each for check in _OF_SOFTWARE for each in check(installed)]))
    return examination(host, groups)


def examination(host: Host, groups: list[Group]) -> Examination:
    """The document about groups of findings; those without any are left out."""
    levels = [finding.level for group in groups for finding in group.findings]
    found = processor_of(host.root)
    return Examination(
        paceline=__version__,
        machine={
            "processor": found.model,
            "architecture": found.architecture,
            "cores": host.cores.value,
            "cores_why": host.cores.why,
            "memory_bytes": usable_memory_bytes(host.root),
        },
        groups=[group for group in groups if group.findings],
        problems=levels.count("problem"),
        notes=levels.count("note"),
    )
