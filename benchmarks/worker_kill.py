"""What is lost when one of two busy workers is killed?

Two workers at 70 % load, every batch 10 ms; then kill -9 for one that computes.

Rules:
- Detected: from the signal to the line in the server's log that says so, as this process reads it. The log is read
  every millisecond, and the server shares its cores with the client and the workers.
- Lost: a request that was not answered with 200. What had begun runs once more on the other worker.
- Back: from the signal until both workers take batches again, by /metrics; a start at rest takes `start`.
"""

from __future__ import annotations

import os
import re
import signal
import time
import urllib.request
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.bench import BenchError, Group, Run, Table, interleaved, middle
from benchmarks.processes import Server, paceline
from benchmarks.traffic import FLAGS, SHARE, Stream, failures, kinds, p99_ms

_SERVICE = Path(__file__).parent / "services" / "sleeping.py"
_LATEST_S = 30.0
_DIED = re.compile(r"worker \d+ died: killed by SIGKILL")
_ALIVE = re.compile(rb"^paceline_workers\{[^}]*\} (\d+)", re.MULTILINE)


@dataclass(frozen=True)
class Kill:
    """One worker killed under load."""

    rate: float
    requests: int
    lost: int
    unsent: int
    kinds: dict[str, int]
    detected_ms: float
    back_s: float
    calm_p99_ms: float
    p99_ms: float


def measure(run: Run) -> Group:
    """One kill a round."""
    group = Group(f"kill -9 of one of two busy workers under {SHARE:.0%} load")
    found = interleaved({"kill": partial(_one, run)}, run.rounds)["kill"]
    rows = [
        (turn + 1, each.rate, each.requests, each.lost, each.unsent, kinds(each.kinds), each.detected_ms)
        for turn, each in enumerate(found)
    ]
    columns = ("round", "requests/s", "requests", "lost", "not sent", "kinds", "ms until detected")
    group.tables.append(Table("losses", columns, rows))
    times = [middle(found, what) for what in ("back_s", "calm_p99_ms", "p99_ms")]
    group.tables.append(
        Table("times (medians)", ("s until two work again", "p99 calm ms", "p99 from the kill on"), [times])
    )
    group.check("requests lost", sum(each.lost for each in found), 0, most=True)
    group.check("detected (median)", middle(found, "detected_ms"), 100, " ms", most=True)
    group.samples = {"kill": [asdict(each) for each in found]}
    return group


def _one(run: Run) -> Kill:
    flags = (*FLAGS, "--instances", "2", "--warmup-s", "0", "--max-batch-size", "1", "--no-deduplicate")
    with paceline(run, _SERVICE, flags) as server:
        stream = Stream(run, server.url("/predict"), b"[1, 2, 3]")
        rate = SHARE * stream.capacity()
        with stream.open(rate) as traffic:
            traffic.wait_begun()
            time.sleep(run.either(3.0, 1.5))
            killed = time.monotonic()
            os.kill(server.replicas[-1], signal.SIGKILL)
            detected = _until_said(server)
            back = _until_alive(server, 2)
            time.sleep(run.either(3.0, 1.5))
            samples, _ = traffic.stop()
    killed_s = killed - samples.start_s
    lost, unsent = failures(samples)
    return Kill(
        rate=rate,
        requests=samples.status.size - unsent,
        lost=lost,
        unsent=unsent,
        kinds=samples.kinds(),
        detected_ms=(detected - killed) * 1e3,
        back_s=back - killed,
        calm_p99_ms=p99_ms(samples.between(0.5, killed_s)),
        p99_ms=p99_ms(samples.between(killed_s, np.inf)),
    )


def _until_said(server: Server) -> float:
    until = time.monotonic() + _LATEST_S
    while time.monotonic() < until:
        if any(_DIED.search(line) for line in server.panel):
            return time.monotonic()
        time.sleep(0.001)
    raise BenchError(f"the death of a worker was not noticed:\n{server.panel[-10:]}")


def _until_alive(server: Server, count: int) -> float:
    until = time.monotonic() + _LATEST_S
    while time.monotonic() < until:
        with urllib.request.urlopen(server.url("/metrics"), timeout=10) as response:
            found = _ALIVE.search(response.read())
        if found is not None and int(found[1]) == count:
            return time.monotonic()
        time.sleep(0.01)
    raise BenchError(f"not {count} workers again:\n{server.panel[-10:]}")
