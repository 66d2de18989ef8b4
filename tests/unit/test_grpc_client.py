"""What the load client makes of the bytes of a gRPC server: answers, windows, ends. No socket: frames by hand."""

from __future__ import annotations

import math
from collections.abc import Iterable

import msgspec
import pytest
from httpunk._httpunk import H2_PREFACE, H2Codec, H2FrameData, H2FrameHeaders, H2FrameRstStream, HeaderMap
from hypothesis import given
from hypothesis import strategies as st

from paceline.loadtest.client import grpc
from paceline.loadtest.client.codec import Answer, Malformed
from paceline.loadtest.client.grpc import Grpc
from paceline.loadtest.target import Target
from support.frames import frame, framed

HEAD = (("content-type", "application/grpc"), ("grpc-accept-encoding", "identity,deflate,gzip"))
INTERNAL, UNAVAILABLE, UNKNOWN = 13, 14, 2


def target(*bodies: bytes, headers: tuple[tuple[str, str], ...] = ()) -> Target:
    return Target(
        host="::1", port=8500, wire="grpc", protocol="raw", path="/test.Echo/echo", bodies=bodies, headers=headers
    )


class Server:
    """The other side, by hand: reads what the client sends, makes what it is to receive."""

    def __init__(self, client: Grpc) -> None:
        self.codec = H2Codec("server")
        greeting = client.greeting()
        assert greeting.startswith(H2_PREFACE)
        assert self.codec.feed_preface(greeting)
        self.frames = self.codec.receive(b"")

    def read(self, data: bytes) -> list:
        return self.codec.receive(data)

    def head(self, stream: int, *fields: tuple[str, str], status: int = 200, end: bool = False) -> bytes:
        head: bytes = self.codec.serialize_response_headers(stream, status, HeaderMap([*HEAD, *fields]), end)
        return head

    def data(self, stream: int, data: bytes, end: bool = False) -> bytes:
        made: bytes = self.codec.serialize_data(stream, data, end)
        return made

    def trailers(self, stream: int, *fields: tuple[str, str]) -> bytes:
        made: bytes = self.codec.serialize_trailers(stream, HeaderMap(fields))
        return made

    def answer(self, stream: int, message: bytes = b"yes", *fields: tuple[str, str], status: str = "0") -> bytes:
        whole = self.head(stream) + self.data(stream, framed(message))
        return whole + self.trailers(stream, ("grpc-status", status), *fields)


@pytest.fixture
def client() -> Grpc:
    return Grpc(target(b"hello", b"x" * 100_000))


@pytest.fixture
def server(client: Grpc) -> Server:
    return Server(client)


def sent(frames: Iterable, stream: int) -> bytes:
    """The body of a stream."""
    return b"".join(each.data for each in frames if isinstance(each, H2FrameData) and each.stream_id == stream)


def test_a_call_is_one_head_and_one_message(client: Grpc, server: Server) -> None:
    head, data = server.read(client.request(0))
    assert (head.method, head.path, head.scheme, head.authority) == ("POST", "/test.Echo/echo", "http", "[::1]:8500")
    assert dict(head.headers.items()) == {
        "te": b"trailers",
        "content-type": b"application/grpc",
        "user-agent": b"paceline-bench",
        "grpc-accept-encoding": b"identity",
    }
    assert (data.data, data.end_stream) == (framed(b"hello"), True)


@pytest.mark.parametrize(
    "changes",
    [
        {"headers": (("x y", "a"),)},
        {"headers": (("x", "a\r\nb"),)},
        {"headers": (("Connection", "close"),)},
        {"path": "/a b"},
        {"path": "no slash"},
        {"host": "two words"},
    ],
)
def test_what_cannot_be_sent_is_found_before_it_is(changes: dict) -> None:
    with pytest.raises(ValueError, match="cannot be"):
        Grpc(msgspec.structs.replace(target(b""), **changes))


def test_bodies_may_have_paths_of_their_own() -> None:
    client = Grpc(msgspec.structs.replace(target(b"a", b"b"), paths=("/test.Echo/echo", "/test.Echo/big")))
    server = Server(client)
    paths = [server.read(client.request(index))[0].path for index in (1, 0)]
    assert paths == ["/test.Echo/big", "/test.Echo/echo"]


def test_headers_of_the_target_replace_ours() -> None:
    client = Grpc(target(b"", headers=(("Content-Type", "application/grpc+proto"), ("Authorization", "Bearer x"))))
    head, _ = Server(client).read(client.request(0))
    assert head.headers.get_all("content-type") == [b"application/grpc+proto"]
    assert head.headers["authorization"] == b"Bearer x"


def test_the_server_may_send_a_gigabyte_before_we_say_more(client: Grpc, server: Server) -> None:
    settings, window = server.frames
    assert settings.initial_window_size == 65_535 + window.increment == 1 << 30
    assert settings.enable_push is False


def test_calls_follow_one_another(client: Grpc, server: Server) -> None:
    for stream in (1, 3, 5):
        assert [each.stream_id for each in server.read(client.request(0))] == [stream, stream]
        assert client.receive(server.answer(stream)) == pytest.approx(Answer(True, 0), nan_ok=True)


def test_what_the_server_says_of_its_time(client: Grpc, server: Server) -> None:
    client.request(0)
    told = (("server-timing", "queue;dur=1.500, infer;dur=4.250"), ("x-batch-size", "8"))
    answer = client.receive(server.answer(1, b"yes", *told))
    assert answer == Answer(True, 0, 0.0015, 0.00425, 8)
    client.request(0)
    answer = client.receive(server.answer(3))
    assert answer is not None
    assert math.isnan(answer.queue_s)
    assert math.isnan(answer.infer_s)


@pytest.mark.parametrize(
    ("make", "status"),
    [
        (lambda s: s.answer(1, status="8"), 8),
        (lambda s: s.head(1, ("grpc-status", "12"), end=True), 12),  # trailers-only
        (lambda s: s.head(1, ("grpc-status", "0"), end=True), INTERNAL),  # OK, and no message
        (lambda s: s.head(1) + s.data(1, framed(b"a") * 2) + s.trailers(1, ("grpc-status", "0")), INTERNAL),
        (lambda s: s.head(1) + s.data(1, framed(b"abc")[:-1]) + s.trailers(1, ("grpc-status", "0")), INTERNAL),
        (lambda s: s.head(1) + s.data(1, b"\0\0") + s.trailers(1, ("grpc-status", "0")), INTERNAL),
        (lambda s: s.head(1) + s.data(1, framed(b"abc"), end=True), UNKNOWN),  # no trailers
        (lambda s: s.head(1) + s.trailers(1, ("grpc-status", "many")), UNKNOWN),
        (lambda s: s.head(1, status=503) + s.data(1, b"<html>down</html>", end=True), UNAVAILABLE),
        (lambda s: s.head(1, status=404, end=True), 12),
        (lambda s: s.head(1, status=418, end=True), UNKNOWN),
        (lambda s: s.codec.serialize_rst_stream(1, 0x7), UNAVAILABLE),
        (lambda s: s.codec.serialize_rst_stream(1, 0x8), 1),
        (lambda s: s.codec.serialize_rst_stream(1, 0xB), 8),
        (lambda s: s.head(1) + s.codec.serialize_rst_stream(1, 0x2), INTERNAL),
    ],
)
def test_calls_that_fail(client: Grpc, server: Server, make: object, status: int) -> None:
    client.request(0)
    assert callable(make)
    answer = client.receive(make(server))
    assert answer == pytest.approx(Answer(False, status), nan_ok=True)


def test_messages_may_be_empty_and_compressed(client: Grpc, server: Server) -> None:
    client.request(0)
    assert client.receive(server.answer(1, b"")) == pytest.approx(Answer(True, 0), nan_ok=True)
    client.request(0)
    whole = server.head(3, ("grpc-encoding", "gzip")) + server.data(3, framed(b"squeezed", compressed=True))
    assert client.receive(whole + server.trailers(3, ("grpc-status", "0"))) == pytest.approx(
        Answer(True, 0), nan_ok=True
    )


def test_interim_heads_and_frames_of_other_streams_are_no_answer(client: Grpc, server: Server) -> None:
    client.request(0)
    interim = server.head(1, status=103)
    late = server.codec.serialize_window_update(0, 1) + server.codec.serialize_rst_stream(7, 0x8)
    assert client.receive(interim + late) is None
    assert client.receive(server.answer(1)) == pytest.approx(Answer(True, 0), nan_ok=True)


@pytest.mark.parametrize(
    "make",
    [
        lambda s: b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n",
        lambda s: s.head(1) + s.head(1),
        lambda s: s.trailers(1, ("grpc-status", "0")),
        lambda s: s.head(1) + s.data(1, b"\1" + framed(b"flagged")[1:]),  # compressed, and nobody said how
        lambda s: s.head(1) + s.data(1, b"<html>"),
    ],
)
def test_what_is_no_grpc_is_malformed(client: Grpc, server: Server, make: object) -> None:
    client.request(0)
    assert callable(make)
    with pytest.raises(Malformed):
        client.receive(make(server))


def test_settings_and_pings_are_acknowledged(client: Grpc, server: Server) -> None:
    ping = server.codec.serialize_ping(b"12345678")
    assert client.receive(server.codec.serialize_settings(max_concurrent_streams=100) + ping) is None
    settings, pong = server.read(client.pending())
    assert settings.ack
    assert pong.ack
    assert pong.data == b"12345678"
    assert client.pending() == b""
    assert client.receive(server.codec.serialize_settings_ack() + server.codec.serialize_ping_ack(b"12345678")) is None
    assert client.pending() == b""


def test_a_message_waits_for_the_windows_of_the_server(client: Grpc, server: Server) -> None:
    whole = framed(b"x" * 100_000)
    data = sent(server.read(client.request(1)), 1)
    assert data == whole[:65_535]
    client.receive(server.codec.serialize_window_update(0, 20_000))
    assert client.pending() == b""  # the stream's is closed
    client.receive(server.codec.serialize_window_update(1, 15_000))
    data += sent(server.read(client.pending()), 1)
    assert len(data) == 65_535 + 15_000
    client.receive(server.codec.serialize_settings(initial_window_size=65_535 + 5_000))
    data += sent(server.read(client.pending()), 1)
    assert len(data) == 65_535 + 20_000
    client.receive(server.codec.serialize_window_update(0, 1 << 20) + server.codec.serialize_window_update(1, 1 << 20))
    frames = server.read(client.pending())
    assert data + sent(frames, 1) == whole
    assert frames[-1].end_stream
    assert client.receive(server.answer(1)) == pytest.approx(Answer(True, 0), nan_ok=True)


def test_small_messages_too_stop_at_a_closed_window(client: Grpc, server: Server) -> None:
    client.receive(server.codec.serialize_settings(initial_window_size=4))
    client.pending()
    data = sent(server.read(client.request(0)), 1)
    assert data == framed(b"hello")[:4]
    client.receive(server.codec.serialize_window_update(1, 100))
    assert data + sent(server.read(client.pending()), 1) == framed(b"hello")


def test_the_connection_s_window_is_spent_by_all_calls() -> None:
    client = Grpc(target(b"x" * 16_000))
    server = Server(client)
    for stream in (1, 3, 5, 7):
        assert sent(server.read(client.request(0)), stream) == framed(b"x" * 16_000)
        client.receive(server.answer(stream))
    assert sent(server.read(client.request(0)), 9) == framed(b"x" * 16_000)[: 65_535 - 4 * 16_005]


def test_larger_frames_are_used_where_the_server_takes_them() -> None:
    client = Grpc(target(b"x" * 60_000))
    server = Server(client)
    server.codec.set_max_recv_frame_size(1 << 20)
    client.receive(server.codec.serialize_settings(max_frame_size=1 << 20))
    client.pending()
    assert len(server.read(client.request(0))) == 2


def test_an_early_answer_cancels_what_has_not_been_sent(client: Grpc, server: Server) -> None:
    client.request(1)
    answer = client.receive(server.head(1, ("grpc-status", "8"), end=True))
    assert answer == pytest.approx(Answer(False, 8), nan_ok=True)
    (reset,) = server.read(client.pending())
    assert isinstance(reset, H2FrameRstStream)
    assert (reset.stream_id, reset.error_code) == (1, 0x8)
    client.receive(server.codec.serialize_window_update(0, 1 << 20))
    assert client.pending() == b""


def test_the_server_s_smaller_header_table_is_respected(client: Grpc, server: Server) -> None:
    server.read(client.request(0))
    client.receive(server.answer(1))
    server.codec.set_recv_header_table_size(0)
    client.receive(server.codec.serialize_settings(header_table_size=0))
    server.read(client.pending())
    for stream in (3, 5):
        head, _ = server.read(client.request(0))
        assert head.path == "/test.Echo/echo"
        client.receive(server.answer(stream))


def test_long_headers_go_in_several_frames() -> None:
    client = Grpc(target(b"hello", headers=(("x-long", "y" * 40_000),)))
    server = Server(client)
    head, data = server.read(client.request(0))
    assert isinstance(head, H2FrameHeaders)
    assert head.headers["x-long"] == b"y" * 40_000
    assert data.data == framed(b"hello")


def test_windows_are_topped_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc, "_WINDOW", 100_000)
    client = Grpc(target(b"big, please"))
    server = Server(client)
    client.request(0)
    whole = framed(bytes(200_000))
    pieces = [server.data(1, whole[at : at + 10_000]) for at in range(0, len(whole), 10_000)]
    client.receive(server.head(1))
    granted = {0: 100_000, 1: 100_000}
    for piece in pieces:
        client.receive(piece)
        granted = {stream: left - len(piece) + 9 for stream, left in granted.items()}
        assert min(granted.values()) >= 0, "the server could not have sent that"
        for update in server.read(client.pending()):
            granted[update.stream_id] += update.increment
    assert client.receive(server.trailers(1, ("grpc-status", "0"))) == pytest.approx(Answer(True, 0), nan_ok=True)


def test_a_server_that_leaves_answers_first(client: Grpc, server: Server) -> None:
    client.request(0)
    assert client.receive(server.codec.serialize_go_away(2**31 - 1, 0)) is None
    answer = client.receive(server.answer(1))
    assert answer == pytest.approx(Answer(True, 0, closes=True), nan_ok=True)


def test_a_server_that_leaves_with_its_answer(client: Grpc, server: Server) -> None:
    client.request(0)
    answer = client.receive(server.answer(1) + server.codec.serialize_go_away(1, 0))
    assert answer == pytest.approx(Answer(True, 0, closes=True), nan_ok=True)


def test_a_server_that_leaves_without_taking_the_call(client: Grpc, server: Server) -> None:
    client.request(0)
    answer = client.receive(server.codec.serialize_go_away(0, 0))
    assert answer == pytest.approx(Answer(False, UNAVAILABLE, closes=True), nan_ok=True)


def test_a_server_that_leaves_between_calls(client: Grpc, server: Server) -> None:
    client.request(0)
    client.receive(server.answer(1))
    with pytest.raises(Malformed):
        client.receive(server.codec.serialize_go_away(1, 0))


def test_the_last_stream_closes_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc, "_LAST_STREAM", 3)
    client = Grpc(target(b"hello"))
    server = Server(client)
    closes = []
    for stream in (1, 3):
        client.request(0)
        answer = client.receive(server.answer(stream))
        assert answer is not None
        closes.append(answer.closes)
    assert closes == [False, True]


def test_the_end_of_the_connection_completes_nothing(client: Grpc, server: Server) -> None:
    client.request(0)
    client.receive(server.head(1) + server.data(1, framed(b"abc")))
    assert client.end() is None


ANSWERS = [
    lambda s: s.codec.serialize_settings(initial_window_size=1 << 20) + s.answer(1, b"first", ("x-trace", "a" * 50)),
    lambda s: s.codec.serialize_ping(b"12345678") + s.head(1, ("grpc-status", "5"), ("grpc-message", "no"), end=True),
    lambda s: s.head(1) + s.data(1, framed(b"in pieces")[:3]) + s.data(1, framed(b"in pieces")[3:])
    + s.trailers(1, ("grpc-status", "0"), ("server-timing", "queue;dur=0.100, infer;dur=2.000"), ("x-batch-size", "3")),
    lambda s: s.answer(1, bytes(70_000)[:16_000]),
]  # fmt: skip


@given(st.data(), st.sampled_from(ANSWERS))
def test_an_answer_is_the_same_wherever_it_is_cut(data: st.DataObject, make: object) -> None:
    assert callable(make)

    def fed(cuts: list[int]) -> tuple[str, bytes]:
        client = Grpc(target(b"hello"))
        whole = make(Server(client))
        client.request(0)
        answers = []
        for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True):
            answers.append(client.receive(whole[start:end]))
        assert answers[:-1] == [None] * (len(answers) - 1), "complete before its last byte"
        return repr(answers[-1]), client.pending()

    size = len(make(Server(Grpc(target(b"")))))
    cuts = sorted(data.draw(st.sets(st.integers(1, size - 1), max_size=12)))
    assert fed(cuts) == fed([])


@given(st.data(), st.sampled_from(ANSWERS))
def test_bytes_that_are_wrong_never_raise_anything_else(data: st.DataObject, make: object) -> None:
    client = Grpc(target(b"hello"))
    assert callable(make)
    whole = bytearray(make(Server(client)))
    for place in data.draw(st.lists(st.integers(0, len(whole) - 1), min_size=1, max_size=6)):
        whole[place] = data.draw(st.integers(0, 255))
    client.request(0)
    try:
        answer = client.receive(bytes(whole) + frame(6, 0, 0, b"12345678"))
    except Malformed:
        return
    assert answer is None or isinstance(answer, Answer)
    client.pending()
