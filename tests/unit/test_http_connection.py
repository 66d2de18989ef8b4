"""However the bytes are cut on their way, the requests and the answers are the same."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine, Iterable, Sequence
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from paceline.server.http1 import READ_BYTES, HttpConnection, HttpRequest, Limits
from paceline.server.status import Rejection
from support.wire import chunked, chunked_head, get, post

LARGE = 70_000  # received past the parser


class Transport:
    """Keeps what is written."""

    def __init__(self) -> None:
        self.written = b""
        self.is_closed = False

    def write(self, data: bytes) -> None:
        self.written += data

    def writelines(self, pieces: Iterable[bytes]) -> None:
        self.written += b"".join(pieces)

    def close(self) -> None:
        self.is_closed = True

    abort = write_eof = close

    def is_closing(self) -> bool:
        return self.is_closed

    def can_write_eof(self) -> bool:
        return True

    def pause_reading(self) -> None:
        """The test feeds on; what is read must be right all the same."""

    resume_reading = pause_reading


class Home:
    """Answers at once, with all that it was asked."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.draining = False
        self.read_buffer = memoryview(bytearray(READ_BYTES))
        self.connections: set[HttpConnection] = set()
        self.receiving_bytes = 0
        self.asked: list[HttpRequest] = []
        self.answers = True

    def handle(self, request: HttpRequest) -> None:
        self.asked.append(request)
        if self.answers:
            echo(request)

    def refuse(self, request: HttpRequest, rejection: Rejection) -> None:
        request.respond(rejection.status, rejection.code.encode(), extra=rejection.extra)


def echo(request: HttpRequest) -> None:
    headers = b"\n".join(b"%s: %s" % header for header in request.headers.items())
    request.respond(200, b"\n".join([request.method, request.path, request.query, headers, bytes(request.body)]))


class Client:
    """A connection without a socket."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.transport = Transport()
        self.connection = HttpConnection(home)
        self.connection.connection_made(self.transport)  # type: ignore[arg-type]

    async def send(self, *pieces: bytes) -> bytes:
        """Each piece in a read of its own, as far as the buffers go; all that was answered so far."""
        for piece in pieces:
            while piece and not self.transport.is_closed:
                buffer = self.connection.get_buffer(-1)
                count = min(len(piece), len(buffer))
                buffer[:count] = piece[:count]
                piece = piece[count:]
                self.connection.buffer_updated(count)
        for _ in range(2 * len(pieces) + 200):  # one answer a pass
            await asyncio.sleep(0)
        return self.transport.written


def run(test: Callable[[Home], Coroutine[Any, Any, None]], limits: Limits | None = None) -> None:
    asyncio.run(test(Home(limits or Limits())))


def statuses(answers: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d+)", answers)]


OFFER = ("Connection: Upgrade", "Upgrade: h2c")
REQUESTS = [
    get("/a"),
    get("/a"),
    get("/b?c=d", "X: y"),
    get("/up", *OFFER),
    b"\r\n" + get("/a"),
    get("/a") + b"\r\n",
    post(b"[1,2,3]"),
    post(b"[1,2,3]"),
    post(b"[4,5,6]"),
    post(b"\r\n\r\n[1]"),
    post(b"\r\n") + b"\r\n",
    post(get("/inside")),
    post(b"[1]", *OFFER),
    post(b"[1]", "Expect: 100-continue"),
    post(b""),
    chunked_head() + chunked(b"[1,2,3]", 3),
    chunked_head(*OFFER) + chunked(b"[1,2,3]", 3),
    post(b"x" * LARGE),
    b"GET /old HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    get("/last", "Connection: close"),
    b"BAD\r\n\r\n",
]
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def cuts(stream: bytes, requests: Sequence[bytes], where: Iterable[float], at_heads: bool) -> list[bytes]:
    """The stream in pieces; with `at_heads`, cut also around each head, as clients do that send it apart."""
    places = {int(place * len(stream)) for place in where}
    if at_heads:
        start = 0
        for request in requests:
            places |= {start, start + request.find(b"\r\n\r\n", 4) + 4}
            start += len(request)
    edges = [0, *sorted(places - {0}), len(stream)]
    return [stream[a:b] for a, b in pairwise(edges)]


@settings(max_examples=400, deadline=None)
@given(
    requests=st.lists(st.sampled_from(REQUESTS), min_size=1, max_size=12),
    where=st.lists(st.floats(0, 1), max_size=12),
    at_heads=st.booleans(),
)
def test_every_cut_of_a_stream_gives_the_same_answers(requests, where, at_heads):
    stream = b"".join(requests)

    async def test(home: Home) -> None:
        whole = await Client(home).send(stream)
        pieces = await Client(home).send(*cuts(stream, requests, where, at_heads))
        # Whether the body is there already decides if the client has to be told to send it.
        assert pieces.replace(CONTINUE, b"") == whole.replace(CONTINUE, b"")

    run(test)


@settings(max_examples=300, deadline=None)
@given(
    body=st.binary(max_size=12),
    other=st.binary(max_size=12),
    extra=st.sampled_from([b"", b"\r", b"\r\n", b"G", b"POST", get("/x")[:-1], get("/x")]),
    cut=st.integers(0, 200),
)
def test_a_repeated_head_with_anything_behind_it(body, other, extra, cut):
    """The head of the last request comes again; more, less or something else than its body follows."""
    head = post(body)[: len(post(body)) - len(body)]
    stream = head + other + extra + get("/z") * 2

    async def test(home: Home) -> None:
        whole, pieces, known = Client(home), Client(home), Client(home)
        expected = await whole.send(head + body + stream)
        assert await pieces.send(head, body, head, other, extra, get("/z"), get("/z")) == expected
        assert await known.send(head + body, stream[:cut], stream[cut:]) == expected

    run(test)


def test_a_head_that_comes_apart_from_its_body_is_parsed_once():
    request = post(b"[1,2,3]")
    head, body = request[:-7], request[-7:]

    async def test(home: Home) -> None:
        client = Client(home)
        await client.send(*[head, body] * 3, request, chunked_head() + chunked(b"[1]", 1), request, request)
        first, *again, whole, _, behind_chunks, last = home.asked
        assert all(each.headers is first.headers for each in [*again, whole, behind_chunks, last])

    run(test)


def test_a_flood_of_offers_to_upgrade_is_read_in_a_loop():
    count = 2000

    async def test(home: Home) -> None:
        client = Client(home)
        await client.send(get("/up", *OFFER) * count)
        for _ in range(count):
            await asyncio.sleep(0)
        assert statuses(client.transport.written) == [200] * count

    run(test)


def test_the_head_has_its_own_limit_below_that_of_the_url():
    async def test(home: Home) -> None:
        assert statuses(await Client(home).send(get("/", "X: " + "a" * 200_000))) == [431]

    run(test, Limits(url_bytes=1 << 20, head_bytes=1 << 10))


# -- all bodies together --------------------------------------------------------------------------------------


def head_of(size: int) -> bytes:
    return get("/predict", f"Content-Length: {size}", method="POST")


def test_large_bodies_have_a_bound_together():
    async def test(home: Home) -> None:
        first, second, third = Client(home), Client(home), Client(home)
        await first.send(head_of(LARGE) + b"x")
        refused = await second.send(head_of(LARGE) + b"x")
        assert statuses(refused) == [503]
        assert b"retry-after: 1\r\n" in refused
        assert statuses(await third.send(post(b"[1]"))) == [200]
        assert statuses(await first.send(b"x" * (LARGE - 1))) == [200]
        assert home.receiving_bytes == 0
        assert statuses(await third.send(post(b"x" * LARGE))) == [200, 200]

    run(test, Limits(receiving_bytes=LARGE + 1))


def test_a_body_counts_until_its_answer_or_the_end_of_its_connection():
    async def test(home: Home) -> None:
        home.answers = False
        client, lost = Client(home), Client(home)
        await client.send(post(b"x" * LARGE) + chunked_head() + chunked(b"x" * 200_000, 999))
        await lost.send(head_of(LARGE) + b"x")
        assert 2 * LARGE + 100_000 < home.receiving_bytes <= 2 * LARGE + 200_000
        lost.connection.connection_lost(None)
        echo(home.asked[0])
        assert 100_000 < home.receiving_bytes <= 200_000
        await asyncio.sleep(0)
        echo(home.asked[1])
        assert home.receiving_bytes == 0

    run(test)


def test_a_chunked_body_counts_as_it_comes():
    async def test(home: Home) -> None:
        await Client(home).send(head_of(LARGE) + b"x")
        body = chunked(b"x" * 300_000, 1000)
        assert statuses(await Client(home).send(chunked_head() + body[:70_000])) == []
        assert statuses(await Client(home).send(chunked_head() + body)) == [503]

    run(test, Limits(receiving_bytes=LARGE + 150_000))


def test_one_body_alone_is_always_taken():
    async def test(home: Home) -> None:
        assert statuses(await Client(home).send(post(b"x" * LARGE))) == [200]

    run(test, Limits(receiving_bytes=1))
