"""grpc.health.v1 with the standard stubs, and what becomes of those who watch when the server goes."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from paceline.testing import RunningServer, run_server
from support import grpcs, models

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    path = models.identity(tmp_path_factory.mktemp("grpc") / "same.onnx")
    with run_server(path, ["--warmup-s", "0.05"]) as server:
        yield server


@pytest.fixture(scope="module")
def stub(server: RunningServer) -> Iterator[Any]:
    with grpcs.connect(server) as channel:
        yield health_pb2_grpc.HealthStub(channel)


def asked(service: str) -> Any:
    return health_pb2.HealthCheckRequest(service=service)


@pytest.mark.parametrize(
    "service",
    ["", "inference.GRPCInferenceService", "grpc.health.v1.Health", "PredictionService", "ModelService", "same"],
)
def test_a_ready_server_serves(stub: Any, service: str) -> None:
    assert stub.Check(asked(service), timeout=20).status == SERVING


def test_a_service_that_is_not_there(stub: Any) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.Check(asked("no"), timeout=20)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND  # type: ignore[attr-defined]
    watching = stub.Watch(asked("no"), timeout=20)
    assert next(watching).status == UNKNOWN
    watching.cancel()


@pytest.mark.slow
def test_who_watches_is_told_that_the_server_drains(tmp_path: Path) -> None:
    path = models.identity(tmp_path / "same.onnx")
    flags = ["--warmup-s", "0.05", "--lame-duck-ms", "1000", "--grace-ms", "10000"]
    with run_server(path, flags) as server, grpcs.connect(server) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        watching = stub.Watch(asked(""), timeout=20)
        assert next(watching).status == SERVING
        server.process.send_signal(signal.SIGTERM)
        assert next(watching).status == NOT_SERVING
        assert stub.Check(asked(""), timeout=20).status == NOT_SERVING
        with pytest.raises(grpc.RpcError, match="the server is draining"):
            next(watching)
        assert server.process.wait(8) == 0  # nobody who watches holds up the end


@pytest.mark.slow
def test_who_watches_is_told_that_the_server_is_warm(tmp_path: Path) -> None:
    path = models.slow(tmp_path / "slow.onnx")
    with run_server(path, ["--warmup-s", "1"], ready=False) as server, grpcs.connect(server) as channel:
        watching = health_pb2_grpc.HealthStub(channel).Watch(asked(""), timeout=30)
        states = [next(watching).status]
        if states == [NOT_SERVING]:
            states.append(next(watching).status)
        assert states[-1] == SERVING
        watching.cancel()
