"""How fast is a model in R, beside plumber? And what does the way to R and back cost?

The same `predict.lm` on both sides (`services/mileage.R`), one row a request, as JSON, at 1, 32 and 128 connections.
Each server runs alone and is started anew in each round. The requests are a thousand different rows, so that nobody
answers one from another.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.bench import BenchError, Group, Run, interleaved, middle
from benchmarks.peers.plumber import require_plumber
from benchmarks.processes import Server, answers, free_port, paceline, started
from benchmarks.report import rounds_table
from benchmarks.wrk import Load, as_data, load

CONNECTIONS = (1, 32, 128)
MOST_ADDED_MS = 0.5
LEAST_AT_32 = 20.0
_SERVICES = Path(__file__).parent / "services"
_DIFFERENT = 1000
_JSON = {"content-type": "application/json"}

Start = Callable[[], AbstractContextManager[Server]]


@dataclass(frozen=True)
class _Turn:
    """One round of one server.

    Attributes:
        alone_ms: median time of `predict_fn` in R, just before.
    """

    loads: dict[int, Load]
    alone_ms: float


def measure(run: Run) -> Group:
    """Both servers at all numbers of connections."""
    _require_r()
    group = Group("user code in R: predict.lm, JSON")
    bodies = [json.dumps({"wt": 1.5 + each / 250, "hp": 110, "qsec": 17}).encode() for each in range(_DIFFERENT)]
    servers: dict[str, Start] = {
        "paceline": lambda: paceline(run, _SERVICES / "mileage.R"),
        "plumber": lambda: _plumber(run, bodies[0]),
    }
    rounds = interleaved(
        {name: lambda start=start: _one(run, start, bodies) for name, start in servers.items()}, run.rounds
    )
    samples = {
        f"{name} {connections}": [each.loads[connections] for each in turns]
        for name, turns in rounds.items()
        for connections in CONNECTIONS
    }
    group.samples = as_data(samples)
    _compare(group, samples)
    alone_ms = median(each.alone_ms for turns in rounds.values() for each in turns)
    added = middle(samples["paceline 1"], "p50_ms") - alone_ms
    group.check("added to predict_fn at one connection, p50", added, MOST_ADDED_MS, " ms", most=True)
    group.notes = [
        f"predict_fn itself takes {alone_ms:.3f} ms for one row, in R alone",
        "added: the whole way, from wrk and back to it, less that",
        "paceline: no flags, a worker for each core; plumber: one process, which is how it runs",
    ]
    return group


def _compare(group: Group, samples: dict[str, list[Load]]) -> None:
    rows = []
    for connections in CONNECTIONS:
        ours, theirs = samples[f"paceline {connections}"], samples[f"plumber {connections}"]
        ratio = middle(ours, "rate") / middle(theirs, "rate")
        for name, each in (("paceline", ours), ("plumber", theirs)):
            numbers = [middle(each, attribute) for attribute in ("rate", "p50_ms", "p99_ms")]
            rows.append([connections, name, *numbers, f"{ratio:.1f}x" if name == "plumber" else ""])
        if connections == 32:
            group.check("requests/s against plumber at 32 connections", ratio, LEAST_AT_32, "x")
    columns = ("connections", "server", "requests/s", "p50 ms", "p99 ms", "ours is")
    group.tables.append(rounds_table("predict.lm in R", columns, rows))


def _one(run: Run, start: Start, bodies: list[bytes]) -> _Turn:
    alone_ms = _alone_ms()
    with start() as server:
        _check_answers(server, bodies)
        load(run, server.url("/predict"), bodies, 32, 1)  # untimed: every code path once
        seconds = run.either(5, 1)
        return _Turn({each: load(run, server.url("/predict"), bodies, each, seconds) for each in CONNECTIONS}, alone_ms)


def _check_answers(server: Server, bodies: list[bytes]) -> None:
    first, last = (float(json.loads(server.post("/predict", body, _JSON)[0])) for body in (bodies[0], bodies[-1]))
    if not 0 < last < first < 50:  # miles per gallon; a heavy car goes less far
        raise BenchError(f"{server.url('/predict')} answers {first} and {last}")


def _plumber(run: Run, body: bytes) -> AbstractContextManager[Server]:
    port = free_port()
    command = ["Rscript", "--vanilla", str(_SERVICES / "mileage_plumber.R"), str(_SERVICES), str(port)]
    return started(run, command, port, ready=answers("/predict", body))


def _alone_ms() -> float:
    command = ["Rscript", "--vanilla", str(_SERVICES / "mileage_alone.R"), str(_SERVICES)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout)


def _require_r() -> None:
    if shutil.which("Rscript") is None:
        raise BenchError("R is not installed (Debian and Ubuntu: apt-get install r-base-core r-cran-plumber)")
    require_plumber()
