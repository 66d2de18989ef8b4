"""Does a body arrive whole or not at all, within its limit, compressed or not?"""

import gzip
import json
import time
import zlib
from collections.abc import Iterator

import pytest

from paceline.testing import RunningServer, run_server
from support import models
from support.wire import (
    NotHttp,
    Wire,
    ask,
    chunked,
    chunked_head,
    connections,
    get,
    memory_bytes,
    metric,
    post,
    refused,
    until,
)

LIMIT = 4 << 20
ROW = b"[1,2,3]"
ANSWER = b"[1.0,2.0,3.0]"


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[RunningServer]:
    model = models.identity(tmp_path_factory.mktemp("models") / "echo.onnx")
    with run_server(model, ["--max-body-mb", "4", "--max-batch-size", "1000", "--warmup-s", "0"]) as running:
        yield running


@pytest.fixture(autouse=True)
def unharmed(server) -> Iterator[None]:
    yield
    assert ask(server, post(ROW)).body == ANSWER
    assert "Traceback" not in server.output


def rows(server: RunningServer) -> float:
    return metric(server, "paceline_rows_total")


def batch(size_bytes: int) -> bytes:
    """A valid `/batch-predict` body of exactly this size: up to a thousand rows, then blanks."""
    count = min(1000, (size_bytes - 8) // len("[1,2,3],"))
    body = b"[" + b",".join([ROW] * count) + b"]"
    return body + b" " * (size_bytes - len(body))


# -- whole or not at all --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "cut",
    [
        post(b"[1,2,3]   ")[:-3],
        post(b"[1,2,3]" + b" " * 100_000)[:-3],
        chunked_head() + b"7\r\n[1,2,3]\r\n",
        chunked_head() + b"7\r\n[1,2,3]\r\n0\r\n",
        chunked_head() + b"8\r\n[1,2,3]",
    ],
    ids=["length", "large", "no last chunk", "no end", "half a chunk"],
)
def test_fault_020_a_body_shorter_than_announced_never_runs(server, cut):
    before = rows(server)
    with Wire(server) as wire:
        assert wire.send(cut).finish_sending().rest() == b""
    assert rows(server) == before


@pytest.mark.parametrize("request_bytes", [post(ROW), chunked_head() + chunked(ROW, 3)], ids=["length", "chunked"])
def test_fault_030_half_close_after_the_request_is_answered(server, request_bytes):
    with Wire(server) as wire:
        wire.send(request_bytes).finish_sending()
        assert _final(wire).body == ANSWER
        assert wire.rest() == b""


def test_fault_030_half_close_after_pipelined_requests_answers_them_all(server):
    with Wire(server) as wire:
        wire.send(post(ROW) * 20).finish_sending()
        answers = [_final(wire) for _ in range(20)]
        assert [answer.body for answer in answers] == [ANSWER] * 20
        # The last one may have been written before the end of the client's half was seen.
        assert not any(answer.closes for answer in answers[:19])
        assert wire.rest() == b""


def _final(wire: Wire):
    """The next answer; interim ones may come before it."""
    while (response := wire.response()).status < 200:
        pass
    return response


@pytest.mark.parametrize("size", [65_535, 65_536, 65_537, 300_000, LIMIT])
def test_a_body_of_any_size_with_a_request_behind_it(server, size):
    with Wire(server) as wire:
        wire.send(post(batch(size), target="/batch-predict") + post(ROW) + get())
        first = wire.response()
        assert first.status == 200
        assert len(json.loads(first.body)) == 1000
        assert wire.response().body == ANSWER
        assert wire.response().body == b"ok\n"


def test_a_large_body_that_dribbles_in(server):
    whole = post(batch(100_000), target="/batch-predict") + get()
    with Wire(server) as wire:
        for start in range(0, len(whole), 9_999):
            wire.send(whole[start : start + 9_999])
        assert wire.response().status == 200
        assert wire.response().body == b"ok\n"


def test_a_large_body_with_an_offer_to_upgrade(server):
    body = batch(300_000)
    offer = ("Connection: Upgrade", "Upgrade: h2c")
    with Wire(server) as wire:
        wire.send(post(body, *offer, target="/batch-predict"), get())
        assert wire.response().status == 200
        assert wire.response().body == b"ok\n"


def test_an_offer_of_http_2_is_declined_by_silence(server):
    offer = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__")
    with Wire(server) as wire:
        wire.send(get("/livez", *offer) + get() + post(ROW, *offer) + get())
        assert [wire.response().body for _ in range(4)] == [b"ok\n", b"ok\n", ANSWER, b"ok\n"]


@pytest.mark.parametrize("offer", ["h2c", "websocket", "tcp"])
def test_a_body_behind_an_offer_to_upgrade_is_no_request(server, offer):
    """The parser leaves such a body to the next protocol; read as a request it would be smuggled past a proxy."""
    inner = get("/smuggled", "X-Request-Id: smuggled")
    with Wire(server) as wire:
        wire.send(post(inner, "Connection: upgrade", f"Upgrade: {offer}"), get("/livez", "X-Request-Id: next"))
        assert wire.response().status == 400
        assert wire.response().headers["x-request-id"] == "next"
        head = chunked_head("Connection: upgrade", f"Upgrade: {offer}")
        wire.send(head + chunked(inner, 9) + get("/livez", "X-Request-Id: last", "Connection: close"))
        assert wire.response().status == 400
        assert wire.response().headers["x-request-id"] == "last"


# -- limits ---------------------------------------------------------------------------------------------------


def test_fault_024_an_announced_body_over_the_limit_is_refused_unread(server):
    head = get("/predict", f"Content-Length: {LIMIT + 1}", method="POST")
    assert refused(server, head).status == 413


def test_fault_024_absurd_announcements(server):
    for length in (2**40, 2**63 - 1, 2**64 - 1):
        assert refused(server, get("/predict", f"Content-Length: {length}", method="POST")).status == 413


@pytest.mark.slow
def test_fault_024_a_chunked_body_that_crosses_the_limit(server):
    before, peak = rows(server), memory_bytes(server, "VmHWM")
    with Wire(server) as wire:
        wire.send(chunked_head())
        answer = _flood(wire, chunked(b" " * (1 << 20), 65536)[:-5])
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert rows(server) == before
    assert memory_bytes(server, "VmHWM") - peak < 3 * LIMIT


@pytest.mark.slow
def test_fault_024_the_client_that_only_writes_still_gets_its_answer(server):
    """Closing with bytes unread would reset the connection and could take the answer with it."""
    with Wire(server) as wire:
        wire.send(get("/predict", f"Content-Length: {1 << 30}", method="POST"))
        assert _flood(wire, b" " * 65536).startswith(b"HTTP/1.1 413 ")


def _flood(wire: Wire, piece: bytes) -> bytes:
    try:
        for _ in range((64 << 20) // len(piece)):
            wire.send(piece)
    except (ConnectionResetError, BrokenPipeError):
        pass
    return wire.rest()


def test_fault_024_memory_is_taken_as_the_body_comes_not_as_it_is_announced(server):
    before = memory_bytes(server)
    with connections(server, 50) as wires:
        for wire in wires:
            wire.send(post(b" " * LIMIT)[: 200 - LIMIT])
        until(lambda: metric(server, "paceline_connections") > 50)
        assert memory_bytes(server) - before < 50 * LIMIT / 8


@pytest.mark.slow
def test_fault_024_large_bodies_pipelined_behind_a_request_wait_in_the_clients_buffers(server):
    before = memory_bytes(server)
    with Wire(server, receive_buffer=4096, timeout_s=2) as wire:
        # Answers that nobody reads hold the connection up; what follows must not pile up in the server.
        wire.send(get("/metrics") * 500)
        sent = 0
        try:
            for _ in range(40):
                wire.send(post(b" " * LIMIT))
                sent += LIMIT
        except TimeoutError:
            pass
    assert sent < 20 * LIMIT
    assert memory_bytes(server) - before < 8 * LIMIT


@pytest.mark.slow
def test_fault_025_a_million_chunks_of_one_byte(server):
    body = batch(1_000_000)
    before = memory_bytes(server, "VmHWM")
    framed = chunked_head(target="/batch-predict") + chunked(body, 1)
    with Wire(server, timeout_s=60) as wire:
        response = wire.send(framed).response()
        assert response.status == 200
        assert len(json.loads(response.body)) == 1000
    assert memory_bytes(server, "VmHWM") - before < 32 << 20


@pytest.mark.parametrize(
    "framing", [b"0\r\nX: ", b"0\r\n" + b"X: a\r\n" * 9, b"1;a="], ids=["trailer", "many", "extension"]
)
def test_fault_025_chunk_framing_that_never_ends(server, framing):
    before = memory_bytes(server)
    more = b"X: a\r\n" * 10_000 if b"a\r\n" in framing else b"a" * 65536
    with Wire(server) as wire:
        wire.send(chunked_head() + framing)
        assert _flood(wire, more)[9:12] in (b"400", b"431")
    assert memory_bytes(server) - before < 16 << 20


def test_fault_026_expect_continue(server):
    with Wire(server) as wire:
        whole = post(batch(200_000), "Expect: 100-continue", target="/batch-predict")
        wire.send(whole[:-200_000])
        assert wire.response().status == 100
        assert wire.send(whole[-200_000:]).response().status == 200


def test_fault_026_expect_continue_over_the_limit(server):
    head = get("/predict", f"Content-Length: {LIMIT + 1}", "Expect: 100-continue", method="POST")
    assert refused(server, head).status == 413


def test_fault_026_expect_continue_behind_another_request(server):
    whole = post(ROW, "Expect: 100-continue")
    with Wire(server) as wire:
        wire.send(post(ROW) + whole[: -len(ROW)])
        assert wire.response().status == 200
        assert wire.response().status == 100
        assert wire.send(ROW).response().status == 200


def test_fault_026_http_1_0_gets_no_continue(server):
    head = get("/predict", "Expect: 100-continue", "Content-Length: 7", method="POST", version="1.0")
    with Wire(server) as wire:
        wire.send(head)
        wire.send(ROW)
        assert wire.response().body == ANSWER


# -- compression ----------------------------------------------------------------------------------------------


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


PACK = {"gzip": gzip.compress, "x-gzip": gzip.compress, "deflate": zlib.compress, "GZIP": gzip.compress}


@pytest.mark.parametrize("encoding", [*PACK, "identity"])
def test_fault_036_compressed_bodies_work(server, encoding):
    body = PACK.get(encoding, bytes)(ROW)
    assert ask(server, post(body, f"Content-Encoding: {encoding}")).body == ANSWER
    body = PACK.get(encoding, bytes)(batch(200_000))
    assert ask(server, post(body, f"Content-Encoding: {encoding}", target="/batch-predict")).status == 200
    framed = chunked_head(f"Content-Encoding: {encoding}", target="/batch-predict") + chunked(body, 1000)
    assert ask(server, framed).status == 200


def test_fault_036_raw_deflate_and_gzip_members(server):
    assert ask(server, post(raw_deflate(ROW), "Content-Encoding: deflate")).body == ANSWER
    members = gzip.compress(ROW[:3] + b" " * 4000, 0) + gzip.compress(ROW[3:])
    assert ask(server, post(members, "Content-Encoding: gzip")).body == ANSWER


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_fault_036_bombs(server, encoding):
    packed = PACK[encoding](b" " * (LIMIT + 1))
    peak = memory_bytes(server, "VmHWM")
    assert ask(server, post(packed, f"Content-Encoding: {encoding}")).status == 413
    huge = PACK[encoding](b" " * (16 * LIMIT))
    assert ask(server, post(huge, f"Content-Encoding: {encoding}")).status == 413
    assert memory_bytes(server, "VmHWM") - peak < 4 * LIMIT


def test_fault_036_exactly_the_limit_is_no_bomb(server):
    packed = gzip.compress(batch(LIMIT))
    assert ask(server, post(packed, "Content-Encoding: gzip", target="/batch-predict")).status == 200


def test_fault_036_a_body_of_endless_small_members_takes_no_time(server):
    body = gzip.compress(b"") * (LIMIT // len(gzip.compress(b"")))
    started = time.monotonic()
    assert ask(server, post(body, "Content-Encoding: gzip")).status == 400
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@pytest.mark.parametrize(
    "spoil",
    [
        lambda packed: packed[:-1],
        lambda packed: packed[: len(packed) // 2],
        lambda packed: packed + b"behind",
        lambda packed: b"\0" + packed,
        lambda packed: packed[:-3] + bytes([packed[-3] ^ 1]) + packed[-2:],
        lambda packed: b"plain text",
        lambda packed: b"",
    ],
    ids=["cut", "half", "trailing", "leading", "checksum", "plain", "empty"],
)
def test_fault_036_corrupt(server, encoding, spoil):
    body = spoil(PACK[encoding](ROW))
    assert ask(server, post(body, f"Content-Encoding: {encoding}")).status == 400


@pytest.mark.parametrize("encoding", ["zstd", "br", "compress", "gzip, gzip", "gzip, identity", "", "\xff"])
def test_fault_036_unknown_encoding(server, encoding):
    response = ask(server, post(ROW, f"Content-Encoding: {encoding}"))
    assert response.status == 415
    assert response.headers["accept-encoding"] == "gzip, deflate"


@pytest.mark.parametrize(
    ("accept", "used"),
    [
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        ("gzip, deflate, br, zstd", "gzip"),
        ("gzip;q=0.5, deflate;q=0.8", "deflate"),
        ("gzip;q=0", None),
        ("identity", None),
        ("br", None),
        ("gzip;q=nonsense", None),
        ("", None),
    ],
)
def test_fault_036_answers_are_compressed_for_who_asks(server, accept, used):
    request = post(batch(50_000), f"Accept-Encoding: {accept}", target="/batch-predict")
    response = ask(server, request)
    plain = ask(server, post(batch(50_000), target="/batch-predict"))
    unpack = {"gzip": gzip.decompress, "deflate": zlib.decompress, None: bytes}[used]
    assert response.headers.get("content-encoding") == used
    assert unpack(response.body) == plain.body


def test_fault_036_small_answers_are_not_compressed(server):
    assert "content-encoding" not in ask(server, post(ROW, "Accept-Encoding: gzip")).headers


def test_a_truncated_answer_would_be_noticed(server):
    """The client of these tests is strict, or they would prove nothing."""
    with Wire(server) as wire, pytest.raises(NotHttp):
        wire.finish_sending().response()
