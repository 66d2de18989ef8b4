"""What does inference cost on top of moving the bytes?

One image as FP32 [1, 3, 224, 224] by the binary extension of the Open Inference Protocol, against an echo of
the same body on the same transport. The identity model sends as much back as the echo does; the average pool
sends 12 bytes back, so it stands beside a route that discards the body. One server is loaded at a time.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial

import numpy as np

from benchmarks import models
from benchmarks.bench import BenchError, Group, Run, interleaved, middle
from benchmarks.peers.model import Tensor
from benchmarks.peers.wires import binary_request
from benchmarks.processes import Server, answers, free_port, paceline, started
from benchmarks.report import rounds_table
from benchmarks.wrk import Load, as_data, load

CONNECTIONS = (1, 8, 32)
LEAST = 0.9
_LENGTH = "inference-header-content-length"
_BASELINE = {"identity": "echo", "average_pool": "discard"}


def measure(run: Run) -> Group:
    """Rates of both models and of both bare routes."""
    group = Group("OIP REST, binary tensors [1, 3, 224, 224] FP32, beside a bare echo of the same body")
    image = np.random.default_rng(2).standard_normal((1, *models.IMAGE), np.float32)
    body, headers = binary_request([Tensor("x", "FP32", models.IMAGE)], {"x": image})
    with ExitStack() as stack:
        port = free_port()
        command = [sys.executable, "-m", "benchmarks.echo", str(port)]
        bare = stack.enter_context(started(run, command, port, ready=answers("/readyz")))
        identity = stack.enter_context(paceline(run, models.identity(run.models)))
        pool = stack.enter_context(paceline(run, models.average_pool(run.models)))
        targets: dict[str, tuple[Server, str]] = {
            "echo": (bare, "/echo"),
            "identity": (identity, "/v2/models/identity/infer"),
            "discard": (bare, "/discard"),
            "average_pool": (pool, "/v2/models/average_pool/infer"),
        }
        _check(*targets["identity"], body, headers, image)
        _check(*targets["average_pool"], body, headers, image.mean((2, 3), keepdims=True))
        for server, path in targets.values():
            load(run, server.url(path), body, 8, 1, headers)  # untimed
        samples = interleaved(
            {
                f"{name} {connections}": partial(
                    load, run, server.url(path), body, connections, run.either(4, 1), headers
                )
                for connections in CONNECTIONS
                for name, (server, path) in targets.items()
            },
            run.rounds,
        )
        group.samples = {**as_data(samples), "panels": {"identity": identity.panel, "pool": pool.panel}}
    _compare(group, samples, len(body))
    return group


def _check(server: Server, path: str, body: bytes, headers: Mapping[str, str], expected: np.ndarray) -> None:
    answer, got = server.post(path, body, headers)
    if _LENGTH not in got:
        raise BenchError(f"{path}: the answer has no header {_LENGTH}: {answer[:200]!r}")
    values = np.frombuffer(answer[int(got[_LENGTH]) :], "<f4")
    if not np.allclose(values, expected.ravel(), rtol=1e-4, atol=1e-5):
        raise BenchError(f"{path} gives other numbers than the model")


def _compare(group: Group, samples: Mapping[str, list[Load]], size: int) -> None:
    rows = []
    for connections in CONNECTIONS:
        for name in ("echo", "identity", "discard", "average_pool"):
            loads = samples[f"{name} {connections}"]
            rate = middle(loads, "rate")
            row = [
                connections,
                name,
                rate,
                rate * size / 1e6,
                middle(loads, "p50_ms"),
                middle(loads, "p99_ms"),
            ]
            if name in _BASELINE:
                share = rate / middle(samples[f"{_BASELINE[name]} {connections}"], "rate")
                row.append(f"{share:.1%} of {_BASELINE[name]}")
                if name == "identity":
                    group.check(f"identity model, share of the echo's rate, {connections} connections", share, LEAST)
                else:
                    echo = rate / middle(samples[f"echo {connections}"], "rate")
                    group.check(f"average pool, share of the echo's rate, {connections} connections", echo, LEAST)
            else:
                row.append("")
            rows.append(row)
    columns = ("connections", "route", "requests/s", "MB/s in", "p50 ms", "p99 ms", "rate is")
    group.tables.append(rounds_table("binary tensors", columns, rows))
    group.notes = [f"body: {size} bytes; the echo and the identity model send as much back, the others little"]
