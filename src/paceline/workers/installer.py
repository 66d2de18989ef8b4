"""Runs a program that installs packages, until it ends or its time is up."""

from __future__ import annotations

import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

_LAST_LINES: Final = 8


def run(
    command: Sequence[str],
    until: float,
    say: Callable[[str], None],
    lock: int,
    *,
    told: tuple[str, ...],
    noise: tuple[str, ...] = (),
    folder: Path | None = None,
) -> tuple[int, list[str]]:
    """The exit code, and the last lines of what was said.

    Args:
        until: on the monotonic clock; then the program is killed.
        say: told the lines that begin with one of `told`: those move things forward.
        lock: a descriptor that the program keeps open.
        noise: how lines begin that are of no use.
        folder: where it runs; None: here.
    """
    with subprocess.Popen(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        pass_fds=[lock],
    ) as process:
        assert process.stdout is not None
        timer = threading.Timer(max(0.0, until - time.monotonic()), process.kill)
        timer.start()
        try:
            last = _followed(process.stdout, say, told, noise)
            return process.wait(), last
        finally:
            timer.cancel()
            process.kill()


def _followed(
    output: Iterable[str], say: Callable[[str], None], told: tuple[str, ...], noise: tuple[str, ...]
) -> list[str]:
    last: deque[str] = deque(maxlen=_LAST_LINES)
    for line in output:
        line = line.strip()
        if line and not line.startswith(noise):
            last.append(line)
        if line.startswith(told):
            say(f"  {line}")
    return list(last)
