"""What may a client of HTTP/2 cost? Real clients never run out of budget; those that do harm themselves only."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from httpunk._httpunk import H2FramePing, H2FrameRstStream, H2FrameWindowUpdate

from paceline.server.protocols.oip_grpc_stream import MOST_UNDER_WAY
from paceline.testing import RunningServer, run_server
from support import grpcs, models
from support.frames import Frames, framed
from support.grpc_echo import echo_server
from support.wire import memory_bytes

pytestmark = pytest.mark.slow
CANCEL, CALM, REFUSED = 8, 11, 7
PING_EVERY_S = [
    ("grpc.keepalive_time_ms", 1000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.use_local_subchannel_pool", 1),  # no connection that an earlier channel has left
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """With the limits that a server has if nobody sets any."""
    with echo_server(tmp_path_factory.mktemp("echo")) as running:
        yield running


@pytest.fixture
def hasty(tmp_path: Path) -> Iterator[RunningServer]:
    """A server that waits half a second for a client's window to open."""
    with echo_server(tmp_path, write_timeout_s=0.5) as running:
        yield running


def one_by_one(channel: grpc.Channel, count: int, size: int) -> None:
    echo = channel.unary_unary("/test.Echo/echo")
    for _ in range(count):
        assert len(echo(bytes(size), timeout=10)) == size


def in_a_stream(channel: grpc.Channel, count: int, size: int) -> None:
    answers = channel.stream_stream("/test.Echo/stream")(iter([bytes(size)] * count), timeout=60)
    assert sum(len(answer) for answer in answers) == count * size


def large_answers(channel: grpc.Channel, count: int, size: int) -> None:
    big = channel.unary_unary("/test.Echo/big")
    for _ in range(count):
        assert len(big(b"%d" % size, timeout=10)) == size


@pytest.mark.parametrize(
    ("work", "count", "size"),
    [(one_by_one, 12_000, 10), (in_a_stream, 12_000, 10), (one_by_one, 500, 200_000), (large_answers, 1000, 100_000)],
)
def test_a_real_client_never_runs_out_of_budget(
    server: RunningServer, work: Callable[[grpc.Channel, int, int], None], count: int, size: int
) -> None:
    """Every call and message makes it measure the line with PING and open its window: over 20 000 frames here."""
    known = clients(server)
    with grpc.insecure_channel(f"{server.host}:{server.port}", options=PING_EVERY_S) as channel:
        work(channel, count, size)
    assert len(clients(server) - known) == 1, "it had to connect again"


def clients(server: RunningServer) -> set[str]:
    """Addresses from which calls came, one for each connection."""
    return {json.loads(line)["client"] for line in server.output.splitlines() if line.startswith("{")}


def test_fault_069_ten_thousand_resets_slow_down_nobody_else(server: RunningServer) -> None:
    slowest, calls, stop = 0.0, 0, threading.Event()

    def others() -> None:
        nonlocal slowest, calls
        with grpc.insecure_channel(f"{server.host}:{server.port}") as channel:
            echo = channel.unary_unary("/test.Echo/echo")
            while not stop.is_set():
                began = time.monotonic()
                assert echo(b"x", timeout=10) == b"x"
                slowest, calls = max(slowest, time.monotonic() - began), calls + 1

    reset_ten_thousand(server)
    before = memory_bytes(server)
    thread = threading.Thread(target=others)
    thread.start()
    for _ in range(3):
        assert reset_ten_thousand(server) == CALM
    stop.set()
    thread.join()
    assert calls > 10
    assert slowest < 5
    assert memory_bytes(server) - before < 4 << 20


def reset_ten_thousand(server: RunningServer) -> int:
    """Open and reset; the error with which the server leaves."""
    with Frames(server) as attacker:
        with contextlib.suppress(OSError):
            for number in range(10_000):
                stream = 1 + 2 * number
                reset = attacker.codec.serialize_rst_stream(stream, CANCEL)
                attacker.send(attacker.call(stream, "/test.Echo/never", b"") + reset)
        return attacker.goaway()


def test_more_calls_are_put_off_while_answers_lie_unread(server: RunningServer) -> None:
    with Frames(server, window=10) as client:
        opened = [1 + 2 * number for number in range(30)]
        for stream in opened:
            client.send(client.call(stream, "/test.Echo/big", b"4000000"))
        refused = client.until(lambda f: isinstance(f, H2FrameRstStream))
        assert refused.error_code == REFUSED
        assert 16 * 4_000_000 <= refused.stream_id // 2 * 4_000_000 < 18 * 4_000_000
        for stream in opened:
            client.send(client.codec.serialize_rst_stream(stream, CANCEL))
        client.send(client.call(101, "/test.Echo/echo", b"read"))
        assert client.message(101) == b"read"


def test_a_window_that_opens_by_crumbs_is_not_waited_for(hasty: RunningServer) -> None:
    with Frames(hasty, window=10) as client:
        client.send(client.call(1, "/test.Echo/big", b"100000"))
        began = time.monotonic()
        client.socket.settimeout(0.05)
        while not any(isinstance(f, H2FrameRstStream) for f in client.seen):
            assert time.monotonic() < began + 20
            client.send(client.codec.serialize_window_update(1, 1))
            with contextlib.suppress(TimeoutError):
                client.until(lambda f: False)
        assert time.monotonic() - began < 8


def test_a_window_that_opens_slowly_is_waited_for(hasty: RunningServer) -> None:
    with Frames(hasty, window=10) as client:
        client.send(client.codec.serialize_window_update(0, 1 << 20))
        client.send(client.call(1, "/test.Echo/big", b"100000"))
        for _ in range(5):
            client.until(lambda f: hasattr(f, "data") and getattr(f, "stream_id", 0) == 1)
            time.sleep(0.2)  # a second in all, twice as long as the server waits for nothing
            client.send(client.codec.serialize_window_update(1, 20_000))
        assert client.status(1) == ("0", "")


def test_a_stream_with_enough_under_way_gets_no_more_room_until_it_is_answered(tmp_path: Path) -> None:
    (tmp_path / "examples.json").write_text("3000")
    flags = ["--instances", "1", "--threads", "1", "--max-batch-size", "1", "--warmup-s", "0"]
    flags += ["--examples", str(tmp_path / "examples.json")]
    request = framed(asked(1, padding=4000))
    body = memoryview(request * (2 * MOST_UNDER_WAY))
    with (
        run_server(models.patient(tmp_path / "patient.onnx"), flags) as server,
        Frames(server, window=(1 << 31) - 1) as client,
    ):
        client.send(client.codec.serialize_window_update(0, 1 << 30))
        first = framed(asked(200_000))
        client.send(client.head(1, f"/{grpcs.SERVICE}/ModelStreamInfer"), client.data(1, first))
        room = (1 << 20) - len(first)
        while body and room:
            piece = bytes(body[: min(16_000, room)])
            client.send(client.data(1, piece))
            body, room = body[len(piece) :], room - len(piece) + given(client)
        assert body, "the server took all of it"
        client.until(lambda f: isinstance(f, H2FrameWindowUpdate) and f.stream_id == 1)


def given(client: Frames) -> int:
    """How much more room the stream was given by the time the server has read all that we sent."""
    client.send(client.codec.serialize_ping(b"12345678"))
    seen = []
    while True:
        frame = client.until(lambda f: True)
        seen.append(frame)
        if isinstance(frame, H2FramePing) and frame.ack:
            break
    return sum(f.increment for f in seen if isinstance(f, H2FrameWindowUpdate) and f.stream_id == 1)


def asked(units: int, padding: int = 0) -> bytes:
    n = units.to_bytes(8, "little")
    tensor = {"name": "n", "shape": [1], "datatype": "INT64"}
    encoded: bytes = grpcs.REQUEST(
        model_name="patient", id="x" * padding, inputs=[tensor], raw_input_contents=[n]
    ).SerializeToString()
    return encoded
