"""A stream of an HTTP/2 connection, as requests and calls have it in common: what comes, and how an answer goes out.

Rules:
- A stream is the `connection` of its request: what is written to the request goes to its stream.
- Body bytes are given back to the client's window as they come. What bounds them is the limit of a body and the sum
  over all connections: every body that did not come in one piece is counted there, as long as its stream lives.
- What does not fit into the client's window waits here until the client opens it. It has the write timeout for that;
  other streams are not held up.
- A stream ends once, by `_end` or by `gone`, and lets go of its request, which refers back to it.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from httpunk._httpunk import H2FrameHeaders, H2SendVerdict, HeaderMap

from paceline.server.http2_budget import CONTROL_PER_FRAME_SENT
from paceline.server.http_request import Answer, HttpRequest, Limits
from paceline.server.status import Rejection

if TYPE_CHECKING:
    from paceline.server.http2 import Http2Connection

# A client that does not read its answers gets no more room to send on that stream.
_MOST_UNREAD_BYTES: Final = 1 << 20
# Less than this within the write timeout counts as nothing.
_LEAST_PROGRESS_BYTES: Final = 16 << 10
_ALL: Final = -1


class HeadersTooLarge(Exception):
    """More headers than are allowed, in number or in bytes."""


class Stream:
    """What requests and calls have in common.

    Attributes:
        is_open: neither answered nor given up.
        request: as long as it is open.
        answered_at: as of the connection if it was idle; where requests overlap, it says nothing about this one.
    """

    __slots__ = (
        "_connection",
        "_held_back",
        "_moved",
        "_owed",
        "_place",
        "_reserved",
        "_trailers",
        "_unsent",
        "_waiting",
        "answered_at",
        "id",
        "is_open",
        "request",
    )

    def __init__(self, connection: Http2Connection, stream_id: int) -> None:
        self._connection = connection
        self.id = stream_id
        self.is_open = True
        self.request: HttpRequest | None = None
        self.answered_at = 0.0 if connection.streams else connection.answered_at
        self._reserved = 0
        self._owed = 0
        self._held_back = False
        self._waiting: deque[tuple[bytes, bool]] | None = None
        self._place = 0  # in the first piece that waits
        self._unsent = 0
        self._moved = 0
        self._trailers: HeaderMap | None = None

    @property
    def peer(self) -> str:
        """Address of the client."""
        return self._connection.peer

    # -- what the connection calls ----------------------------------------------------------------------------

    def begin(self, frame: H2FrameHeaders, ended: bool) -> None:
        """The headers are there."""
        raise NotImplementedError

    def receive(self, data: bytes, ended: bool) -> None:
        """Part of the body is there."""
        raise NotImplementedError

    def expire(self) -> None:
        """The body did not come in time."""
        raise NotImplementedError

    def drain(self) -> None:
        """The server drains, and the client knows: end what would not end by itself."""

    def take(self, size: int) -> None:
        """Give received bytes back to the client's window, unless it does not read what it is sent."""
        if self._held_back or self._unsent > _MOST_UNREAD_BYTES:
            self._owed += size
        else:
            self._connection.release(self.id, size)

    def hold_back(self, held: bool) -> None:
        """Give the client no more room to send, or again."""
        self._held_back = held
        if not held:
            self._pay_owed()

    def gone(self) -> None:
        """The client left, or gave this request up."""
        request = self.request
        self._close()
        if request is not None and request.on_disconnect is not None:
            request.on_disconnect()

    # -- receiving --------------------------------------------------------------------------------------------

    def _refuse(self, rejection: Rejection) -> None:
        assert self.request is not None
        self._connection.home.refuse(self.request, rejection)

    def _reserve(self, size: int) -> bool:
        """Count bytes of a body that comes in pieces among those of all connections. One alone is always taken."""
        home = self._connection.home
        more = size - self._reserved
        others = home.receiving_bytes - self._reserved
        if more > 0 and others and home.receiving_bytes + more > home.limits.receiving_bytes:
            return False
        home.receiving_bytes += more
        self._reserved = size
        return True

    # -- sending ----------------------------------------------------------------------------------------------

    def write_response(
        self, request: HttpRequest, status: int, body: Answer, content_type: bytes, extra: bytes
    ) -> None:
        """Write the answer; see `HttpRequest.respond`."""
        if request.answered:
            raise RuntimeError("a request was answered twice")
        request.answered = True
        request.status = status
        if not self.is_open:
            return  # the client left
        data = b"".join(body) if isinstance(body, list) else body
        fields = [
            (b"content-type", content_type),
            (b"content-length", b"%d" % len(data)),
            (b"x-request-id", request.id),
            *fields_of(extra),
        ]
        bare = not data or request.method == b"HEAD"
        self._send_head(status, HeaderMap(fields), bare)
        if not bare:
            self._send(data, True)

    def _send_head(self, status: int, fields: HeaderMap, ended: bool) -> None:
        connection = self._connection
        self._acted(connection.h2.send_response_head(self.id, status, fields, ended))
        if ended:
            self._end()

    def _send(self, data: bytes, ended: bool) -> None:
        """Send a piece of the body, behind those that wait."""
        if self._waiting is None:
            place = self._push(data, 0, ended)
            if place == _ALL:
                if ended:
                    self._end()
                return
            self._waiting = deque()
            self._place = place
            self._connection.held.begin(self)
        self._waiting.append((data, ended))
        self._unsent += len(data)
        self._connection.unsent_bytes += len(data)

    def _send_trailers(self, trailers: HeaderMap) -> None:
        """End the answer, behind what waits."""
        if self._waiting is not None:
            self._trailers = trailers
            return
        self._acted(self._connection.h2.send_trailers(self.id, trailers))
        self._end()

    def resume(self) -> None:
        """The client opened its window, or reads again."""
        waiting = self._waiting
        if waiting is None:
            return
        while waiting:
            data, ended = waiting[0]
            before, self._place = self._place, self._push(data, self._place, ended)
            if self._place != _ALL:
                self._progress(self._place - before)
                return
            self._place = 0
            self._forget_unsent(len(waiting.popleft()[0]))
        self._waiting = None
        self._connection.held.end(self)
        self._pay_owed()
        if ended:
            self._end()
        elif self._trailers is not None:
            self._send_trailers(self._trailers)
        elif self.request is not None and self.request.on_writable is not None:
            self.request.on_writable()

    def _push(self, data: bytes, place: int, ended: bool) -> int:
        """Queue what the client's windows take, a frame at a time; the place to go on from, or `_ALL`."""
        connection = self._connection
        while not connection.paused:
            verdict = connection.h2.send_data(self.id, data, place, ended)
            self._acted(verdict)
            if verdict.stopped is not None:
                return _ALL
            if verdict.done or verdict.sent:
                connection.control.give(CONTROL_PER_FRAME_SENT)
            if verdict.done:
                return _ALL
            if not verdict.sent:
                break
            place += verdict.sent
        return place

    def _acted(self, verdict: H2SendVerdict) -> None:
        if verdict.flags:
            self._connection.after(verdict.flags)

    def _progress(self, size: int) -> None:
        self._moved += size
        if self._moved >= _LEAST_PROGRESS_BYTES:
            self._moved = 0
            self._connection.held.end(self)
            self._connection.held.begin(self)

    def _forget_unsent(self, size: int) -> None:
        self._unsent -= size
        self._connection.unsent_bytes -= size

    def _pay_owed(self) -> None:
        if self._owed and not (self._held_back and self.is_open):
            owed, self._owed = self._owed, 0
            self._connection.release(self.id, owed)

    # -- the end ----------------------------------------------------------------------------------------------

    def _end(self) -> None:
        """The answer is complete."""
        self._close()
        self._connection.answered()

    def _close(self) -> None:
        connection = self._connection
        self.is_open = False
        self.request = None  # the two refer to one another
        if self._reserved:
            connection.home.receiving_bytes -= self._reserved
            self._reserved = 0
        if self._waiting is not None:
            self._waiting = None
            self._forget_unsent(self._unsent)
        self._pay_owed()
        connection.forget(self)


def headers_of(frame: H2FrameHeaders, limits: Limits) -> dict[bytes, bytes]:
    """The headers of a request as HTTP/1.1 has them: repeated ones joined, `:authority` as `host`.

    Raises:
        HeadersTooLarge: too many, or too long together.
    """
    items = frame.headers.raw_items()
    if len(items) > limits.headers:
        raise HeadersTooLarge
    headers = dict(items)
    if len(headers) != len(items):
        headers = {}
        for name, value in items:
            # https://www.rfc-editor.org/rfc/rfc9113#section-8.2.3: cookies come in crumbs
            between = b"; " if name == b"cookie" else b", "
            headers[name] = headers[name] + between + value if name in headers else value
    if sum(map(len, headers)) + sum(map(len, headers.values())) + 4 * len(items) > limits.head_bytes:
        raise HeadersTooLarge
    if frame.authority:
        headers[b"host"] = frame.authority.encode()
    return headers


def too_many_headers(limits: Limits) -> Rejection:
    """The refusal of `HeadersTooLarge`."""
    shown = f"more than {limits.headers} headers, or {limits.head_bytes} bytes of them"
    return Rejection(431, "headers_too_large", shown)


def fields_of(lines: bytes) -> list[tuple[bytes, bytes]]:
    """Header lines of HTTP/1.1 as fields; `connection` means nothing here."""
    fields = []
    for line in lines.split(b"\r\n")[:-1]:
        name, _, value = line.partition(b":")
        name = name.lower()
        if name != b"connection":
            fields.append((name, value.strip()))
    return fields
