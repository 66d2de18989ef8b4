"""llhttp's calls to `HttpRequest`s: what a request is, what it may hold, and what it may not.

Rules:
- Parsing is llhttp's, in its strict mode; what it lets through and RFC 9112 forbids is refused here.
- Every part of a request has a limit in bytes, also those that the parser keeps to itself until they end.
- Large bodies of all connections together have a bound. They count from their announcement to the answer.
- An offer to upgrade is ignored. The parser would leave the body to the next protocol, where a proxy sees a body and
  we a request: another parser reads on.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Any, Final

import httptools
import numpy as np

from paceline.server.http_request import Answer, Home, HttpRequest
from paceline.server.status import Rejection

MAX_PIPELINED: Final = 64
NEVER: Final = float("inf")
# How much of the next request has come.
NOTHING, HEAD, BODY = range(3)
_ALIGNMENT: Final = 16
_MAX_DIGITS: Final = 10
DIRECT_MIN_BYTES: Final = 64 << 10
_RETRY: Final = b"retry-after: 1\r\n"
_UNIQUE: Final = frozenset((b"host", b"content-length", b"transfer-encoding", b"content-type", b"content-encoding"))


class RequestParser(asyncio.BufferedProtocol):
    """What the parser of a connection calls.

    Attributes:
        answered_at: when the last answer was written; 0.0 before the first.
        expires: when the current phase has taken too long. Both in monotonic seconds.
    """

    __slots__ = (
        "_at_boundary",
        "_awaiting",
        "_body",
        "_body_at",
        "_chunks",
        "_direct",
        "_eof",
        "_fed",
        "_framed_at",
        "_head_fed",
        "_headers",
        "_held",
        "_home",
        "_known",
        "_known_head",
        "_known_size",
        "_last",
        "_limits",
        "_owed",
        "_parser",
        "_paused",
        "_pending",
        "_phase",
        "_rejection",
        "_repeated",
        "_request",
        "_reserved",
        "_size",
        "_transport",
        "_url",
        "answered_at",
        "expires",
    )

    def __init__(self, home: Home) -> None:
        self._home = home
        self._limits = home.limits
        self._transport: asyncio.Transport | None = None
        self._parser: Any = None
        self._pending: deque[HttpRequest | Rejection] = deque()
        self._request: HttpRequest | None = None  # the one being answered
        self._awaiting: HttpRequest | None = None  # the one whose body is being read
        self._last = False  # no further request is accepted on this connection
        self._paused = False
        self._eof = False
        self._rejection: Rejection | None = None
        self.answered_at = 0.0
        self.expires = NEVER
        self._direct: memoryview | None = None  # a large body that the socket writes into
        self._body: memoryview | None = None
        self._fed = 0
        self._framed_at = 0
        self._at_boundary = True  # the parser has seen nothing of the next request
        self._known_head = b""  # the last one that came by itself, or with its whole body and nothing else
        self._known_size = 0
        self._known: HttpRequest | None = None
        self._owed = False  # the known head has come again, and the parser has not been given it
        self._reserved = 0  # bytes of large bodies, from their announcement to the answer
        self._held = False  # the socket is not read: enough waits
        # Of the request that is being read; `_begin_message` starts them anew.
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._size = 0  # announced length; -1 for a chunked body
        self._chunks: list[Any] = []
        self._body_at = 0
        self._phase = NOTHING
        self._head_fed = 0
        self._repeated = 0

    # -- what `HttpConnection` adds ---------------------------------------------------------------------------

    @property
    def peer(self) -> str:
        """Address of the client."""
        raise NotImplementedError

    def write_response(
        self, request: HttpRequest, status: int, body: Answer, content_type: bytes, extra: bytes
    ) -> None:
        """Write the answer of the request being handled."""
        raise NotImplementedError

    def _start_next(self) -> None:
        """Answer the next request, if none is being answered."""
        raise NotImplementedError

    # -- the parser's calls -----------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """The first byte of a request; blank lines before it do not count."""
        self._at_boundary = False

    def on_url(self, url: bytes) -> None:
        """Part of the request target."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header, or trailer."""
        if self._awaiting is not None:
            return  # trailers carry nothing that we use
        name = name.lower()
        headers = self._headers
        headers[name] = value if name not in headers else self._joined(name, value)

    def on_headers_complete(self) -> None:
        """The head is there: check what llhttp does not, and prepare for the body."""
        if self._awaiting is not None:
            return  # the head that `_read_on` made
        headers, parser, limits = self._headers, self._parser, self._limits
        # What has come is nearly always too little to exceed a limit.
        fed = self._head_fed + self._fed
        if fed > limits.url_bytes or fed > limits.head_bytes or len(headers) + self._repeated > limits.headers:
            self._check_limits()
        version = parser.get_http_version()
        if version != "1.1" and version != "1.0":
            self._reject(505, "http_version", f"HTTP/{version} is not spoken here")
        if b"host" not in headers and version == "1.1":
            self._reject(400, "bad_request", "missing header: host")
        self._awaiting = HttpRequest(self, parser.get_method(), self._url, headers, parser.should_keep_alive())
        if version == "1.0":
            self._awaiting.is_http_1_0 = True
        length = headers.get(b"content-length")
        if length is not None:
            self._size = size = int(length)
            if size > limits.body_bytes:
                self._too_large()
            if size > DIRECT_MIN_BYTES:
                self._reserve(size)
                self._body = _body_buffer(size, headers.get(b"inference-header-content-length", b""))
        elif b"transfer-encoding" in headers:
            if version == "1.0" or headers[b"transfer-encoding"].lower() != b"chunked":
                self._reject(400, "bad_request", "unsupported transfer-encoding")
            self._size = -1

    def on_body(self, chunk: bytes) -> None:
        """Part of the body."""
        if self._body is not None:
            start = self._body_at
            self._body_at += len(chunk)
            self._body[start : self._body_at] = chunk
        elif self._size >= 0:
            self._chunks.append(chunk)
        else:
            self._body_at += len(chunk)
            if self._body_at > self._limits.body_bytes:
                self._too_large()
            if self._body_at - self._awaited().reserved > DIRECT_MIN_BYTES:
                self._reserve(self._body_at - self._awaited().reserved)
            if self._chunks:
                self._chunks[0] += chunk  # a million chunks of a byte must not be a million objects
            else:
                self._chunks.append(bytearray(chunk))

    def on_message_complete(self) -> None:
        """A whole request is there."""
        request = self._awaiting
        if request is None:
            return
        chunks = self._chunks
        if self._size and not chunks and self._body_at == 0 and self._parser.should_upgrade():
            return  # the parser leaves the body to the other protocol: `_read_on`
        if self._body is not None:
            request.body = self._body
        elif chunks:
            request.body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        self._at_boundary = True
        self._begin_message()
        self._complete(request)
        if len(request.body) > DIRECT_MIN_BYTES:
            self._hold_behind_another()

    # -- feeding it --------------------------------------------------------------------------------------------

    def _begin_message(self) -> None:
        self._url = b""
        self._headers = {}
        self._awaiting = None
        self._size = 0
        self._chunks = []
        self._body = None
        self._body_at = 0
        self._phase = NOTHING
        self._head_fed = 0
        self._repeated = 0

    def _parse(self, data: memoryview) -> None:
        """Give the parser bytes. It stops at an offer to upgrade, which we ignore: a new one reads what follows."""
        while data and not self._last:
            self._fed = len(data)
            try:
                self._parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as upgrade:
                data = data[upgrade.args[0] :]
                self._replace_parser()
            except httptools.HttpParserError as error:
                self._fail_parse(error)
                return

    def _replace_parser(self) -> None:
        """A new parser, which expects the body of the request that is being read."""
        self._parser = httptools.HttpRequestParser(self)
        if self._awaiting is not None:
            framing = b"content-length: %d" % self._size if self._size >= 0 else b"transfer-encoding: chunked"
            ending = b"" if self._awaiting.keep_alive else b"\r\nconnection: close"
            self._parser.feed_data(b"POST / HTTP/1.1\r\n%s%s\r\n\r\n" % (framing, ending))

    def _complete(self, request: HttpRequest) -> None:
        request.received = time.monotonic()
        if not request.keep_alive:
            self._last = True
        self._pending.append(request)
        if len(self._pending) >= MAX_PIPELINED:
            self._hold()

    def _hold_behind_another(self) -> None:
        """One large body is enough to wait behind a request being answered."""
        if self._request is not None or len(self._pending) > 1:
            self._hold()

    def _hold(self) -> None:
        if self._transport is not None:
            self._held = True
            self._transport.pause_reading()

    def _awaited(self) -> HttpRequest:
        assert self._awaiting is not None
        return self._awaiting

    # -- limits -----------------------------------------------------------------------------------------------

    def _reserve(self, size: int) -> None:
        """Count a large body, or more of it, among those of all connections. One alone is always taken."""
        home = self._home
        if home.receiving_bytes and home.receiving_bytes + size > self._limits.receiving_bytes:
            shown = f"more than {self._limits.receiving_bytes} bytes of large bodies at a time"
            self._reject(503, "receiving_full", shown, _RETRY)
        home.receiving_bytes += size
        self._reserved += size
        self._awaited().reserved += size

    def _release(self, size: int) -> None:
        self._reserved -= size
        self._home.receiving_bytes -= size

    def _joined(self, name: bytes, value: bytes) -> bytes:
        """The value of a repeated header. Bounded while it grows, for joining many takes quadratic time."""
        if name in _UNIQUE:
            self._reject(400, "bad_request", f"duplicate header: {name.decode('latin-1')}")
        self._repeated += 1
        if self._repeated > self._limits.headers:
            self._too_many_headers()
        return self._headers[name] + b", " + value

    def _check_limits(self) -> None:
        """Limits of the head. The sum is taken only when what was read could exceed it."""
        limits, headers = self._limits, self._headers
        if len(self._url) > limits.url_bytes:
            self._reject(414, "uri_too_long", f"the URL is longer than {limits.url_bytes} bytes")
        if len(headers) + self._repeated > limits.headers:
            self._too_many_headers()
        if self._head_fed + self._fed > limits.head_bytes:
            size = sum(len(name) + len(value) + 4 for name, value in headers.items())
            if size > limits.head_bytes:
                self._too_many_headers()

    def _too_many_headers(self) -> None:
        limits = self._limits
        shown = f"more than {limits.headers} headers, or {limits.head_bytes} bytes of them"
        self._reject(431, "headers_too_large", shown)

    def _fail_parse(self, error: httptools.HttpParserError | None) -> None:
        rejection, self._rejection = self._rejection, None
        if rejection is None:
            if self._last:
                return  # data behind `Connection: close`
            rejection = Rejection(400, "bad_request", f"malformed HTTP: {error}")
        self._queue_rejection(rejection)

    def _queue_rejection(self, rejection: Rejection) -> None:
        self._last = True
        if self._awaiting is not None:
            self._release(self._awaiting.reserved)
        self._begin_message()
        self._pending.append(rejection)

    def _reject(self, status: int, code: str, message: str, extra: bytes = b"") -> None:
        """Stop the parser from inside one of its calls."""
        self._rejection = Rejection(status, code, message, extra)
        raise Stop

    def _too_large(self) -> None:
        self._reject(413, "request_too_large", f"the body is larger than {self._limits.body_bytes} bytes")


class Stop(Exception):
    """Leaves the parser; `_rejection` says why."""


def _body_buffer(size: int, tensors_at: bytes) -> memoryview:
    """Memory for a body, not zeroed: what a client only announces takes no memory until it comes.

    Args:
        tensors_at: where binary tensors begin, as the client says. That byte is aligned, because a tensor that is not
            must be copied, and its memory faulted in, before anything can compute with it.
    """
    offset = int(tensors_at) if tensors_at.isdigit() and len(tensors_at) < _MAX_DIGITS else 0
    padding = -offset % _ALIGNMENT
    return np.empty(size + padding, np.uint8).data[padding:]
