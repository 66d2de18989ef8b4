"""HTTP/1.1 on a socket: requests in, responses back in order; deadlines; the end of a connection.

Rules:
- One request of a connection is handled at a time. Those pipelined behind it wait, parsed, in a short queue; when
  that is full, or a large body waits in it, the socket is not read.
- Every phase has a deadline: head, body, answer being written, idle. The deadlines are plain numbers that one sweep a
  second (`Listener`) compares, because a timer per request costs more.
- A client that has closed its half still gets its answers. Whether it is gone altogether only a write can tell: an
  interim `100 Continue`, sent while the request waits, makes the other kernel say so.
- This file knows no model and no route.
"""

from __future__ import annotations

import asyncio
import fcntl
import socket
import termios
import time
from typing import Final, cast

from paceline.server.http_parser import HEAD, MAX_PIPELINED
from paceline.server.http_reader import CONTINUE, READ_BYTES, RequestReader
from paceline.server.http_request import JSON, Answer, Body, HttpRequest, Limits
from paceline.server.status import REASONS, Rejection

__all__ = ["JSON", "READ_BYTES", "Body", "HttpConnection", "HttpRequest", "Limits"]

_LINGER_S: Final = 2.0
_LOOK_S: Final = 0.005
_KEEP_ALIVE: Final = b"connection: keep-alive\r\n"


class HttpConnection(RequestReader):
    """One client connection."""

    __slots__ = ()

    streams = 1
    announces_end = False

    # -- the transport's calls --------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Register the connection and start its first deadline."""
        self._transport = cast(asyncio.Transport, transport)
        self._replace_parser()
        self._home.connections.add(self)
        self.expires = time.monotonic() + self._limits.header_timeout_s

    def connection_lost(self, exc: Exception | None) -> None:
        """Drop everything; tell who waits for the answer."""
        self._home.connections.discard(self)
        self._transport = None
        self._parser = self._known = None  # they and the connection refer to one another
        self._direct = self._body = None
        self._release(self._reserved)
        self._last = True
        self._pending.clear()
        request, self._request = self._request, None
        if request is not None and request.on_disconnect is not None:
            request.on_disconnect()

    def get_buffer(self, sizehint: int) -> memoryview:
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
        request, transport = self._request, self._transport
        if transport is not None and request is not None and request.on_disconnect is not None:
            if not request.answered:
                if not request.is_http_1_0:
                    transport.write(CONTINUE)
            elif request.filler:
                self.write_part(request, request.filler)
            self._look_for_client(_LOOK_S)
        return True

    def _look_for_client(self, wait_s: float) -> None:
        """Stop waiting for the answer if the client's machine has said that nobody is there."""
        transport = self._transport
        if transport is None or (self._request is None and not self._pending):
            return
        if transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            transport.abort()
        else:
            asyncio.get_running_loop().call_later(wait_s, self._look_for_client, min(2 * wait_s, 1.0))

    def pause_writing(self) -> None:
        """The client reads too slowly: it has until the write timeout."""
        self._paused = True
        self.expires = time.monotonic() + self._limits.write_timeout_s

    def resume_writing(self) -> None:
        """The client caught up."""
        self._paused = False
        self.expires = time.monotonic() + self._limits.keep_alive_s
        if self._request is not None and self._request.on_writable is not None:
            self._request.on_writable()
        self._start_next()

    # -- answering --------------------------------------------------------------------------------------------

    def _start_next(self) -> None:
        # One a pass: `write_response` asks for the next, and other connections get their turn in between.
        if self._request is not None or not self._pending or self._paused or self._transport is None:
            return
        item = self._pending.popleft()
        if self._held and len(self._pending) < MAX_PIPELINED:
            self._held = False
            self._transport.resume_reading()
        if isinstance(item, HttpRequest):
            self._request = item
            self._home.handle(item)
        else:
            self._request = request = HttpRequest(self, b"", b"", {}, keep_alive=False)
            self._home.refuse(request, item)

    def write_response(
        self,
        request: HttpRequest,
        status: int,
        body: Answer,
        content_type: bytes,
        extra: bytes,
    ) -> None:
        """Write the answer of the request being handled; see `HttpRequest.respond`."""
        transport = self._open_for(request, status)
        if transport is None:
            return  # the client left
        self._request = None
        if self._reserved:
            self._release(request.reserved)
        keep_alive = self._keeps_open(request)
        size = sum(len(piece) for piece in body) if isinstance(body, list) else len(body)
        head = b"HTTP/1.1 %s\r\ncontent-type: %s\r\ncontent-length: %d\r\nx-request-id: %s\r\n%s%s\r\n" % (
            REASONS[status],
            content_type,
            size,
            request.id,
            extra,
            b"connection: close\r\n" if not keep_alive else b"" if not request.is_http_1_0 else _KEEP_ALIVE,
        )
        if request.method == b"HEAD":
            transport.write(head)
        elif isinstance(body, list):
            transport.writelines([head, *body])
        else:
            transport.write(head + body)
        self._go_on(request, keep_alive)

    def _open_for(self, request: HttpRequest, status: int) -> asyncio.Transport | None:
        """Where the answer of the request being handled goes; None when the client has left."""
        if request.answered:
            raise RuntimeError("a request was answered twice")
        request.answered = True
        request.status = status
        return self._transport if request is self._request else None

    def _keeps_open(self, request: HttpRequest) -> bool:
        return request.keep_alive and not (
            (self._home.draining or self._eof) and not self._pending  # what came whole is answered
        )

    def _go_on(self, request: HttpRequest, keep_alive: bool) -> None:
        """A request has been answered: wait for the next, or close."""
        if not keep_alive:
            self._close_gently(request)
            return
        if not self._paused:
            self.answered_at = time.monotonic()
            self.expires = self.answered_at + self._limits.keep_alive_s
            if self._phase:
                self._restart_clock()
        if self._pending:
            asyncio.get_running_loop().call_soon(self._start_next)

    # -- answering in parts -----------------------------------------------------------------------------------

    def begin_answer(self, request: HttpRequest, content_type: bytes, extra: bytes) -> None:
        """Write the head of an answer of unknown length; HTTP/1.0 knows its end by that of the connection."""
        transport = self._open_for(request, 200)
        if transport is None:
            return
        request.keep_alive = self._keeps_open(request) and not request.is_http_1_0
        head = b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\nx-request-id: %s\r\n%s%s%s\r\n" % (
            content_type,
            request.id,
            extra,
            b"" if request.is_http_1_0 else b"transfer-encoding: chunked\r\n",
            b"" if request.keep_alive else b"connection: close\r\n",
        )
        transport.write(head)

    def write_part(self, request: HttpRequest, data: bytes) -> None:
        """Write a part of the answer."""
        transport = self._transport
        if transport is not None and request is self._request and data:
            transport.write(data if request.is_http_1_0 else b"%x\r\n%b\r\n" % (len(data), data))

    def end_answer(self, request: HttpRequest) -> None:
        """End the answer."""
        transport = self._transport
        if transport is None or request is not self._request:
            return
        self._request = None
        if self._reserved:
            self._release(request.reserved)
        if not request.is_http_1_0:
            transport.write(b"0\r\n\r\n")
        self._go_on(request, self._keeps_open(request))

    def unsent_bytes(self, request: HttpRequest) -> int:
        """What waits for the client."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def is_held(self, request: HttpRequest) -> bool:
        """True when the client does not read."""
        return self._paused

    def _restart_clock(self) -> None:
        """What was begun behind the request just answered has its whole time from now on."""
        if self._phase == HEAD:
            self.expires = time.monotonic() + self._limits.header_timeout_s
        else:
            self.expires = time.monotonic() + self._limits.body_timeout_s
            self._continue_if_asked()

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
            self._close_or_abort(transport)
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
        if transport is None or (self._request is not None and not self._paused):
            return  # an answer being made has a deadline of its own
        half_read = not self._last and (self._url or self._awaiting is not None)
        if half_read and not self._paused:
            self._queue_rejection(Rejection(408, "request_timeout", "the request did not arrive in time"))
            self._start_next()
        else:
            self._close_or_abort(transport)

    def _close_or_abort(self, transport: asyncio.Transport) -> None:
        """Close; at once if the client has had its time to read what was written."""
        if self._paused or transport.is_closing():
            transport.abort()
        else:
            transport.close()
            self.expires = time.monotonic() + self._limits.write_timeout_s

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
        if self.is_idle and self._transport is not None and not self._has_unread():
            self._transport.close()

    def _has_unread(self) -> bool:
        """True when a request may have come that a busy loop has not read yet."""
        assert self._transport is not None
        sock = self._transport.get_extra_info("socket")
        try:
            fcntl.ioctl(sock.fileno(), termios.FIONREAD, count := bytearray(4))
        except (OSError, ValueError):
            return False
        return any(count) and not self._last

    def abort(self) -> None:
        """Close now, whatever is under way."""
        if self._transport is not None:
            self._transport.abort()
