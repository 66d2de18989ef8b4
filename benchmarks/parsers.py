"""Which HTTP/1.1 parser? httptools and httpunk: requests per second, and what each lets through.

Both are fed what 128 connections send, round-robin, and must deliver the same: method, target, two headers
looked up, and the whole body. Nothing else runs; the difference is the parser and its crossing into Python.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median

from benchmarks import models
from benchmarks.bench import BenchError, Group, Run, Table, interleaved

CONNECTIONS = 128
_REPEATS = 40

Seen = tuple[str, str, bytes | None, bytes | None, bytes]
"""Method, target, content-type, x-request-timeout-ms, body."""


class Httptools:
    """One connection, as a server would hold it: callbacks fill it, `feed` returns the finished requests."""

    def __init__(self) -> None:
        import httptools

        self._parser = httptools.HttpRequestParser(self)
        self._done: list[Seen] = []
        self.on_message_begin()

    def on_message_begin(self) -> None:
        self._url, self._headers, self._chunks = b"", {}, []

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.lower()] = value

    def on_body(self, chunk: bytes) -> None:
        self._chunks.append(chunk)

    def on_message_complete(self) -> None:
        get, chunks = self._headers.get, self._chunks
        body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        method, target = self._parser.get_method().decode(), self._url.decode()
        self._done.append((method, target, get(b"content-type"), get(b"x-request-timeout-ms"), body))

    def feed(self, data: bytes) -> list[Seen]:
        self._parser.feed_data(data)
        done, self._done = self._done, []
        return done


class Httpunk:
    """The same on httpunk's codec, which is pulled instead of calling back."""

    def __init__(self) -> None:
        from httpunk._httpunk import H1BodyDecoder, H1Codec

        self._codec = H1Codec()
        self._new_decoder = H1BodyDecoder
        self._head = None
        self._chunks: list[bytes] = []

    def feed(self, data: bytes) -> list[Seen]:
        if self._head is None:
            head = self._head = self._codec.receive_request_head(data)
            if head is None:
                return []
            self._decoder = self._new_decoder(head.body_kind, head.content_length or 0)
            self._codec.take_body_into(self._decoder)
        else:
            self._decoder.feed(data)
        while (chunk := self._decoder.decode()) is not None:
            self._chunks.append(chunk)
        if not self._decoder.is_complete:
            return []
        head, get, chunks = self._head, self._head.headers.get, self._chunks
        body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        self._codec.reset()
        self._head, self._chunks = None, []
        return [(head.method, head.target, get("content-type"), get("x-request-timeout-ms"), body)]


PARSERS: dict[str, Callable[[], Httptools | Httpunk]] = {"httptools": Httptools, "httpunk": Httpunk}


def measure(run: Run) -> Group:
    """Speed, then strictness."""
    group = Group("HTTP/1.1 parsers, in-process")
    rates = {}
    for kind, reads in _traffic().items():
        _check_same(kind, reads)
        cases = {f"{name}, {kind}": partial(_rate, make, reads) for name, make in PARSERS.items()}
        rates |= interleaved(cases, run.either(15, 5))
    rows = []
    for kind in _traffic():
        ours, other = (median(rates[f"{name}, {kind}"]) for name in PARSERS)
        rows.append((kind, ours, other, f"{ours / other:.2f}x"))
    columns = ("traffic", "httptools requests/s", "httpunk requests/s", "httptools is")
    group.tables.append(Table(f"parse only, {CONNECTIONS} connections (medians)", columns, rows))
    strict = [(name, *(_verdict(make, data) for make in PARSERS.values()), refused) for name, refused, data in CASES]
    columns = ("input", *PARSERS, "refuse it? (RFC 9112)")
    group.tables.append(Table("what each parser does", columns, strict))
    group.notes = ["taken N: N requests were delivered as complete; refused: an error was raised"]
    group.samples = {"rates": rates, "strictness": strict}
    return group


def _traffic() -> dict[str, Sequence[bytes]]:
    """Kind -> the reads that make one request."""
    body = models.json_row(64)
    post = b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nContent-Type: application/json\r\n"
    sized = post + b"Content-Length: %d\r\n\r\n" % len(body) + body
    browser = post + b"".join(b"X-Header-%d: some value of %d\r\n" % (index, index) for index in range(12))
    browser += b"X-Request-Timeout-Ms: 100\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    chunked = post + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    return {
        "POST, 3 headers, JSON row": [sized],
        "POST, 16 headers, JSON row": [browser],
        "the same in 2 reads": [browser[:300], browser[300:]],
        "POST, chunked": [chunked],
        "GET": [b"GET /readyz HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n"],
    }


def _check_same(kind: str, reads: Sequence[bytes]) -> None:
    seen = []
    for make in PARSERS.values():
        parser = make()
        for _ in range(2):  # the second request of a connection, too
            last = [request for data in reads for request in parser.feed(data)]
        seen.append([tuple(bytes(part) if isinstance(part, bytes) else part for part in each) for each in last])
    if seen[0] != seen[1] or len(seen[0]) != 1:
        raise BenchError(f"the parsers disagree on '{kind}': {seen}")


def _rate(make: Callable[[], Httptools | Httpunk], reads: Sequence[bytes]) -> float:
    connections = [make() for _ in range(CONNECTIONS)]
    started = time.perf_counter()
    for _ in range(_REPEATS):
        for data in reads:
            for connection in connections:
                connection.feed(data)
    return _REPEATS * CONNECTIONS / (time.perf_counter() - started)


def _verdict(make: Callable[[], Httptools | Httpunk], data: bytes) -> str:
    try:
        return f"taken {len(make().feed(data))}"
    except Exception:  # each has exceptions of its own, and any refusal counts
        return "refused"


# -- strictness ----------------------------------------------------------------------------------------------


def _post(headers: bytes, body: bytes = b"hello") -> bytes:
    return b"POST / HTTP/1.1\r\nHost: a\r\n" + headers + b"\r\n" + body


_CHUNKED = b"Transfer-Encoding: chunked\r\n"
_CHUNKS = b"5\r\nhello\r\n0\r\n\r\n"

CASES = [
    ("valid", "no", _post(b"Content-Length: 5\r\n")),
    ("chunk extension", "no", _post(_CHUNKED, b"5;a=b\r\nhello\r\n0\r\n\r\n")),
    ("bare LF after lines", "may", b"POST / HTTP/1.1\nHost: a\nContent-Length: 5\n\nhello"),
    ("bare LF in chunk framing", "must", _post(_CHUNKED, b"5\nhello\n0\n\n")),
    ("bare CR in a value", "may", _post(b"X: a\rb\r\nContent-Length: 5\r\n")),
    ("NUL in a value", "may", _post(b"X: a\0b\r\nContent-Length: 5\r\n")),
    ("obs-fold", "may", _post(b"X: a\r\n b\r\nContent-Length: 5\r\n")),
    ("space before the colon", "must", _post(b"Content-Length : 5\r\n")),
    ("two equal Content-Length", "may", _post(b"Content-Length: 5\r\nContent-Length: 5\r\n")),
    ("two unequal Content-Length", "must", _post(b"Content-Length: 5\r\nContent-Length: 6\r\n", b"hello!")),
    ("Content-Length: 5, 5", "may", _post(b"Content-Length: 5, 5\r\n")),
    ("Content-Length: +5", "must", _post(b"Content-Length: +5\r\n")),
    ("Content-Length: 2^64+5", "must", _post(b"Content-Length: 18446744073709551621\r\n")),
    ("Content-Length and chunked", "may", _post(b"Content-Length: 5\r\n" + _CHUNKED, _CHUNKS)),
    ("chunked twice", "may", _post(_CHUNKED + _CHUNKED, _CHUNKS)),
    ("unknown Transfer-Encoding", "must", _post(b"Transfer-Encoding: gzip\r\n")),
    ("chunk longer than its size", "must", _post(_CHUNKED, b"5\r\nhelloX\r\n0\r\n\r\n")),
    ("HTTP/9.9", "may", b"GET / HTTP/9.9\r\nHost: a\r\n\r\n"),
    ("control character in target", "may", b"GET /a\x01b HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("no Host", "must", b"GET / HTTP/1.1\r\n\r\n"),
    ("two Host", "must", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
]
"""Name, whether a server refuses it (RFC 9112), the bytes. Paceline refuses all that it may: proxies in front of a
server read these inputs in different ways, and that is how requests are smuggled past them."""
