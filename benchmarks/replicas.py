"""What do two replicas give that one does not?

The small model, JSON by wrk at 64 connections, at 1, 16 and 64 rows a request: the more rows, the more the server has
to do for a request, and the less of the machine the client takes. A replica's parsing, scheduling and writing happen
on one core; its batches may run on another.

Rules:
- On a machine where the client needs a core, two replicas cannot have two: what wrk takes stands beside each rate, and
  the target is held against the loads where it took little.
- With --pin both replicas share one core, which shows what a second process costs, and gives nothing.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from benchmarks import models
from benchmarks.bench import BenchError, Group, Run, interleaved, middle
from benchmarks.processes import paceline
from benchmarks.report import rounds_table
from benchmarks.wrk import load

ROWS = (1, 16, 64)
COUNTS = (1, 2)
CONNECTIONS = 64
LEAST = 1.5
LITTLE_CPU = 0.25
_ONE, _SEVERAL = "/predict", "/batch-predict"


@dataclass(frozen=True)
class Sample:
    """One load on one number of replicas; processor use in cores."""

    rate: float
    p50_ms: float
    p99_ms: float
    client_cpu: float
    server_cpu: float


def measure(run: Run) -> Group:
    """One against two."""
    group = Group("replicas: the small model, JSON, two against one")
    model = models.mlp(run.models, models.SMALL)
    rounds = interleaved({str(count): partial(_one, run, model, count) for count in COUNTS}, run.rounds)
    rows = []
    for size in ROWS:
        one, two = ([each[size] for each in rounds[str(count)]] for count in COUNTS)
        for count, each in zip(COUNTS, (one, two), strict=True):
            row = [size, count, *(middle(each, what) for what in Sample.__dataclass_fields__)]
            rows.append([*row, "" if count == 1 else f"{middle(two, 'rate') / middle(one, 'rate'):.2f}x"])
        if max(middle(one, "client_cpu"), middle(two, "client_cpu")) <= LITTLE_CPU:
            what = f"requests/s of two replicas against one, {size} rows a request"
            group.check(what, middle(two, "rate") / middle(one, "rate"), LEAST, "x")
    columns = ("rows", "replicas", "requests/s", "p50 ms", "p99 ms", "wrk's cores", "servers' cores", "two are")
    group.tables.append(rounds_table("one and two replicas", columns, rows))
    group.samples = {
        f"{count} replicas, {size} rows": [asdict(each[size]) for each in rounds[str(count)]]
        for count in COUNTS
        for size in ROWS
    }
    group.notes = [
        "both with a supervisor, default settings else",
        f"held against the target: loads in which wrk took at most {LITTLE_CPU:g} cores",
    ]
    return group


def _one(run: Run, model: Path, count: int) -> dict[int, Sample]:
    row = models.json_row(models.SMALL[0])
    with paceline(run, model, ("--replicas", str(count))) as server:
        models.check_answer(server, _ONE, row, model)
        load(run, server.url(_ONE), row, CONNECTIONS, 2)  # untimed
        found = {}
        for size in ROWS:
            body = row if size == 1 else json.dumps([json.loads(row)] * size).encode()
            seconds = run.either(5, 2)
            before_s = server.cpu_s
            seen = load(run, server.url(_ONE if size == 1 else _SEVERAL), body, CONNECTIONS, seconds)
            if seen.failed:
                raise BenchError(f"{seen.failed:.1%} of the requests with {size} rows failed")
            used = (server.cpu_s - before_s) / seconds
            found[size] = Sample(seen.rate, seen.p50_ms, seen.p99_ms, seen.client_cpu, used)
        return found
