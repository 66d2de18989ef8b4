"""What goes into the document of a load test beside its steps: when, where, what was typed, and what to beware of?

Values of headers are left out of it: they may be secrets, and documents are shown to others.
"""

from __future__ import annotations

import ipaddress
import platform
import shlex
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from paceline import __version__
from paceline.config.machine import usable_cores
from paceline.core.errors import PacelineError
from paceline.loadtest.result import Result
from paceline.loadtest.runner import Run

_HEADER_FLAGS: Final = ("-H", "--header")


def document(
    test: Run,
    *,
    kind: str,
    arguments: Sequence[str],
    engine: str,
    failure: PacelineError | None = None,
) -> Result:
    """All there is to say of a test that is over.

    Args:
        arguments: of the `paceline` command.
        failure: what has ended it.
    """
    target = test.target
    return Result(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        paceline=__version__,
        command=typed(arguments),
        kind=kind,
        url=target.url,
        protocol=target.protocol,
        model=target.model,
        server=target.server,
        rows=target.rows,
        engine=engine,
        machine=machine(),
        slo=test.slo,
        steps=test.steps,
        capacity=test.capacity,
        warnings=[*target.notes, *test.notes, *_of_test(test, failure)],
    )


def typed(arguments: Sequence[str]) -> str:
    """A command line for a shell, without the values of headers."""
    shown, hide = ["paceline"], False
    for argument in arguments:
        flag, equals, value = argument.partition("=")
        if hide:
            argument = _without_value(argument)
        elif flag == "--header" and equals:
            argument = f"{flag}={_without_value(value)}"
        elif argument.startswith("-H") and argument != "-H":
            argument = f"-H{_without_value(argument[2:])}"
        hide = not hide and argument in _HEADER_FLAGS
        shown.append(argument)
    return shlex.join(shown)


def machine() -> dict[str, Any]:
    """The client's."""
    cores = usable_cores()
    return {
        "cores": cores.value,
        "processor": _processor(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def _of_test(test: Run, failure: PacelineError | None) -> Iterator[str]:
    yield from (f"{step.label}: no request brought a prediction" for step in test.steps if not step.latency.count)
    if failure is not None:
        yield f"the test broke off: {failure.message}"
    elif test.ended_early:
        yield "the test was ended by hand"
    if _is_here(test.target.host) and usable_cores().whole < 2:
        yield "client and server share one core: each takes from the other"


def _is_here(host: str) -> bool:
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _without_value(header: str) -> str:
    name, colon, _ = header.partition(":")
    return f"{name}: ..." if colon else header
