"""What does `paceline.batched` bring to a FastAPI application?

The same random forest of scikit-learn, 10 trees, one row a request, behind three endpoints: a plain one, which
FastAPI runs on its threads, an async one, which runs on the event loop, and one whose requests share batches.
Each server runs alone, and is started anew in each round.
"""

from __future__ import annotations

import json
import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from benchmarks.bench import BenchError, Group, Run, interleaved, middle
from benchmarks.processes import Server, answers, free_port, started
from benchmarks.report import rounds_table
from benchmarks.wrk import Load, as_data, load

CONNECTIONS = (1, 32)
WAYS = ("threads", "async", "batched")
_NEEDED = ("fastapi", "uvicorn", "uvloop", "sklearn")
_PACKAGES = ("fastapi", "uvicorn", "uvloop", "scikit-learn")
_LEAST = {1: 0.8, 32: 2.0}
_SERVICES = Path(__file__).parent / "services"


def measure(run: Run) -> Group:
    """Every way at all numbers of connections."""
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise BenchError(f"{', '.join(missing)}: not installed here; pip install 'paceline[test]'")
    body = json.dumps([float(value % 17) for value in range(64)]).encode()
    rounds = interleaved({way: lambda way=way: _one(run, way, body) for way in WAYS}, run.rounds)
    samples = {
        f"{way} {connections}": [each[connections] for each in turns]
        for way, turns in rounds.items()
        for connections in CONNECTIONS
    }
    group = Group("A FastAPI application with and without paceline.batched")
    group.samples = as_data(samples)
    _compare(group, samples)
    group.notes = [
        f"{', '.join(f'{name} {metadata.version(name)}' for name in _PACKAGES)}; one process of uvicorn",
        "threads: `def`, on 40 threads; async: `async def`, on the event loop; batched: `await predict.aio(row)`",
    ]
    return group


def _compare(group: Group, samples: dict[str, list[Load]]) -> None:
    rows = []
    for connections in CONNECTIONS:
        ours = samples[f"batched {connections}"]
        for way in WAYS:
            theirs = samples[f"{way} {connections}"]
            ratio = middle(ours, "rate") / middle(theirs, "rate")
            numbers = (middle(theirs, each) for each in ("rate", "p50_ms", "p99_ms"))
            rows.append([connections, way, *numbers, "" if way == "batched" else f"{ratio:.2f}x"])
        best = max(middle(samples[f"{way} {connections}"], "rate") for way in WAYS[:2])
        what = f"requests/s against the better of the two others at {connections} connections"
        group.check(what, middle(ours, "rate") / best, _LEAST[connections], "x")
    columns = ("connections", "endpoint", "requests/s", "p50 ms", "p99 ms", "batched is")
    group.tables.append(rounds_table("random forest, one row a request", columns, rows))


def _one(run: Run, way: str, body: bytes) -> dict[int, Load]:
    path = f"/{way}"
    port = free_port()
    place = ("--app-dir", str(_SERVICES), "--port", str(port))
    command = [
        sys.executable,
        "-m",
        "uvicorn",
        "fastapi_forest:app",
        *place,
        "--no-access-log",
        "--log-level",
        "warning",
    ]
    with started(run, command, port, ready=answers(path, body)) as server:
        _check(server, path, body)
        load(run, server.url(path), body, 32, 1)  # untimed: every code path once
        return {each: load(run, server.url(path), body, each, run.either(5, 1)) for each in CONNECTIONS}


def _check(server: Server, path: str, body: bytes) -> None:
    answer, _ = server.post(path, body, {"content-type": "application/json"})
    if json.loads(answer) not in range(10):
        raise BenchError(f"{server.url(path)}: expected a digit, got {answer[:200]!r}")
