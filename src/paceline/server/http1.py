"""HTTP/1.1 on a socket: bytes in, `HttpRequest`s out, responses back in order.

Rules:
- Parsing is llhttp's, in its strict mode; what it lets through and RFC 9112 forbids is refused here.
- One request of a connection is handled at a time. Those pipelined behind it wait, parsed, in a short queue;
  when that is full, the socket is not read.
- Every phase has a limit in bytes and a deadline in time: head, body, answer being written, idle. The deadlines are
  plain numbers that one sweep a second (`Listener`) compares, because a timer per request costs more.
- A body is received into its final buffer: for a large one the socket writes straight into it.
- A client that has closed its half still gets its answer. Whether it is gone altogether only a write can tell: an
  interim `100 Continue`, sent when the request still waits, makes the kernel say so.
- This file knows no model and no route.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol, cast

import httptools

from paceline.server.status import REASONS, Rejection

READ_BYTES: Final = 256 << 10
_DIRECT_MIN_BYTES: Final = 64 << 10
_MAX_PIPELINED: Final = 64
_LINGER_S: Final = 2.0
_NEVER: Final = float("inf")
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_UNIQUE: Final = frozenset(
    (b"host", b"content-length", b"transfer-encoding", b"content-type", b"content-encoding")
)

JSON: Final = b"application/json"


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on what one connection may send, and on how long it may take."""

    body_bytes: int = 64 << 20
    url_bytes: int = 8 << 10
    head_bytes: int = 32 << 10
    headers: int = 100
    header_timeout_s: float = 10.0
    body_timeout_s: float = 30.0
    keep_alive_s: float = 75.0
    write_timeout_s: float = 30.0


class Home(Protocol):
    """What a connection needs of its server."""

    limits: Limits
    draining: bool
    read_buffer: memoryview
    connections: set[HttpConnection]

    def handle(self, request: HttpRequest) -> None:
        """Answer the request, now or later, through `request.respond`."""

    def refuse(self, request: HttpRequest, rejection: Rejection) -> None:
        """Answer a request that breaks the protocol or a limit."""


class HttpRequest:
    """One request, complete with its body, and the way to answer it.

    Attributes:
        path: the target before `?`, still percent-encoded.
        headers: lower-case names; repeated ones are joined with a comma.
        received: monotonic seconds when the last byte had arrived.
        on_disconnect: called when the client leaves before the answer.
    """

    __slots__ = (
        "answered",
        "body",
        "connection",
        "headers",
        "id",
        "keep_alive",
        "method",
        "on_disconnect",
        "path",
        "query",
        "received",
        "status",
    )

    def __init__(
        self,
        connection: HttpConnection,
        method: bytes,
        target: bytes,
        headers: dict[bytes, bytes],
        keep_alive: bool,
    ) -> None:
        self.connection = connection
        self.method = method
        self.path, _, self.query = target.partition(b"?")
        self.headers = headers
        self.keep_alive = keep_alive
        self.body: bytes | bytearray | memoryview = b""
        self.received = 0.0
        self.id = b""
        self.status = 0
        self.answered = False
        self.on_disconnect: Callable[[], None] | None = None

    def respond(
        self,
        status: int,
        body: bytes | list[bytes | memoryview] = b"",
        content_type: bytes = JSON,
        extra: bytes = b"",
    ) -> None:
        """Answer, once.

        Args:
            body: one piece, or several that are written one behind the other without a copy.
            extra: further header lines, each ending in CRLF.
        """
        self.connection.write_response(self, status, body, content_type, extra)


class HttpConnection(asyncio.BufferedProtocol):
    """One client connection."""

    __slots__ = (
        "_awaiting",
        "_body",
        "_body_at",
        "_chunks",
        "_direct",
        "_eof",
        "_head_bytes",
        "_headers",
        "_home",
        "_last",
        "_parser",
        "_paused",
        "_pending",
        "_reading_head",
        "_rejection",
        "_request",
        "_size",
        "_transport",
        "_url",
        "expires",
    )

    def __init__(self, home: Home) -> None:
        self._home = home
        self._transport: asyncio.Transport | None = None
        self._parser: Any = None
        self._pending: deque[HttpRequest | Rejection] = deque()
        self._request: HttpRequest | None = None  # the one being answered
        self._awaiting: HttpRequest | None = None  # the one whose body is being read
        self._last = False  # no further request is accepted on this connection
        self._paused = False
        self._eof = False
        self._rejection: Rejection | None = None
        self.expires = _NEVER
        self._begin_message()

    # -- the transport's calls --------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Register the connection and start its first deadline."""
        self._transport = cast(asyncio.Transport, transport)
        self._parser = httptools.HttpRequestParser(self)
        self._home.connections.add(self)
        self.expires = time.monotonic() + self._home.limits.header_timeout_s

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the reason changes nothing
        """Drop everything; tell who waits for the answer."""
        self._home.connections.discard(self)
        self._transport = None
        self._parser = None  # parser and connection refer to one another
        self._direct = self._body = None
        self._last = True
        self._pending.clear()
        request, self._request = self._request, None
        if request is not None and request.on_disconnect is not None:
            request.on_disconnect()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - the buffer is what it is
        """Where the next bytes go: the shared read buffer, or the rest of a large body."""
        if self._direct is None:
            return self._home.read_buffer
        return self._direct[self._body_at :]

    def buffer_updated(self, nbytes: int) -> None:
        """Parse what came, then start the next request if it is complete."""
        if self._direct is not None:
            self._body_at += nbytes
            if self._body_at == len(self._direct):
                self._direct_done()
            return
        if self._last:
            return  # after `Connection: close` or an error, input is read and ignored
        self._feed(self._home.read_buffer[:nbytes])

    def eof_received(self) -> bool:
        """The client sends no more. It may still wait for its answer."""
        self._eof = self._last = True
        self._awaiting = self._direct = None
        if self._request is None and not self._pending:
            return False
        if (
            self._request is not None
            and self._request.on_disconnect is not None
            and self._transport is not None
        ):
            self._transport.write(_CONTINUE)
        return True

    def pause_writing(self) -> None:
        """The client reads too slowly: it has until the write timeout."""
        self._paused = True
        self.expires = time.monotonic() + self._home.limits.write_timeout_s

    def resume_writing(self) -> None:
        """The client caught up."""
        self._paused = False
        self.expires = _NEVER if self._request is not None else self._idle_until()
        self._start_next()

    # -- the parser's calls -----------------------------------------------------------------------------------

    def on_url(self, url: bytes) -> None:
        """Part of the request target."""
        self._url += url
        if len(self._url) > self._home.limits.url_bytes:
            self._reject(414, "uri_too_long", f"the URL is longer than {self._home.limits.url_bytes} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header, or trailer."""
        if self._awaiting is not None:
            return  # trailers carry nothing that we use
        headers = self._headers
        self._head_bytes += len(name) + len(value) + 4
        name = name.lower()
        if name in headers:
            if name in _UNIQUE:
                self._reject(400, "bad_request", f"duplicate header: {name.decode('latin-1')}")
            value = headers[name] + b", " + value
        headers[name] = value
        limits = self._home.limits
        if self._head_bytes > limits.head_bytes or len(headers) > limits.headers:
            self._reject(
                431, "headers_too_large", f"more than {limits.head_bytes} bytes or {limits.headers} headers"
            )

    def on_headers_complete(self) -> None:
        """The head is there: check what llhttp does not, and prepare for the body."""
        headers, parser = self._headers, self._parser
        version = parser.get_http_version()
        if version not in ("1.1", "1.0"):
            self._reject(505, "http_version", f"HTTP/{version} is not spoken here")
        if version == "1.1" and b"host" not in headers:
            self._reject(400, "bad_request", "missing header: host")
        self._reading_head = False
        self._awaiting = HttpRequest(
            self, parser.get_method(), self._url, headers, parser.should_keep_alive()
        )
        length = headers.get(b"content-length")
        if length is not None:
            self._expect_body(int(length))
        elif b"transfer-encoding" in headers:
            if version == "1.0" or headers[b"transfer-encoding"].lower() != b"chunked":
                self._reject(400, "bad_request", "unsupported transfer-encoding")
            self._size = -1
            self._continue_if_asked()

    def on_body(self, chunk: bytes) -> None:
        """Part of the body."""
        self._body_at += len(chunk)
        if self._body is not None:
            self._body[self._body_at - len(chunk) : self._body_at] = chunk
        elif self._body_at > self._home.limits.body_bytes:
            self._too_large()
        elif self._size >= 0:
            self._chunks.append(chunk)
        elif not self._chunks:
            self._chunks.append(bytearray(chunk))
        else:
            self._chunks[0] += chunk  # a million chunks of a byte must not be a million objects

    def on_message_complete(self) -> None:
        """A whole request is there."""
        request = self._awaiting
        if request is None:
            return
        chunks = self._chunks
        if self._body is not None:
            request.body = self._body
        elif chunks:
            request.body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        self._complete(request)
        self._begin_message()

    # -- reading ----------------------------------------------------------------------------------------------

    def _begin_message(self) -> None:
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._head_bytes = 0
        self._reading_head = True
        self._awaiting = None
        self._size = 0
        self._chunks: list[Any] = []
        self._body: memoryview | None = None
        self._body_at = 0
        self._direct: memoryview | None = None

    def _feed(self, data: memoryview) -> None:
        was_idle = self._reading_head and not self._url
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            # We may ignore an offer to upgrade; the parser stops there, so a new one reads what follows.
            self._parser = httptools.HttpRequestParser(self)
            offset = upgrade.args[0]
            if 0 < offset < len(data):
                self._feed(data[offset:])
        except httptools.HttpParserError as error:
            self._fail_parse(error)
        if self._reading_head:
            if self._url and was_idle:
                self.expires = time.monotonic() + self._home.limits.header_timeout_s
            self._limit_partial_head(len(data))
        elif self._body is not None and self._awaiting is not None:
            self._direct = self._body
            self._parser = None
        self._start_next()

    def _limit_partial_head(self, size_bytes: int) -> None:
        """A header that never ends is not reported by the parser: count bytes."""
        if self._last or (not self._url and not self._headers):
            return
        self._size += size_bytes
        if self._size > self._home.limits.head_bytes + self._home.limits.url_bytes + READ_BYTES:
            self._queue_rejection(Rejection(431, "headers_too_large", "the headers do not end"))

    def _fail_parse(self, error: httptools.HttpParserError) -> None:
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
        self._reject(
            413, "request_too_large", f"the body is larger than {self._home.limits.body_bytes} bytes"
        )

    def _expect_body(self, size: int) -> None:
        limits = self._home.limits
        if size > limits.body_bytes:
            self._too_large()
        self._size = size
        if size > _DIRECT_MIN_BYTES:
            self._body = memoryview(bytearray(size))
        self._continue_if_asked()

    def _continue_if_asked(self) -> None:
        self.expires = time.monotonic() + self._home.limits.body_timeout_s
        if self._headers.get(b"expect", b"").lower() != b"100-continue" or self._transport is None:
            return
        if self._request is None and not self._pending:  # else it would stand before another request's answer
            self._transport.write(_CONTINUE)

    def _direct_done(self) -> None:
        """The last byte of a large body arrived past the parser: a new one reads the next request."""
        request = self._awaiting
        assert request is not None
        assert self._body is not None
        request.body = self._body
        self._parser = httptools.HttpRequestParser(self)
        self._complete(request)
        self._begin_message()
        self._start_next()

    def _complete(self, request: HttpRequest) -> None:
        request.received = time.monotonic()
        if not request.keep_alive:
            self._last = True
        self._pending.append(request)
        if len(self._pending) >= _MAX_PIPELINED and self._transport is not None:
            self._transport.pause_reading()

    # -- answering --------------------------------------------------------------------------------------------

    def _start_next(self) -> None:
        while self._request is None and self._pending and not self._paused and self._transport is not None:
            if len(self._pending) == _MAX_PIPELINED and not self._last:
                self._transport.resume_reading()
            item = self._pending.popleft()
            self.expires = _NEVER
            if isinstance(item, Rejection):
                self._request = request = HttpRequest(self, b"", b"", {}, keep_alive=False)
                self._home.refuse(request, item)
            else:
                self._request = item
                self._home.handle(item)

    def write_response(
        self,
        request: HttpRequest,
        status: int,
        body: bytes | list[bytes | memoryview],
        content_type: bytes,
        extra: bytes,
    ) -> None:
        """Write the answer of the request being handled; see `HttpRequest.respond`."""
        if request.answered:
            raise RuntimeError("a request was answered twice")
        request.answered = True
        request.status = status
        transport = self._transport
        if transport is None or request is not self._request:
            return  # the client left
        self._request = None
        keep_alive = request.keep_alive and not self._home.draining and not self._eof
        pieces = body if isinstance(body, list) else None
        size = len(body) if pieces is None else sum(len(piece) for piece in pieces)
        head = b"HTTP/1.1 %s\r\ncontent-type: %s\r\ncontent-length: %d\r\nx-request-id: %s\r\n%s%s\r\n" % (
            REASONS[status],
            content_type,
            size,
            request.id,
            extra,
            b"" if keep_alive else b"connection: close\r\n",
        )
        if request.method == b"HEAD":
            transport.write(head)
        elif pieces is None:
            transport.write(head + cast(bytes, body))
        else:
            transport.writelines([head, *pieces])
        if keep_alive:
            if not self._paused:
                self.expires = self._idle_until()
            if self._pending:
                self._start_soon()
        else:
            self._close_gently(request)

    def _start_soon(self) -> None:
        asyncio.get_running_loop().call_soon(self._start_next)

    def _idle_until(self) -> float:
        return time.monotonic() + self._home.limits.keep_alive_s

    def _close_gently(self, request: HttpRequest) -> None:
        """Close behind the answer.

        When the client may still be sending, closing at once would reset the connection and could take the answer
        with it; so we only end our half, and read on for a moment.
        """
        transport = self._transport
        assert transport is not None
        self._last = True
        self._pending.clear()
        if request.method and self._awaiting is None:
            transport.close()
            return
        self._direct = None
        self.expires = time.monotonic() + _LINGER_S
        if self._eof or not transport.can_write_eof():
            transport.close()
        else:
            transport.write_eof()

    # -- deadlines and shutdown -------------------------------------------------------------------------------

    def on_expired(self) -> None:
        """The deadline of the current phase has passed."""
        transport = self._transport
        if transport is None:
            return
        half_read = not self._last and (self._url or self._awaiting is not None)
        if half_read and self._request is None and not self._paused:
            self._queue_rejection(Rejection(408, "request_timeout", "the request did not arrive in time"))
            self._start_next()
        elif self._paused:
            transport.abort()
        else:
            transport.close()

    @property
    def peer(self) -> str:
        """Address of the client."""
        name = self._transport.get_extra_info("peername") if self._transport is not None else None
        return f"{name[0]}:{name[1]}" if isinstance(name, tuple) else ""

    @property
    def is_idle(self) -> bool:
        """True when no request has begun."""
        return self._request is None and not self._pending and self._awaiting is None and not self._url

    def close(self) -> None:
        """Close at once if idle, else behind the answer under way."""
        if self.is_idle and self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close now, whatever is under way."""
        if self._transport is not None:
            self._transport.abort()


class _Stop(Exception):
    """Leaves the parser; `_rejection` says why."""
