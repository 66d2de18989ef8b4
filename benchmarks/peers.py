"""How fast are small JSON requests, beside mosec and beside FastAPI with uvicorn?

The same 64->128->10 model, one row a request, at 1, 32 and 128 connections. Each server runs alone, and is
started anew in each round. Peers live in an environment of their own, with versions pinned.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from importlib import metadata
from pathlib import Path

import numpy as np

from benchmarks import models
from benchmarks.bench import BenchError, Group, Run, interleaved, middle
from benchmarks.environments import environment
from benchmarks.processes import Server, answers, free_port, paceline, started
from benchmarks.report import rounds_table
from benchmarks.wrk import Load, as_data, load
from paceline.config.machine import usable_cores

CONNECTIONS = (1, 32, 128)
PINNED = (
    "mosec==0.9.8",
    "fastapi==0.165.0",
    "uvicorn==0.54.0",
    "uvloop==0.23.0",
    "httptools==0.9.0",
    "msgspec==0.22.0",
)
LEAST = {("mosec", 1): 8.0, ("mosec", 32): 3.0, ("mosec", 128): 1.2, ("fastapi", 32): 8.0}
_SERVICES = Path(__file__).parent / "services"

Start = Callable[[], AbstractContextManager[Server]]


def measure(run: Run) -> Group:
    """All servers at all numbers of connections."""
    group = Group("JSON over HTTP/1.1: the small model beside other servers")
    model = models.mlp(run.models, models.SMALL)
    body = models.json_row(models.SMALL[0])
    workers = 1 if run.pin else usable_cores().whole
    rounds = interleaved(
        {
            name: lambda start=start, path=path: _one(run, start, path, body, model)
            for name, (start, path) in _servers(run, model, body, workers).items()
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
        f"peers: {', '.join(PINNED)}; onnxruntime and numpy as here",
        "paceline: no flags, one process",
        "mosec: one worker beside its Rust server, batches up to 128, longest wait 1 ms",
        "mosec+msgspec: the same, with msgspec in place of the standard library's JSON",
        "fastapi: uvicorn, one process, uvloop, httptools, no access log",
        f"fastapi x{workers}: the same, with --workers {workers}, one for each core",
    ]
    return group


def _servers(run: Run, model: Path, body: bytes, workers: int) -> dict[str, tuple[Start, str]]:
    python = _environment(run)
    servers: dict[str, tuple[Start, str]] = {
        "paceline": (lambda: paceline(run, model), "/predict"),
        "mosec": (lambda: _mosec(run, python, model, body, "json"), "/inference"),
        "mosec+msgspec": (lambda: _mosec(run, python, model, body, "msgspec"), "/inference"),
        "fastapi": (lambda: _fastapi(run, python, model, body, 1), "/predict"),
    }
    if workers > 1:
        servers[f"fastapi x{workers}"] = (lambda: _fastapi(run, python, model, body, workers), "/predict")
    return servers


def _compare(group: Group, samples: dict[str, list[Load]], servers: list[str]) -> None:
    rows = []
    for connections in CONNECTIONS:
        ours = samples[f"paceline {connections}"]
        for name in servers:
            theirs = samples[f"{name} {connections}"]
            row = [connections, name, *(middle(theirs, each) for each in ("rate", "p50_ms", "p99_ms"))]
            if name == "paceline":
                rows.append([*row, "", ""])
                continue
            ratio = middle(ours, "rate") / middle(theirs, "rate")
            share = middle(ours, "p99_ms") / middle(theirs, "p99_ms")
            rows.append([*row, f"{ratio:.2f}x", share < 1])
            if (name, connections) in LEAST:
                what = f"requests/s against {name} at {connections} connections"
                group.check(what, ratio, LEAST[name, connections], "x")
            if name == "mosec":
                group.check(f"p99 against mosec's at {connections} connections", share, 1.0, "x", most=True)
    columns = ("connections", "server", "requests/s", "p50 ms", "p99 ms", "ours is", "our p99 lower")
    group.tables.append(rounds_table("small model", columns, rows))


def _one(run: Run, start: Start, path: str, body: bytes, model: Path) -> dict[int, Load]:
    with start() as server:
        check_answer(server, path, body, model)
        load(run, server.url(path), body, 32, 1)  # untimed: every code path once
        return {
            connections: load(run, server.url(path), body, connections, run.either(5, 1)) for connections in CONNECTIONS
        }


def check_answer(server: Server, path: str, body: bytes, model: Path) -> None:
    """The same numbers as ONNX Runtime gives, or the rates mean nothing.

    Raises:
        BenchError: other numbers.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    expected = session.run(None, {"x": np.array([json.loads(body)], np.float32)})[0][0]
    answer, _ = server.post(path, body, {"content-type": "application/json"})
    if not np.allclose(json.loads(answer), expected, rtol=1e-4, atol=1e-5):
        raise BenchError(f"{server.url(path)} gives other numbers than the model: {answer[:200]!r}")


# -- the peers ----------------------------------------------------------------------------------------------


def _mosec(
    run: Run, python: Path, model: Path, body: bytes, codec: str
) -> AbstractContextManager[Server]:  # fmt: skip
    port = free_port()
    flags = ["--address", "127.0.0.1", "--port", str(port), "--log-level", "warning"]
    command = [str(python), str(_SERVICES / "mosec_mlp.py"), *flags]
    env = {"MODEL": str(model.resolve()), "JSON": codec}
    return started(run, command, port, ready=answers("/inference", body), env=env)


def _fastapi(run: Run, python: Path, model: Path, body: bytes, workers: int) -> AbstractContextManager[Server]:
    port = free_port()
    flags = ["--app-dir", str(_SERVICES), "--port", str(port), "--workers", str(workers)]
    flags += ["--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"]
    command = [str(python), "-m", "uvicorn", "fastapi_mlp:app", *flags]
    env = {"MODEL": str(model.resolve())}
    return started(run, command, port, ready=answers("/predict", body), env=env)


def _environment(run: Run) -> Path:
    shared = [f"{name}=={metadata.version(name)}" for name in ("numpy", "onnxruntime")]
    return environment(run, "venv-peers", [*PINNED, *shared])
