"""Bytes in, `HttpRequest`s out: the reading half of an HTTP/1.1 connection.

Rules:
- A body is received into its final buffer: for a large one the socket writes straight into it.
- Clients that keep a connection send the same head again and again. One that is the same to the byte, with the whole
  body behind it or in the next read, is not parsed again: what the parser made of it last time holds.
- What comes in pieces has a deadline, and a limit for what the parser keeps to itself.
"""

from __future__ import annotations

import time
from typing import Final

from paceline.server.http_parser import BODY, DIRECT_MIN_BYTES, HEAD, NOTHING, RequestParser, Stop
from paceline.server.http_request import HttpRequest
from paceline.server.status import Rejection

READ_BYTES: Final = 256 << 10
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class RequestReader(RequestParser):
    """What `HttpConnection` is made of as long as a request has not come whole."""

    __slots__ = ()

    def _feed(self, data: memoryview) -> None:
        from_boundary = self._at_boundary
        if (from_boundary and self._is_like_the_last(data)) or (self._owed and self._is_the_body(data)):
            return
        before = len(self._pending)
        self._parse(data)
        if self._awaiting is not None:
            if from_boundary and len(self._pending) == before:
                self._remember_lone_head(data)
            self._body_is_partial()
        elif self._url:
            self._head_is_partial()
        elif from_boundary and self._at_boundary and len(self._pending) == before + 1:
            self._remember_whole(data)
        if self._request is None:
            self._start_next()

    # -- heads that repeat ------------------------------------------------------------------------------------

    def _is_like_the_last(self, data: memoryview) -> bool:
        known, size = self._known, len(self._known_head)
        body_size = len(data) - size
        if known is None or (body_size and body_size != self._known_size) or data[:size] != self._known_head:
            return False
        if body_size != self._known_size:
            self._owe_head(known)
            return True
        self._complete(known.again(bytes(data[size:])))
        if self._request is None:
            self._start_next()
        return True

    def _owe_head(self, known: HttpRequest) -> None:
        """The head came alone. The parser need not see it if the body comes alone, too."""
        self._owed, self._at_boundary = True, False
        self._awaiting, self._size = known.again(b""), self._known_size
        self._body_is_partial()

    def _is_the_body(self, data: memoryview) -> bool:
        """True when `data` is what the known head announced; if not, the parser is given that head now."""
        self._owed = False
        request = self._awaited()
        if len(data) == self._size:
            request.body = bytes(data)
            self._at_boundary = True
            self._begin_message()
            self._complete(request)
            if self._request is None:
                self._start_next()
            return True
        phase = self._phase
        self._begin_message()
        self._parse(memoryview(self._known_head))
        self._phase = phase  # its time goes on
        return False

    def _remember_lone_head(self, data: memoryview) -> None:
        """Remember a head that came without a byte of its body."""
        if 0 < self._size <= DIRECT_MIN_BYTES and self._body_at == 0 and not self._chunks:
            self._known_head, self._known_size, self._known = bytes(data), self._size, self._awaited().again(b"")

    def _remember_whole(self, data: memoryview) -> None:
        """Remember the head of a request that came with its whole body."""
        request = self._pending[-1]
        if not isinstance(request, HttpRequest) or self._last or len(data) > DIRECT_MIN_BYTES:
            return
        raw = bytes(data)
        head = raw[: raw.find(b"\r\n\r\n") + 4]
        if len(head) + len(request.body) == len(raw) and b"transfer-encoding" not in request.headers:
            self._known_head, self._known_size, self._known = head, len(request.body), request.again(b"")

    # -- what comes in pieces ----------------------------------------------------------------------------------

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
            except Stop:
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
        request = self._awaited()
        assert self._body is not None
        request.body = self._body
        self._direct = None
        self._begin_message()
        self._replace_parser()
        self._at_boundary = True
        self._complete(request)
        self._hold_behind_another()
        self._start_next()
