"""How do users come? Real Locusts, each in a process of its own, one for each server and number of users.

Rules:
- A Locust runs before the window opens, for the warm-up, and its last requests are waited for: what counts is every
  request that began within the window, however long it took. Counting those that ended within would favor fast ones.
- Clients of one wave share the window. What they load takes no processor time, or the wave has one client.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.bench import BenchError, Run
from benchmarks.processes import Server

_LOCUSTFILE: Final = Path(__file__).with_name("locustfile.py")
_ROOT: Final = Path(__file__).parents[2]
_START_S: Final = 90.0
_LAST_REQUESTS_S: Final = 60.0
_POLL_S: Final = 0.05


@dataclass(frozen=True)
class Cell:
    """One number of users at one server."""

    set_up: str
    users: int
    server: Server


@dataclass(frozen=True)
class Window:
    """Seconds of one measurement: those before it counts, and those in which it does."""

    warm_s: float
    counted_s: float


@dataclass(frozen=True)
class Measured:
    """What one Locust saw in its window.

    Attributes:
        answered_s: response time of each request that was answered, in the order in which they began.
        failures: what the others ended with.
        busy: share of all cores that was in use in the window, by whomever.
    """

    set_up: str
    users: int
    answered_s: list[float]
    failures: list[str]
    busy: float


def measure(run: Run, cells: Sequence[Cell], window: Window, seed: int) -> list[Measured]:
    """Load all cells at the same time.

    Raises:
        BenchError: a Locust did not start, or did not end.
    """
    folder = run.folder / "locust"
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        outs = [stack.enter_context(_locust(run, cell, folder, seed)) for cell in cells]
        for cell, (process, out) in zip(cells, outs, strict=True):
            _wait_for_users(cell, process, out)
        time.sleep(window.warm_s)
        begin, busy = time.time(), _busy_s()
        time.sleep(window.counted_s)
        end, busy = time.time(), _busy_s() - busy
        for process, _ in outs:
            process.terminate()
        for cell, (process, _) in zip(cells, outs, strict=True):
            _wait_for_the_last(cell, process)
    share = busy / (end - begin) / _cores_of_the_machine()
    return [_read(cell, out, begin, end, share) for cell, (_, out) in zip(cells, outs, strict=True)]


@contextmanager
def _locust(run: Run, cell: Cell, folder: Path, seed: int) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    out = folder / f"{cell.server.port}_{cell.users}.jsonl"
    out.unlink(missing_ok=True)
    environment = [f"ARTICLE_OUT={out.resolve()}", f"ARTICLE_SEED={seed}", f"PYTHONPATH={_ROOT}"]
    command = [sys.executable, "-m", "locust", "--locustfile", str(_LOCUSTFILE), "--headless", "--only-summary"]
    command += ["--users", str(cell.users), "--spawn-rate", str(cell.users), "--stop-timeout", f"{_LAST_REQUESTS_S:g}"]
    command += ["--host", cell.server.url("").rstrip("/")]
    log = out.with_suffix(".log")
    with log.open("wb") as said:
        process = subprocess.Popen(
            run.as_client(["env", *environment, *command]), stdin=subprocess.DEVNULL, stdout=said, stderr=said
        )
        try:
            yield process, out
        finally:
            process.kill()
            process.wait()


def _wait_for_users(cell: Cell, process: subprocess.Popen[bytes], out: Path) -> None:
    until = time.monotonic() + _START_S
    while not (out.exists() and '"spawned"' in out.read_text()):
        if process.poll() is not None or time.monotonic() > until:
            said = out.with_suffix(".log").read_text(errors="replace")[-2000:]
            raise BenchError(f"({cell.set_up}), {cell.users} users: Locust did not start\n{said}")
        time.sleep(_POLL_S)


def _wait_for_the_last(cell: Cell, process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(2 * _LAST_REQUESTS_S)
    except subprocess.TimeoutExpired:
        raise BenchError(f"({cell.set_up}), {cell.users} users: Locust did not end") from None


def _read(cell: Cell, out: Path, begin: float, end: float, busy: float) -> Measured:
    lines: list[dict[str, Any]] = [json.loads(line) for line in out.read_text().splitlines()]
    inside = sorted((line for line in lines if begin <= line.get("at", 0.0) < end), key=lambda line: line["at"])
    answered_s = [line["s"] for line in inside if line["failure"] is None]
    failures = [line["failure"] for line in inside if line["failure"] is not None]
    return Measured(cell.set_up, cell.users, answered_s, failures, busy)


def _busy_s() -> float:
    """Processor seconds of the whole machine so far: user, nice, system, interrupts, stolen."""
    ticks = [int(value) for value in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return (sum(ticks) - ticks[3] - ticks[4]) / 100


def _cores_of_the_machine() -> int:
    return sum(line.startswith("cpu") for line in Path("/proc/stat").read_text().splitlines()) - 1
