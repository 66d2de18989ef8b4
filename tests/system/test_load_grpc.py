"""The load client's gRPC against real servers: ours, and grpcio's."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from paceline.loadtest.client.codec import Answer
from paceline.loadtest.client.grpc import Grpc
from paceline.loadtest.target import Target
from paceline.server.messages import message
from paceline.testing import RunningServer, run_server
from support import models
from support.grpc_echo import echo_server

LARGE = 10 << 20
_ANY_SIZE = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


class Caller:
    """One connection of the load client, on a socket that waits."""

    def __init__(self, host: str, port: int, path: str, *bodies: bytes) -> None:
        self.codec = Grpc(Target(host=host, port=port, wire="grpc", protocol="raw", path=path, bodies=bodies))
        self.socket = socket.create_connection((host, port), timeout=30)
        self.socket.sendall(self.codec.greeting())

    def __enter__(self) -> Caller:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def call(self, index: int = 0) -> Answer:
        self.socket.sendall(self.codec.request(index))
        return self.answer()

    def answer(self) -> Answer:
        while True:
            data = self.socket.recv(1 << 18)
            assert data, "closed without an answer"
            answer = self.codec.receive(data)
            self.socket.sendall(self.codec.pending())
            if answer is not None:
                return answer


class _Methods(grpc.GenericRpcHandler):
    def service(self, call: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        handlers = {"/test.Echo/echo": _echo, "/test.Echo/wrong": _wrong, "/test.Echo/slow": _metadata_first}
        return grpc.unary_unary_rpc_method_handler(handlers[call.method]) if call.method in handlers else None


def _echo(body: bytes, context: grpc.ServicerContext) -> bytes:
    context.set_trailing_metadata([("x-length", str(len(body)))])
    return body


def _wrong(body: bytes, context: grpc.ServicerContext) -> bytes:
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"größer than {len(body)}")


def _metadata_first(body: bytes, context: grpc.ServicerContext) -> bytes:
    context.send_initial_metadata([("server-timing", "queue;dur=1.000, infer;dur=2.000"), ("x-batch-size", "4")])
    return body


@contextmanager
def grpcio_server() -> Iterator[int]:
    """A server of grpcio, in threads of this process; its port."""
    server = grpc.server(ThreadPoolExecutor(4), handlers=[_Methods()], options=_ANY_SIZE)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield port
    finally:
        server.stop(None).wait(10)


@pytest.fixture(scope="module")
def grpcio() -> Iterator[int]:
    with grpcio_server() as port:
        yield port


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with echo_server(tmp_path_factory.mktemp("echo"), body_bytes=LARGE) as running:
        yield running


@pytest.fixture(params=["grpcio", "ours"])
def address(request: pytest.FixtureRequest) -> tuple[str, int]:
    server = request.getfixturevalue(request.param)
    return ("127.0.0.1", server) if isinstance(server, int) else (server.host, server.port)


def test_many_calls_of_any_size_on_one_connection(address: tuple[str, int]) -> None:
    sizes = [0, 1, 5, 1000, 16_379, 16_380, 65_530, 65_531, 200_000]
    with Caller(*address, "/test.Echo/echo", *(bytes(size) for size in sizes)) as caller:
        for _ in range(20):
            for index in range(len(sizes)):
                answer = caller.call(index)
                assert (answer.ok, answer.status, answer.closes) == (True, 0, False), sizes[index]


@pytest.mark.slow
def test_ten_megabytes_there_and_back(address: tuple[str, int]) -> None:
    with Caller(*address, "/test.Echo/echo", bytes(LARGE)) as caller:
        for _ in range(3):
            assert caller.call().ok


def test_errors_carry_their_status_and_the_connection_lives(address: tuple[str, int]) -> None:
    statuses = {"/test.Echo/wrong": (9, 3), "/test.Echo/nothing": (12, 12)}
    for path, expected in statuses.items():
        with Caller(*address, path, b"abc") as caller:
            for _ in range(3):
                answer = caller.call()
                assert not answer.ok
                assert answer.status in expected
                assert not answer.closes


def test_the_time_that_a_server_tells_in_its_headers(grpcio: int) -> None:
    with Caller("127.0.0.1", grpcio, "/test.Echo/slow", b"abc") as caller:
        assert caller.call() == Answer(True, 0, 0.001, 0.002, 4)


def test_a_message_that_is_refused_before_it_has_left(ours: RunningServer) -> None:
    with Caller(ours.host, ours.port, "/test.Echo/echo", bytes(2 * LARGE), b"small") as caller:
        assert caller.call(0).status == 8
        assert caller.call(1).ok


def test_the_server_sees_what_we_send(ours: RunningServer) -> None:
    with Caller(ours.host, ours.port, "/test.Echo/told", b"") as caller:
        caller.socket.sendall(caller.codec.request(0))
        seen = b""
        while b"content-type" not in seen:
            seen += caller.socket.recv(65_536)
    headers = json.loads(seen[seen.index(b"{") : seen.rindex(b"}") + 1])["headers"]
    assert headers["te"] == "trailers"
    assert headers["host"] == f"{ours.host}:{ours.port}"


@pytest.mark.slow
def test_a_server_that_drains_answers_and_then_takes_no_more(tmp_path: Path) -> None:
    with echo_server(tmp_path) as running, Caller(running.host, running.port, "/test.Echo/later", b"0.2") as caller:
        assert caller.call().ok  # it has taken the connection
        caller.socket.sendall(caller.codec.request(0))
        running.process.terminate()
        answer = caller.answer()
        assert answer.ok
        assert answer.closes


@pytest.mark.slow
def test_inferences_of_a_model(tmp_path: Path) -> None:
    model = message("inference.ModelInferRequest")(model_name="model")
    model.inputs.add(name="x", datatype="FP32", shape=[1, 3]).contents.fp32_contents.extend([1.0, 2.0, 3.0])
    unknown = message("inference.ModelInferRequest")(model_name="nobody")
    path = "/inference.GRPCInferenceService/ModelInfer"
    bodies = model.SerializeToString(), unknown.SerializeToString()
    with (
        run_server(models.identity(tmp_path / "model.onnx"), ["--warmup-s", "0.05"]) as server,
        Caller(server.host, server.port, path, *bodies) as caller,
    ):
        for _ in range(50):
            assert caller.call(0).ok
        assert caller.call(1).status == 5
        assert caller.call(0).ok
