"""Which machine is examined? Its files, as the kernel shows them, and the environment of the process."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final

from paceline.config.machine import Cores, usable_cores

_MOST_CORES: Final = 1 << 16


@dataclass(frozen=True)
class Host:
    """A machine.

    Attributes:
        root: where /proc and /sys stand.
        env: the variables of the process.
    """

    root: Path = Path("/")
    env: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))

    def read(self, path: str) -> str:
        """A file's text, without the white space around it; "" where it is not there, or not ours to read."""
        try:
            return (self.root / path).read_text().strip()
        except (OSError, UnicodeDecodeError):
            return ""

    def number(self, path: str) -> int | None:
        """A file that holds one number; None where it does not."""
        text = self.read(path)
        return int(text) if text.removeprefix("-").isdecimal() else None

    def found(self, pattern: str) -> list[Path]:
        """The files and folders that fit a pattern, in order."""
        return sorted(self.root.glob(pattern))

    def under(self, path: Path) -> str:
        """A path of this machine as `read` takes it."""
        return str(path.relative_to(self.root))

    @cached_property
    def allowed(self) -> frozenset[int]:
        """The numbers of the cores in the affinity mask; empty where it is not told."""
        for line in self.read("proc/self/status").splitlines():
            if line.startswith("Cpus_allowed_list:"):
                return frozenset(listed_numbers(line.partition(":")[2].strip()))
        return frozenset()

    @cached_property
    def cores(self) -> Cores:
        """The cores that this process may use."""
        return usable_cores(self.root, len(self.allowed) or None)

    def groups(self) -> Iterator[str]:
        """The control groups of this process, version 2, itself first, as paths that `read` takes a file below."""
        for line in self.read("proc/self/cgroup").splitlines():
            _, controllers, path = [*line.split(":", 2), "", ""][:3]
            if controllers:
                continue
            # In a namespace the path may not exist under the mount; the mount itself is then our own group.
            parts = [part for part in path.split("/") if part not in ("", "..")]
            for length in range(len(parts), -1, -1):
                yield "/".join(["sys/fs/cgroup", *parts[:length]])


def listed_numbers(text: str) -> Iterator[int]:
    """The numbers in a list of the kernel's, such as `0-3,8`."""
    for part in text.split(","):
        low, dash, high = part.strip().partition("-")
        if low.isdecimal() and (not dash or high.isdecimal()):
            yield from range(int(low), min(int(high or low), int(low) + _MOST_CORES) + 1)


def pairs(text: str) -> dict[str, int]:
    """The lines `name number` of a file such as cpu.stat."""
    split = (line.split() for line in text.splitlines())
    return {parts[0]: int(parts[1]) for parts in split if len(parts) == 2 and parts[1].isdecimal()}
