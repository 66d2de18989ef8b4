"""Bytes in, `HttpRequest`s out: the reading half of an HTTP/1.1 connection.

Rules:
- Parsing is llhttp's, in its strict mode; what it lets through and RFC 9112 forbids is refused here.
- Every part of a request has a limit in bytes, also those that the parser keeps to itself until they end.
- A body is received into its final buffer: for a large one the socket writes straight into it.
- Clients that keep a connection send the same head again and again. One that is the same to the byte, with the whole
  body behind it, is not parsed again: what the parser made of it last time holds.
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

READ_BYTES: Final = 256 << 10
MAX_PIPELINED: Final = 64
NEVER: Final = float("inf")
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
# How much of the next request has come.
NOTHING, HEAD, BODY = range(3)
_ALIGNMENT: Final = 16
_MAX_DIGITS: Final = 10
_DIRECT_MIN_BYTES: Final = 64 << 10
_UNIQUE: Final = frozenset((b"host", b"content-length", b"transfer-encoding", b"content-type", b"content-encoding"))


class RequestReader(asyncio.BufferedProtocol):
    """What `HttpConnection` is made of as long as a request has not come whole.

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
        "_last",
        "_known",
        "_known_head",
        "_known_size",
        "_limits",
        "_parser",
        "_paused",
        "_pending",
        "_phase",
        "_rejection",
        "_repeated",
        "_request",
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
        self._known_head = b""  # of the last request that came in one piece
        self._known_size = 0
        self._known: HttpRequest | None = None
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
        if self._head_fed + self._fed > limits.url_bytes or len(headers) + self._repeated > limits.headers:
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
            if size > _DIRECT_MIN_BYTES:
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
        self._begin_message()
        self._complete(request)
        if len(request.body) > _DIRECT_MIN_BYTES:
            self._hold_behind_another()

    # -- reading ----------------------------------------------------------------------------------------------

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

    def _feed(self, data: memoryview) -> None:
        if self._at_boundary and self._is_like_the_last(data):
            return
        self._fed = len(data)
        before = len(self._pending)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._read_on(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            self._fail_parse(error)
        if self._awaiting is not None:
            self._body_is_partial()
        elif self._url:
            self._head_is_partial()
        if self._at_boundary:
            self._at_boundary = len(self._pending) == before + 1 and self._came_whole(data)
        if self._request is None:
            self._start_next()

    def _is_like_the_last(self, data: memoryview) -> bool:
        known, size = self._known, len(self._known_head)
        if known is None or len(data) - size != self._known_size or data[:size] != self._known_head:
            return False
        self._complete(known.again(bytes(data[size:])))
        if self._request is None:
            self._start_next()
        return True

    def _came_whole(self, data: memoryview) -> bool:
        """True when `data` was one request and nothing else; it is remembered."""
        request = self._pending[-1]
        if not isinstance(request, HttpRequest) or self._last or len(data) > _DIRECT_MIN_BYTES:
            return False
        raw = bytes(data)
        head = raw[: raw.find(b"\r\n\r\n") + 4]
        whole = len(head) + len(request.body) == len(raw) and b"transfer-encoding" not in request.headers
        if whole:
            self._known_head, self._known_size, self._known = head, len(request.body), request.again(b"")
        return whole

    def _read_on(self, data: memoryview) -> None:
        """Ignore an offer to upgrade. The parser stops there, before the body: a new one reads what follows."""
        self._parser = httptools.HttpRequestParser(self)
        self._at_boundary = False
        if self._awaiting is not None:
            framing = b"content-length: %d" % self._size if self._size >= 0 else b"transfer-encoding: chunked"
            ending = b"" if self._awaiting.keep_alive else b"\r\nconnection: close"
            self._parser.feed_data(b"POST / HTTP/1.1\r\n%s%s\r\n\r\n" % (framing, ending))
        if data and not self._last:
            self._feed(data)

    def _joined(self, name: bytes, value: bytes) -> bytes:
        """The value of a repeated header. Bounded while it grows, for joining many takes quadratic time."""
        if name in _UNIQUE:
            self._reject(400, "bad_request", f"duplicate header: {name.decode('latin-1')}")
        self._repeated += 1
        if self._repeated > self._limits.headers:
            self._too_many_headers()
        return self._headers[name] + b", " + value

    def _head_is_partial(self) -> None:
        if self._phase == NOTHING:
            self._phase = HEAD
            self.expires = time.monotonic() + self._limits.header_timeout_s
        self._head_fed += self._fed
        # The parser keeps the beginning of a header to itself until the end has come: count the bytes it got.
        # The first read may have held the end of another request too, hence the allowance.
        limits = self._limits
        if len(self._url) > limits.url_bytes or self._head_fed > limits.head_bytes + limits.url_bytes + READ_BYTES:
            try:
                self._check_limits()
                self._reject(431, "headers_too_large", "the headers do not end")
            except _Stop:
                self._fail_parse(None)

    def _body_is_partial(self) -> None:
        if self._phase == BODY:
            if self._size < 0:
                self._limit_framing()
            return
        self._phase = BODY
        self._framed_at, self._head_fed = self._body_at, 0
        self.expires = time.monotonic() + self._limits.body_timeout_s
        self._continue_if_asked()
        if self._body is not None:
            self._direct = self._body
            self._parser = None

    def _limit_framing(self) -> None:
        """Trailers and chunk extensions must end: count the bytes that come while no body does."""
        if self._framed_at != self._body_at:
            self._framed_at, self._head_fed = self._body_at, 0
            return
        self._head_fed += self._fed
        if self._head_fed > self._limits.head_bytes + READ_BYTES:
            self._queue_rejection(Rejection(431, "headers_too_large", "the trailers do not end"))

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
        self._awaiting = None
        self._begin_message()
        self._pending.append(rejection)

    def _reject(self, status: int, code: str, message: str) -> None:
        """Stop the parser from inside one of its calls."""
        self._rejection = Rejection(status, code, message)
        raise _Stop

    def _too_large(self) -> None:
        self._reject(413, "request_too_large", f"the body is larger than {self._limits.body_bytes} bytes")

    def _continue_if_asked(self) -> None:
        request, transport = self._awaiting, self._transport
        if request is None or transport is None or request.is_http_1_0:
            return
        if request.headers.get(b"expect", b"").lower() != b"100-continue":
            return
        if self._request is None and not self._pending:  # else it would stand before another request's answer
            transport.write(CONTINUE)

    def _direct_done(self) -> None:
        """The last byte of a large body arrived past the parser: a new one reads the next request."""
        request = self._awaiting
        assert request is not None
        assert self._body is not None
        request.body = self._body
        self._direct = None
        self._parser = httptools.HttpRequestParser(self)
        self._at_boundary = True
        self._begin_message()
        self._complete(request)
        self._hold_behind_another()
        self._start_next()

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


class _Stop(Exception):
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
