"""What gRPC clients see of the transport: messages, statuses, compression, cancelling, big messages, leaving."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from paceline.testing import RunningServer
from support.frames import CALL, Frames, framed
from support.grpc_echo import echo_server
from support.wire import until

LIMIT = 8 << 20
_BIG = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with echo_server(tmp_path_factory.mktemp("echo"), body_bytes=LIMIT) as running:
        yield running


@pytest.fixture
def channel(server: RunningServer) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(f"{server.host}:{server.port}", options=_BIG) as opened:
        yield opened


@pytest.fixture
def raw(server: RunningServer) -> Iterator[Frames]:
    with Frames(server) as client:
        yield client


def unary(channel: grpc.Channel, name: str) -> grpc.UnaryUnaryMultiCallable:
    return channel.unary_unary(f"/test.Echo/{name}")


def told(channel: grpc.Channel) -> dict:
    """What the server has seen."""
    seen: dict = json.loads(unary(channel, "told")(b"", timeout=10))
    return seen


def failure(channel: grpc.Channel, name: str, message: bytes = b"") -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as raised:
        unary(channel, name)(message, timeout=10)
    return raised.value


@pytest.mark.parametrize("size", [0, 1, 16 << 10, 64 << 10, 1 << 20, LIMIT])
def test_messages_of_any_size_come_back(channel: grpc.Channel, size: int) -> None:
    message = bytes(size)
    assert unary(channel, "echo")(message, timeout=10) == message


def test_an_answer_larger_than_every_window_arrives_whole(channel: grpc.Channel) -> None:
    answer = unary(channel, "big")(b"30000000", timeout=20)
    assert answer == b"x" + b"y" * 29_999_999


def test_fault_065_a_message_over_the_limit_is_refused_and_the_channel_lives(channel: grpc.Channel) -> None:
    error = failure(channel, "echo", bytes(LIMIT + 1))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert str(LIMIT) in error.details()
    assert unary(channel, "echo")(b"still there", timeout=10) == b"still there"


def test_fault_068_errors_carry_their_status_and_text(channel: grpc.Channel) -> None:
    error = failure(channel, "wrong")
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error.details() == "größer\n100 %"
    assert failure(channel, "nothing").code() is grpc.StatusCode.UNIMPLEMENTED
    broken = failure(channel, "broken")
    assert (broken.code(), broken.details()) == (grpc.StatusCode.INTERNAL, "internal error")


def test_shedding_says_when_to_come_back(channel: grpc.Channel) -> None:
    error = failure(channel, "busy")
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert 500 <= int(dict(error.trailing_metadata())["grpc-retry-pushback-ms"]) <= 600


def test_fault_067_cancelling_a_call_reaches_its_method(channel: grpc.Channel) -> None:
    before = told(channel)["left"]
    call = unary(channel, "never").future(b"")
    unary(channel, "echo")(b"", timeout=10)
    call.cancel()
    until(lambda: told(channel)["left"] == before + 1)


def test_fault_066_the_client_deadline_ends_the_call(channel: grpc.Channel) -> None:
    before = told(channel)["left"]
    with pytest.raises(grpc.RpcError) as raised:
        unary(channel, "never")(b"", timeout=0.1)
    assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    until(lambda: told(channel)["left"] == before + 1)


def test_fault_031_a_lost_connection_reaches_every_open_call(server: RunningServer, channel: grpc.Channel) -> None:
    before = told(channel)["left"]
    with Frames(server) as client:
        for number in range(10):
            client.send(client.call(1 + 2 * number, "/test.Echo/never", b""))
        client.send(client.call(101, "/test.Echo/echo", b""))
        client.status(101)
    until(lambda: told(channel)["left"] == before + 10)


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_compressed_messages_are_inflated(channel: grpc.Channel, compression: grpc.Compression) -> None:
    message = b"abc" * 100_000
    assert unary(channel, "echo")(message, timeout=10, compression=compression) == message


def test_a_stream_answers_every_message_in_order(channel: grpc.Channel) -> None:
    messages = [b"%d" % number * (number % 7 * 5000) for number in range(200)]
    answers = channel.stream_stream("/test.Echo/stream")(iter(messages), timeout=20)
    assert list(answers) == messages


def test_a_request_id_comes_back_and_is_logged(server: RunningServer, channel: grpc.Channel) -> None:
    _, call = unary(channel, "echo").with_call(b"", timeout=10, metadata=[("x-request-id", "call-1")])
    assert dict(call.initial_metadata())["x-request-id"] == "call-1"
    until(lambda: '"request_id":"call-1"' in server.output)
    line = next(json.loads(line) for line in server.output.splitlines() if "call-1" in line)
    assert (line["path"], line["grpc_status"]) == ("/test.Echo/echo", "OK")


# -- what real clients do not send --------------------------------------------------------------------------------


def test_a_message_may_come_in_pieces_of_any_size(raw: Frames) -> None:
    body = framed(b"in pieces")
    raw.send(raw.head(1, "/test.Echo/echo"))
    for place in range(len(body)):
        raw.send(raw.data(1, body[place : place + 1]))
    raw.send(raw.data(1, b"", True))
    assert raw.message(1) == b"in pieces"
    assert raw.status(1) == ("0", "")


def test_several_messages_in_one_frame(raw: Frames) -> None:
    raw.send(raw.head(1, "/test.Echo/stream"), raw.data(1, framed(b"one") + framed(b"two") + framed(b"thr")[:6]))
    raw.send(raw.data(1, framed(b"thr")[6:], True))
    assert [raw.message(1) for _ in range(3)] == [b"one", b"two", b"thr"]


@pytest.mark.parametrize(
    ("body", "status", "shown"),
    [
        (b"", "12", "got none"),
        (framed(b"a") + framed(b"b"), "12", "got more"),
        (framed(b"abc")[:-1], "13", "middle"),
        (b"\7\0\0\0\0", "13", "framed"),
        (framed(b"a", compressed=True), "13", "no grpc-encoding"),
    ],
    ids=["none", "two", "short", "flag", "unnamed"],
)
def test_a_malformed_unary_body_is_answered_with_a_status(raw: Frames, body: bytes, status: str, shown: str) -> None:
    raw.send(raw.head(1, "/test.Echo/echo"), raw.data(1, body, True))
    code, message = raw.status(1)
    assert code == status
    assert shown in message
    raw.send(raw.call(3, "/test.Echo/echo", b"next"))
    assert raw.message(3) == b"next"


@pytest.mark.parametrize(
    ("name", "message", "status"),
    [
        ("snappy", b"abc", "12"),
        ("gzip", b"no gzip at all", "13"),
        ("gzip", gzip.compress(bytes(LIMIT + 1)), "8"),
        ("deflate", zlib.compress(bytes(LIMIT + 1)), "8"),
    ],
    ids=["unknown", "corrupt", "gzip bomb", "deflate bomb"],
)
def test_fault_036_compression_that_cannot_be_undone(raw: Frames, name: str, message: bytes, status: str) -> None:
    raw.send(raw.head(1, "/test.Echo/echo", *CALL, ("grpc-encoding", name)))
    raw.send(raw.data(1, framed(message, compressed=True), True))
    assert raw.status(1)[0] == status


def test_an_answer_waits_for_the_window_and_then_goes_on(server: RunningServer) -> None:
    with Frames(server, window=1000) as client:
        client.send(client.call(1, "/test.Echo/big", b"3000"), client.call(3, "/test.Echo/echo", b"others go on"))
        assert client.message(3) == b"others go on"
        client.send(client.codec.serialize_window_update(1, 5000))
        assert client.status(1) == ("0", "")


@pytest.mark.slow
def test_fault_082_a_call_under_way_is_answered_when_the_server_drains(tmp_path: Path) -> None:
    with echo_server(tmp_path) as server, grpc.insecure_channel(f"{server.host}:{server.port}") as channel:
        slow = unary(channel, "later").future(b"0.2")
        unary(channel, "echo")(b"", timeout=10)
        server.process.terminate()
        assert slow.result(timeout=10) == b"0.2"
        assert server.process.wait(10) == 0
