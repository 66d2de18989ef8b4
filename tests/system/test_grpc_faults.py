"""Faults 65 to 68 and 70 against a real model: over the limit, late, given up, refused, unwell."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from paceline.testing import RunningServer, run_server
from support import grpcs, models
from support.frames import CALL, Frames
from support.wire import metric, until

pytestmark = pytest.mark.slow
# About a second of work, while which everything behind it waits.
LONG = 100_000


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    """A model that runs one row at a time; about 10 us for every unit of its input. It has not learned yet how long
    a row may take: nothing is refused because it would be late."""
    (tmp_path / "examples.json").write_text("3000")
    flags = ["--instances", "1", "--threads", "1", "--max-batch-size", "1", "--warmup-s", "0", "--max-body-mb", "1"]
    flags += ["--examples", str(tmp_path / "examples.json")]
    with run_server(models.patient(tmp_path / "patient.onnx"), flags) as running:
        yield running


@pytest.fixture
def channel(server: RunningServer) -> Iterator[grpc.Channel]:
    with grpcs.connect(server) as opened:
        yield opened


def asked(*units: int, **more: Any) -> Any:
    n = np.array(units, "<i8")
    fields = {"model_name": "patient", "inputs": [grpcs.described("n", n, "INT64")]}
    return grpcs.REQUEST(**{**fields, "raw_input_contents": [n.tobytes()], **more})


def infer(channel: grpc.Channel, units: int, timeout_s: float = 20) -> Any:
    """The call, under way."""
    response = grpcs.message("inference.ModelInferResponse")
    method = channel.unary_unary(f"/{grpcs.SERVICE}/ModelInfer", grpcs.REQUEST.SerializeToString, response.FromString)
    return method.future(asked(units), timeout=timeout_s)


def answer(call: Any) -> int:
    return int(np.frombuffer(call.result(timeout=20).raw_output_contents[0], "<i8")[0])


def queued(server: RunningServer) -> float:
    return metric(server, "paceline_queued_requests")


def ran(server: RunningServer) -> tuple[float, float]:
    return metric(server, "paceline_rows_total"), metric(server, "paceline_batch_rows_count")


def test_fault_065_a_message_over_the_limit_is_refused_and_the_channel_lives(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        grpcs.ask(channel, "ModelInfer", request=asked(*[1] * (1 << 17)))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert str(1 << 20) in caught.value.details()
    assert answer(infer(channel, 5)) == 5


def test_fault_066_a_deadline_that_passes_in_the_queue_drops_the_work(
    server: RunningServer, channel: grpc.Channel
) -> None:
    rows, batches = ran(server)
    before = infer(channel, LONG)
    until(lambda: metric(server, "paceline_running_batches") == 1)
    with Frames(server) as client:  # which has no clock of its own, as grpcio has
        message = asked(1).SerializeToString()
        client.send(client.call(1, f"/{grpcs.SERVICE}/ModelInfer", message, *CALL, ("grpc-timeout", "300m")))
        assert client.status(1)[0] == "4"
    assert not before.done()
    assert queued(server) == 0
    assert answer(before) == LONG
    assert answer(infer(channel, 3)) == 3
    assert ran(server) == (rows + 2, batches + 2)


def test_fault_066_a_deadline_of_1_ms_is_missed_without_a_run(server: RunningServer, channel: grpc.Channel) -> None:
    """Whoever sees it first says so: the client's clock, or the server, which refuses what cannot be in time."""
    rows, batches = ran(server)
    before = infer(channel, LONG)
    until(lambda: metric(server, "paceline_running_batches") == 1)
    codes = {infer(channel, 1, timeout_s=0.001).exception(timeout=20).code() for _ in range(10)}
    assert codes <= {grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert answer(before) == LONG
    assert ran(server) == (rows + 1, batches + 1)


def test_fault_067_a_call_cancelled_while_queued_is_never_executed(
    server: RunningServer, channel: grpc.Channel
) -> None:
    rows, batches = ran(server)
    before = infer(channel, LONG)
    until(lambda: metric(server, "paceline_running_batches") == 1)
    given_up = [infer(channel, 1) for _ in range(20)]
    until(lambda: queued(server) == 20)
    for call in given_up:
        call.cancel()
    until(lambda: queued(server) == 0)
    assert answer(before) == LONG
    assert answer(infer(channel, 3)) == 3
    assert ran(server) == (rows + 2, batches + 2)


def test_fault_068_what_is_wrong_decides_the_status(channel: grpc.Channel) -> None:
    assert "not found" in grpcs.refused(channel, asked(1, model_name="no"), "NOT_FOUND")
    assert "input" in grpcs.refused(channel, asked(1, inputs=[]), "INVALID_ARGUMENT")


def test_fault_068_070_a_server_that_is_not_ready_says_so(tmp_path: Path) -> None:
    path = models.slow(tmp_path / "slow.onnx")
    with run_server(path, ["--warmup-s", "3"], ready=False) as warming, grpcs.connect(warming) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        assert health.Check(health_pb2.HealthCheckRequest(), timeout=10).status == 2
        grpcs.refused(channel, grpcs.REQUEST(model_name="slow"), "UNAVAILABLE")


def test_fault_070_health_flips_on_drain_and_reflection_lists_services(tmp_path: Path) -> None:
    flags = ["--warmup-s", "0.05", "--lame-duck-ms", "1000"]
    with run_server(models.identity(tmp_path / "same.onnx"), flags) as server, grpcs.connect(server) as channel:
        services = set(ProtoReflectionDescriptorDatabase(channel).get_services())
        assert {"grpc.health.v1.Health", grpcs.SERVICE, "grpc.reflection.v1.ServerReflection"} <= services
        health = health_pb2_grpc.HealthStub(channel)
        for name in ("", grpcs.SERVICE, "same"):
            assert health.Check(health_pb2.HealthCheckRequest(service=name), timeout=10).status == 1
        server.process.send_signal(signal.SIGTERM)
        until(lambda: health.Check(health_pb2.HealthCheckRequest(), timeout=10).status == 2)
        assert server.process.wait(10) == 0
