"""What becomes of open gRPC calls when the server drains: answered or told, and never what holds up the end."""

from __future__ import annotations

import queue
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from grpc_health.v1 import health_pb2, health_pb2_grpc
from httpunk._httpunk import H2FrameGoAway, H2FramePing

from paceline.testing import RunningServer, run_server
from support import grpcs, models
from support.frames import Frames, framed
from support.grpc_echo import echo_server
from support.wire import metric, until

pytestmark = pytest.mark.slow
GRACE_MS, GOES_S = "20000", 5


@contextmanager
def patient(folder: Path, *flags: str) -> Iterator[RunningServer]:
    """A model that takes about 10 us for every unit of its input, one request after another."""
    (folder / "examples.json").write_text("3000")
    fixed = ["--instances", "1", "--threads", "1", "--max-batch-size", "1", "--warmup-s", "0", "--grace-ms", GRACE_MS]
    fixed += ["--examples", str(folder / "examples.json")]
    with run_server(models.patient(folder / "patient.onnx"), [*fixed, *flags]) as running:
        yield running


@contextmanager
def streaming(server: RunningServer) -> Iterator[tuple[Any, queue.Queue[Any]]]:
    """Triton's client with an open stream; what it is called back with."""
    got: queue.Queue[Any] = queue.Queue()
    client = triton.InferenceServerClient(f"{server.host}:{server.port}")
    client.start_stream(lambda result, error: got.put(error or int(result.as_numpy("y")[0])))
    yield client, got
    client.stop_stream()
    client.close()


def units(count: int) -> list[Any]:
    tensor = triton.InferInput("n", [1], "INT64")
    tensor.set_data_from_numpy(np.array([count]))
    return [tensor]


def test_an_idle_stream_is_told_and_does_not_hold_up_the_end(tmp_path: Path) -> None:
    with patient(tmp_path) as server, streaming(server) as (client, got):
        client.async_stream_infer("patient", units(10))
        assert got.get(timeout=10) == 10
        server.process.send_signal(signal.SIGTERM)
        error = got.get(timeout=GOES_S)
        assert error.status() == "StatusCode.UNAVAILABLE"
        assert error.message() == "the server is draining"
        assert server.process.wait(GOES_S) == 0


def test_a_stream_with_requests_under_way_answers_them_first(tmp_path: Path) -> None:
    with patient(tmp_path) as server, streaming(server) as (client, got):
        for count in (20_000, 20_001, 20_002):
            client.async_stream_infer("patient", units(count))
        until(lambda: metric(server, "paceline_running_batches") == 1)
        server.process.send_signal(signal.SIGTERM)
        assert [got.get(timeout=10) for _ in range(3)] == [20_000, 20_001, 20_002]
        assert got.get(timeout=GOES_S).message() == "the server is draining"
        assert server.process.wait(GOES_S) == 0


def test_requests_that_come_to_a_stream_after_that_are_not_begun(tmp_path: Path) -> None:
    with patient(tmp_path) as server, Frames(server) as client:
        client.send(client.head(1, f"/{grpcs.SERVICE}/ModelStreamInfer"))
        client.send(client.data(1, framed(asked(100_000))))
        until(lambda: metric(server, "paceline_running_batches") == 1)
        server.process.send_signal(signal.SIGTERM)
        for _ in range(2):
            client.until(lambda f: isinstance(f, H2FrameGoAway))
        client.send(client.data(1, framed(asked(7))))
        client.until(lambda f: getattr(f, "stream_id", 0) == 1 and hasattr(f, "data"))
        end = client.until(lambda f: getattr(f, "stream_id", 0) == 1)  # no second answer before it
        assert end.headers["grpc-status"] == b"14"
        client.socket.close()
        assert server.process.wait(GOES_S) == 0


def asked(count: int) -> bytes:
    n = np.array([count], "<i8")
    inputs = [grpcs.described("n", n, "INT64")]
    encoded: bytes = grpcs.REQUEST(
        model_name="patient", inputs=inputs, raw_input_contents=[n.tobytes()]
    ).SerializeToString()
    return encoded


def test_an_open_stream_of_any_method_is_ended(tmp_path: Path) -> None:
    with echo_server(tmp_path) as server, grpc.insecure_channel(f"{server.host}:{server.port}") as channel:
        sending: queue.Queue[bytes] = queue.Queue()
        call = channel.stream_stream("/test.Echo/stream")(iter(sending.get, None), timeout=20)
        sending.put(b"first")
        assert next(call) == b"first"
        server.process.terminate()
        with pytest.raises(grpc.RpcError, match="the server is draining"):
            next(call)
        assert call.code() is grpc.StatusCode.UNAVAILABLE
        assert server.process.wait(GOES_S) == 0


def test_a_client_that_does_not_acknowledge_the_end_is_told_all_the_same(tmp_path: Path) -> None:
    with echo_server(tmp_path) as server, Frames(server) as client:
        client.send(client.head(1, "/test.Echo/stream"), client.data(1, framed(b"first")))
        assert client.message(1) == b"first"
        client.answers_pings = False
        server.process.terminate()
        assert client.status(1) == ("14", "the server is draining")
        client.socket.close()
        assert server.process.wait(GOES_S) == 0


def test_fault_070_a_new_connection_is_served_while_the_server_still_listens(tmp_path: Path) -> None:
    with patient(tmp_path, "--lame-duck-ms", "3000") as server, grpcs.connect(server) as old:
        stub = health_pb2_grpc.HealthStub(old)
        assert stub.Check(health_pb2.HealthCheckRequest(), timeout=10).status == 1
        server.process.send_signal(signal.SIGTERM)
        until(lambda: metric(server, "paceline_ready") == 0)
        for _ in range(5):
            with grpcs.connect(server) as new:
                stub = health_pb2_grpc.HealthStub(new)
                assert stub.Check(health_pb2.HealthCheckRequest(), timeout=10).status == 2
                request = grpcs.REQUEST.FromString(asked(5))
                assert grpcs.ask(new, "ModelInfer", request=request).model_name == "patient"
        with Frames(server) as raw:
            raw.send(raw.codec.serialize_ping(b"12345678"))
            raw.until(lambda f: isinstance(f, H2FramePing) and f.ack)
            raw.send(raw.call(1, "/grpc.health.v1.Health/Check", b""))
            assert raw.message(1) == b"\x08\x02"
            raw.until(lambda f: isinstance(f, H2FrameGoAway))
        assert server.process.wait(10) == 0
