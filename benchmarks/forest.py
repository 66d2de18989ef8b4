"""How fast is user code in Python, beside mosec and LitServe?

The same predict function everywhere (`services/forest.py`): a random forest of scikit-learn on one image of 64 pixels a
request, as JSON, at 1, 32 and 128 connections. Each server runs alone, with a worker for each core, and is started anew
in each round. The requests are a thousand different images, so that nobody answers one from another.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from importlib import metadata
from pathlib import Path

from benchmarks.bench import BenchError, Group, Run, interleaved, middle
from benchmarks.environments import environment
from benchmarks.processes import Server, answers, free_port, paceline, started
from benchmarks.report import rounds_table
from benchmarks.services.forest import TREES, Forest, images
from benchmarks.wrk import Load, as_data, load
from paceline.config.machine import usable_cores

CONNECTIONS = (1, 32, 128)
PINNED = ("mosec==0.9.8", "litserve==0.2.19")
LEAST = {
    ("mosec", 1): 5.0,
    ("mosec", 32): 1.0,
    ("mosec", 128): 1.0,
    ("mosec 1 ms", 1): 1.0,
    ("mosec 1 ms", 32): 1.0,
    ("mosec 1 ms", 128): 1.0,
    ("litserve", 32): 15.0,
}
_SERVICES = Path(__file__).parent / "services"
_DIFFERENT = 1000
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

Start = Callable[[], AbstractContextManager[Server]]


def measure(run: Run) -> Group:
    """All servers at all numbers of connections."""
    group = Group(f"user code in Python: a random forest of {TREES} trees, JSON")
    bodies = [json.dumps(image).encode() for image in images()[:_DIFFERENT]]
    workers = 1 if run.pin else usable_cores().whole
    rounds = interleaved(
        {
            name: lambda start=start, path=path: _one(run, start, path, bodies)
            for name, (start, path) in _servers(run, bodies[0], workers).items()
        },
        run.rounds,
    )
    samples = {
        f"{name} {connections}": [each[connections] for each in turns]
        for name, turns in rounds.items()
        for connections in CONNECTIONS
    }
    group.samples = as_data(samples)
    _compare(group, samples, list(rounds))
    group.notes = [
        f"peers: {', '.join(PINNED)}; scikit-learn and numpy as here; {workers} workers each, one thread each",
        "paceline: no flags",
        "mosec: batches up to 64, longest wait 10 ms, which it takes unless told otherwise",
        "mosec 1 ms: the same, longest wait 1 ms, the shortest that it takes",
        "litserve: batches up to 64, batch_timeout 10 ms; litserve fast: the same, fast_queue=True",
    ]
    return group


def _servers(run: Run, body: bytes, workers: int) -> dict[str, tuple[Start, str]]:
    python = _environment(run)
    return {
        "paceline": (lambda: paceline(run, _SERVICES / "paceline_forest.py"), "/predict"),
        "mosec": (lambda: _mosec(run, python, body, workers, 10), "/inference"),
        "mosec 1 ms": (lambda: _mosec(run, python, body, workers, 1), "/inference"),
        "litserve": (lambda: _litserve(run, python, body, workers, ""), "/predict"),
        "litserve fast": (lambda: _litserve(run, python, body, workers, "1"), "/predict"),
    }


def _compare(group: Group, samples: dict[str, list[Load]], servers: list[str]) -> None:
    rows = []
    for connections in CONNECTIONS:
        ours = samples[f"paceline {connections}"]
        for name in servers:
            theirs = samples[f"{name} {connections}"]
            row = [connections, name, *(middle(theirs, each) for each in ("rate", "p50_ms", "p99_ms"))]
            ratio = middle(ours, "rate") / middle(theirs, "rate")
            rows.append([*row, "" if name == "paceline" else f"{ratio:.2f}x"])
            if (name, connections) in LEAST:
                what = f"requests/s against {name} at {connections} connections"
                group.check(what, ratio, LEAST[name, connections], "x")
    columns = ("connections", "server", "requests/s", "p50 ms", "p99 ms", "ours is")
    group.tables.append(rounds_table("a random forest", columns, rows))


def _one(run: Run, start: Start, path: str, bodies: list[bytes]) -> dict[int, Load]:
    with start() as server:
        _check_answers(server, path, bodies)
        load(run, server.url(path), bodies, 32, 1)  # untimed: every code path once
        return {
            connections: load(run, server.url(path), bodies, connections, run.either(5, 1))
            for connections in CONNECTIONS
        }


def _check_answers(server: Server, path: str, bodies: list[bytes]) -> None:
    some = bodies[:5]
    expected = Forest().predict([json.loads(body) for body in some])
    found = [json.loads(server.post(path, body, {"content-type": "application/json"})[0]) for body in some]
    if found != expected:
        raise BenchError(f"{server.url(path)} sees {found}, the model {expected}")


# -- the peers ------------------------------------------------------------------------------------------------


def _mosec(run: Run, python: Path, body: bytes, workers: int, wait_ms: int) -> AbstractContextManager[Server]:
    port = free_port()
    flags = ["--address", "127.0.0.1", "--port", str(port), "--log-level", "warning"]
    command = [str(python), str(_SERVICES / "mosec_forest.py"), *flags]
    env = {**_ONE_THREAD, "WORKERS": str(workers), "WAIT_MS": str(wait_ms)}
    return started(run, command, port, ready=answers("/inference", body), env=env)


def _litserve(run: Run, python: Path, body: bytes, workers: int, fast_queue: str) -> AbstractContextManager[Server]:
    port = free_port()
    command = [str(python), str(_SERVICES / "litserve_forest.py"), str(port)]
    env = {**_ONE_THREAD, "WORKERS": str(workers), "FAST_QUEUE": fast_queue}
    return started(run, command, port, ready=answers("/predict", body), env=env)


def _environment(run: Run) -> Path:
    shared = [f"{name}=={metadata.version(name)}" for name in ("numpy", "scipy", "scikit-learn")]
    return environment(run, "venv-services", [*PINNED, *shared])
