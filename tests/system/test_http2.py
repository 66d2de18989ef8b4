"""HTTP/2 on the port of HTTP/1.1: the routes answer, limits hold, attackers are dropped and nobody else is."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from httpunk._httpunk import H2_PREFACE, H2FrameGoAway, H2FrameRstStream, H2FrameSettings

from paceline.testing import RunningServer, run_server
from support.frames import CALL, Frames, frame, framed
from support.grpc_echo import echo_server
from support.models import half_plus_two
from support.wire import Wire, ask, get, memory_bytes, until

PING, RST, CONTINUATION, SETTINGS, DATA = 6, 3, 9, 4, 0
CALM = 11


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with echo_server(tmp_path_factory.mktemp("echo"), body_bytes=1 << 20, streams=64) as running:
        yield running


@pytest.fixture
def hasty(tmp_path: Path) -> Iterator[RunningServer]:
    """A server with short timeouts."""
    times = {f"{name}_s": 0.3 for name in ("header_timeout", "body_timeout", "write_timeout")}
    with echo_server(tmp_path, keep_alive_s=0.5, **times) as running:
        yield running


def echoes(client: Frames, stream: int) -> bool:
    client.send(client.call(stream, "/test.Echo/echo", b"still there"))
    return client.message(stream) == b"still there" and client.status(stream) == ("0", "")


def plain(client: Frames, stream: int, *headers: tuple[str, str], path: str = "/echo", body: bytes = b"") -> tuple:
    """One plain request: status, headers, body."""
    client.send(client.head(stream, path, *(headers or (("a", "b"),)), end=not body))
    if body:
        client.send(client.data(stream, body, True))
    head = client.until(lambda f: getattr(f, "stream_id", 0) == stream and hasattr(f, "headers"))
    fields = {name: value.decode() for name, value in head.headers.items()}
    data = b"" if head.end_stream else client.until(lambda f: getattr(f, "stream_id", 0) == stream).data
    return head.status, fields, data


# -- who speaks what ----------------------------------------------------------------------------------------------


def test_the_first_bytes_decide_also_one_at_a_time(server: RunningServer) -> None:
    with Frames(server, greet=False) as client:
        for byte in H2_PREFACE + client.codec.serialize_settings():
            client.send(bytes([byte]))
        assert echoes(client, 1)
    with Wire(server) as wire:
        response = wire.send(*(bytes([byte]) for byte in get("/echo"))).response()
    assert response.status == 200


def test_half_a_preface_is_dropped_at_the_header_timeout(hasty: RunningServer) -> None:
    with Wire(hasty) as wire:
        assert wire.send(H2_PREFACE[:7]).rest() == b""


def test_a_wrong_preface_is_a_bad_http_1_request(server: RunningServer) -> None:
    assert ask(server, b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n").status in (400, 505)


@pytest.mark.slow
def test_curl_and_h2_clients_use_every_rest_route(tmp_path: Path) -> None:
    body = '{"instances": [1.0, 2.0, 5.0]}'
    with run_server(half_plus_two(tmp_path / "half.onnx"), ["--warmup-s", "0.05", "--grpc-port", "0"]) as running:
        ports = [running.port, int(running.output.partition("live on 127.0.0.1:")[2].partition(",")[0])]
        assert ports[0] != ports[1]
        for port in ports:
            command = ["curl", "-s", "-i", "--http2-prior-knowledge", "-H", "X-Request-ID: mine", "-d", body]
            command.append(f"http://127.0.0.1:{port}/v1/models/half:predict")
            answer = subprocess.run(command, capture_output=True, check=True).stdout.decode()
            assert answer.startswith("HTTP/2 200")
            assert "x-request-id: mine" in answer
            assert json.loads(answer.split("\r\n\r\n")[1])["predictions"] == [2.5, 3.0, 4.5]
        head = subprocess.run(
            ["curl", "-s", "-I", "--http2-prior-knowledge", running.url + "/livez"],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        assert head.startswith("HTTP/2 200")
        assert "connection" not in head.lower()


def test_a_plain_request_gets_the_answer_of_http_1(server: RunningServer) -> None:
    with Frames(server) as client:
        status, fields, data = plain(client, 1, ("x-request-id", "mine"), body=b"hello")
    assert (status, data) == (200, b"hello")
    assert fields["x-extra"] == "yes"
    assert fields["x-request-id"] == "mine"
    assert fields["content-length"] == "5"
    until(lambda: '"request_id":"mine"' in server.output)


def test_what_is_no_route_or_no_call_is_refused(server: RunningServer) -> None:
    with Frames(server) as client:
        assert plain(client, 1, path="/nowhere")[0] == 404
        assert plain(client, 3, path="/test.Echo/echo")[0] == 415
        client.send(client.head(5, "/test.Echo/echo", method="GET", end=True))
        assert client.until(lambda f: getattr(f, "stream_id", 0) == 5).status == 405
        assert plain(client, 7, path="/" + "x" * 9000)[0] == 414
        assert plain(client, 9, *((f"h{i}", "x") for i in range(150)))[0] == 431
        assert echoes(client, 11)


# -- limits -------------------------------------------------------------------------------------------------------


def test_fault_065_a_message_over_the_limit_is_refused_and_the_channel_lives(server: RunningServer) -> None:
    with Frames(server) as client:
        client.send(client.head(1, "/test.Echo/echo"), client.data(1, b"\0" + (1 << 20 | 1).to_bytes(4, "big")))
        status, message = client.status(1)
        assert status == "8"
        assert "1048577" in message
        assert echoes(client, 3)


def test_a_plain_body_over_the_limit_is_413(server: RunningServer) -> None:
    with Frames(server) as client:
        client.send(client.head(1, "/echo", ("content-length", str(2 << 20))))
        assert client.until(lambda f: getattr(f, "stream_id", 0) == 1).status == 413
        client.send(client.head(3, "/echo", ("a", "b")))
        for _ in range(70):
            client.send(client.data(3, b"x" * 16384))
        head = client.until(lambda f: getattr(f, "stream_id", 0) == 3 and hasattr(f, "headers"))
        assert head.status == 413
        assert echoes(client, 5)


@pytest.mark.parametrize("sizes", [(12_000,) * 3, (10, 40_000, 10), (10, 90_000, 10)])
def test_fault_069_headers_over_the_limit_are_refused_whole(server: RunningServer, sizes: tuple[int, ...]) -> None:
    headers = [(f"x-{place}", "y" * size) for place, size in enumerate(sizes)]
    with Frames(server) as client:
        client.until(lambda f: isinstance(f, H2FrameSettings) and not f.ack)
        client.codec.set_send_max_frame_size(16384)
        client.send(client.head(1, "/echo", *headers, end=True))
        assert client.until(lambda f: getattr(f, "stream_id", 0) == 1).status == 431
        client.until(lambda f: getattr(f, "stream_id", 0) == 1 and f.end_stream)
        client.send(client.head(3, "/test.Echo/echo", *CALL, *headers, end=True))
        assert client.status(3)[0] == "8"
        assert echoes(client, 5)


def test_streams_over_the_limit_are_refused(server: RunningServer) -> None:
    with Frames(server) as client:
        settings = client.until(lambda f: isinstance(f, H2FrameSettings) and not f.ack)
        assert settings.max_concurrent_streams == 64
        for number in range(65):
            client.send(client.call(1 + 2 * number, "/test.Echo/never", b""))
        reset = client.until(lambda f: isinstance(f, H2FrameRstStream))
        assert (reset.stream_id, reset.error_code) == (129, 7)


# -- attacks ------------------------------------------------------------------------------------------------------


def attack(server: RunningServer, *, opening: bytes = b"", flood: bytes, times: int) -> Frames:
    """Send it all, as far as the server takes it; the connection, to see its end."""
    client = Frames(server)
    with contextlib.suppress(OSError):
        client.send(opening)
        for _ in range(times):
            client.send(flood)
    return client


@pytest.mark.parametrize(
    ("flood", "times"),
    [
        (frame(PING, 0, 0, b"12345678") * 100, 200),
        (frame(SETTINGS, 0, 0, b"") * 100, 200),
        (frame(2, 0, 1, b"\0\0\0\0\0") * 100, 200),
        (frame(8, 0, 0, b"\0\0\0\1") * 100, 200),
        (os.urandom(4096), 4),
    ],
    ids=["ping", "settings", "priority", "window", "garbage"],
)
def test_fault_069_floods_end_the_connection_and_harm_no_other(server: RunningServer, flood: bytes, times: int) -> None:
    with Frames(server) as other:
        assert echoes(other, 1)
        before = memory_bytes(server)
        with attack(server, flood=flood, times=times) as attacker:
            assert attacker.is_closed()
        assert echoes(other, 3)
        assert memory_bytes(server) - before < 8 << 20


def test_fault_069_ten_thousand_resets_end_the_connection(server: RunningServer) -> None:
    with Frames(server) as other, Frames(server) as attacker:
        with contextlib.suppress(OSError):
            for number in range(10_000):
                stream = 1 + 2 * number
                reset = attacker.codec.serialize_rst_stream(stream, 8)
                attacker.send(attacker.call(stream, "/test.Echo/never", b"") + reset)
        assert attacker.goaway() == CALM
        assert attacker.is_closed()
        assert echoes(other, 1)


def test_a_client_that_cancels_as_much_as_it_may_open_stays(server: RunningServer) -> None:
    with Frames(server) as client:
        for number in range(100):
            stream = 1 + 2 * number
            client.send(client.call(stream, "/test.Echo/never", b"") + client.codec.serialize_rst_stream(stream, 8))
        assert echoes(client, 1001)


def test_fault_069_endless_continuation_ends_the_connection(server: RunningServer) -> None:
    before = memory_bytes(server)
    opening = frame(1, 0, 1, b"\x82\x86\x84")
    with attack(server, opening=opening, flood=frame(CONTINUATION, 0, 1, b"\0\1a\1b" * 1000), times=2000) as attacker:
        assert attacker.is_closed()
    assert memory_bytes(server) - before < 8 << 20


def test_fault_069_empty_data_without_end_ends_the_connection(server: RunningServer) -> None:
    with Frames(server) as client:
        client.send(client.head(1, "/test.Echo/echo"))
        with contextlib.suppress(OSError):
            for _ in range(200):
                client.send(frame(DATA, 0, 1, b"") * 100)
        assert client.is_closed()


# -- time ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_body_that_does_not_come_is_answered_and_the_connection_lives(hasty: RunningServer) -> None:
    with Frames(hasty) as client:
        client.send(client.head(1, "/test.Echo/echo"), client.data(1, b"\0\0"))
        client.send(client.head(3, "/echo", ("a", "b")), client.data(3, b"part"))
        assert client.status(1)[0] == "4"
        assert client.until(lambda f: getattr(f, "stream_id", 0) == 3).status == 408
        assert echoes(client, 5)


@pytest.mark.slow
def test_half_a_frame_is_dropped_at_the_header_timeout(hasty: RunningServer) -> None:
    with Frames(hasty) as client:
        client.send(b"\0\0")
        assert client.is_closed()


@pytest.mark.slow
def test_a_window_that_never_opens_costs_only_its_stream(hasty: RunningServer) -> None:
    with Frames(hasty, window=10) as client:
        client.send(client.call(1, "/test.Echo/big", b"100000"))
        reset = client.until(lambda f: isinstance(f, H2FrameRstStream))
        assert reset.stream_id == 1
        client.send(client.call(3, "/test.Echo/echo", b"tiny"))
        assert client.status(3) == ("0", "")


@pytest.mark.slow
def test_fault_077_a_client_that_does_not_read_is_dropped_and_memory_is_bounded(hasty: RunningServer) -> None:
    with Frames(hasty, window=(1 << 31) - 1) as client, Frames(hasty) as other:
        client.send(client.codec.serialize_window_update(0, (1 << 31) - 1 - 65535))
        before = memory_bytes(hasty)
        for number in range(100):
            client.send(client.call(1 + 2 * number, "/test.Echo/big", b"4000000"))
        assert echoes(other, 1)
        assert memory_bytes(hasty) - before < 160 << 20
        until(lambda: memory_bytes(hasty) - before < 80 << 20)
        with contextlib.suppress(EOFError, OSError):
            client.until(lambda f: isinstance(f, H2FrameGoAway))


@pytest.mark.slow
def test_an_idle_connection_is_closed_with_a_goaway(hasty: RunningServer) -> None:
    with Frames(hasty) as client:
        assert echoes(client, 1)
        assert client.goaway() == 0
        with pytest.raises(EOFError):
            client.until(lambda f: False)


# -- leaving ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_fault_082_a_drain_answers_what_was_sent_before_the_client_knew(tmp_path: Path) -> None:
    with echo_server(tmp_path) as server, Frames(server) as client:
        client.send(client.call(1, "/test.Echo/later", b"0.5"))
        client.until(lambda f: isinstance(f, H2FrameSettings) and f.ack)
        client.answers_pings = False  # by that the server sees that we know
        server.process.send_signal(signal.SIGTERM)
        first = client.until(lambda f: isinstance(f, H2FrameGoAway))
        assert first.last_stream_id == (1 << 31) - 1
        client.send(client.call(3, "/test.Echo/echo", b"sent before the second"))
        assert client.message(3) == b"sent before the second"
        assert client.message(1) == b"0.5"
        assert client.status(1) == ("0", "")
        client.socket.close()
        assert server.process.wait(5) == 0


@pytest.mark.slow
def test_bodies_under_way_are_counted_and_released(tmp_path: Path) -> None:
    with echo_server(tmp_path, receiving_bytes=1 << 20) as server, Frames(server) as first, Frames(server) as second:
        first.send(first.head(1, "/test.Echo/echo"), first.data(1, framed(b"x" * 900_000)[:70_000][:16000]))
        until(lambda: told(second)["receiving"] > 900_000)
        second.send(second.head(9001, "/test.Echo/echo"), second.data(9001, framed(b"x" * 400_000)[:16000]))
        assert second.status(9001)[0] == "8"
        first.socket.close()
        with Frames(server) as third:
            until(lambda: told(third)["receiving"] == 0)


def told(client: Frames, _next: list[int] = [1000]) -> dict:  # noqa: B006
    """What the server has seen."""
    _next[0] += 2
    stream = _next[0] + 1
    client.send(client.call(stream, "/test.Echo/told", b"", *CALL))
    seen: dict = json.loads(client.message(stream))
    client.status(stream)
    return seen
