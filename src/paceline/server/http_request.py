"""What is a request to those who answer it? And what may a connection send?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol, cast

from paceline.core.errors import PacelineError
from paceline.server.status import Rejection

JSON: Final = b"application/json"

Body = bytes | bytearray | memoryview
Answer = bytes | list[bytes | memoryview]
"""One piece, or several that are written one behind the other without a copy."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on what one connection may send, and on how long it may take."""

    body_bytes: int = 64 << 20
    receiving_bytes: int = 1 << 30
    url_bytes: int = 8 << 10
    head_bytes: int = 32 << 10
    headers: int = 100
    header_timeout_s: float = 10.0
    body_timeout_s: float = 30.0
    keep_alive_s: float = 75.0
    write_timeout_s: float = 30.0
    streams: int = 1024


class Connection(Protocol):
    """What a request needs of its connection.

    Attributes:
        answered_at: monotonic seconds of its last answer; 0.0 before the first.
    """

    answered_at: float

    @property
    def peer(self) -> str:
        """Address of the client."""

    def write_response(
        self,
        request: HttpRequest,
        status: int,
        body: Answer,
        content_type: bytes,
        extra: bytes,
    ) -> None:
        """Write the answer; see `HttpRequest.respond`."""


class PartsConnection(Protocol):
    """What a request needs of its connection to be answered in parts."""

    def begin_answer(self, request: HttpRequest, content_type: bytes, extra: bytes) -> None:
        """Write the head of an answer; see `HttpRequest.begin_answer`."""

    def write_part(self, request: HttpRequest, data: bytes) -> None:
        """Write a part of it."""

    def end_answer(self, request: HttpRequest) -> None:
        """That was all."""

    def unsent_bytes(self, request: HttpRequest) -> int:
        """What of it waits for the client."""

    def is_held(self, request: HttpRequest) -> bool:
        """True when the client does not read what it is sent; `on_writable` tells when it does."""


class OpenConnection(Protocol):
    """What the listener needs of a connection, whatever it speaks.

    Attributes:
        expires: monotonic seconds from when on `on_expired` is called, once per sweep.
        answered_at: monotonic seconds of its last answer; 0.0 before the first.
        announces_end: its protocol lets `close` tell the client first, so that no request is lost on its way.
    """

    expires: float
    answered_at: float
    announces_end: bool

    @property
    def is_idle(self) -> bool:
        """True when no request has begun."""

    @property
    def streams(self) -> int:
        """How many requests are under way."""

    def on_expired(self) -> None:
        """The deadline of the current phase has passed."""

    def close(self) -> None:
        """Close at once if idle, else behind what is under way; called again until it is closed."""

    def abort(self) -> None:
        """Close now, whatever is under way."""


class Home(Protocol):
    """What a connection needs of its server.

    Attributes:
        receiving_bytes: of large bodies, from their announcement to the answer, over all connections.
    """

    limits: Limits
    draining: bool
    read_buffer: memoryview
    connections: set[OpenConnection]
    receiving_bytes: int

    def handle(self, request: HttpRequest) -> None:
        """Answer the request, now or later, through `request.respond`."""

    def refuse(self, request: HttpRequest, rejection: Rejection) -> None:
        """Answer a request that breaks the protocol or a limit."""


class HttpRequest:
    """One request, complete with its body, and the way to answer it.

    Attributes:
        path: the target before `?`, still percent-encoded.
        headers: not to be changed; lower-case names; repeated ones are joined with a comma.
        received: monotonic seconds when the last byte had arrived.
        reserved: bytes of its body that count among those being received.
        on_disconnect: called when the client leaves before the answer.
        on_error: called when the answer is an error; it must not refer to the request.
        on_writable: called when the client of an answer in parts has caught up.
        filler: what may be written between two parts of the answer, and means nothing to the client.
    """

    # Defaults stand on the class: storing six of them in every request would cost half a microsecond.
    body: Body = b""
    id = b""
    received = 0.0
    status = 0
    answered = False
    reserved = 0
    is_http_1_0 = False
    on_disconnect: Callable[[], None] | None = None
    on_error: Callable[[HttpRequest, PacelineError], None] | None = None
    on_writable: Callable[[], None] | None = None
    filler = b""

    def __init__(
        self,
        connection: Connection,
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

    def again(self, body: Body) -> HttpRequest:
        """A new request with the same head."""
        request = HttpRequest.__new__(HttpRequest)
        request.connection = self.connection
        request.method = self.method
        request.path = self.path
        request.query = self.query
        request.headers = self.headers
        request.keep_alive = self.keep_alive
        if self.is_http_1_0:
            request.is_http_1_0 = True
        request.body = body
        return request

    def respond(
        self,
        status: int,
        body: Answer = b"",
        content_type: bytes = JSON,
        extra: bytes = b"",
    ) -> None:
        """Answer, once.

        Args:
            body: one piece, or several that are written one behind the other without a copy.
            extra: further header lines, each ending in CRLF.
        """
        self.connection.write_response(self, status, body, content_type, extra)

    # -- an answer in parts -----------------------------------------------------------------------------------

    def begin_answer(self, content_type: bytes, extra: bytes = b"", filler: bytes = b"") -> None:
        """Begin to answer, with status 200 and a body whose length nobody knows yet. Parts follow, and then the end.

        Args:
            extra: further header lines, each ending in CRLF.
            filler: may be written between two parts, to see whether the client is still there.
        """
        self.filler = filler
        self._parts.begin_answer(self, content_type, extra)

    def write_part(self, data: bytes) -> None:
        """Send a part of the answer; nothing happens when the client has left."""
        self._parts.write_part(self, data)

    def end_answer(self) -> None:
        """The answer is complete."""
        self.on_writable = None
        self._parts.end_answer(self)

    @property
    def unsent_bytes(self) -> int:
        """What of the parts waits for the client."""
        return self._parts.unsent_bytes(self)

    @property
    def is_held(self) -> bool:
        """True when the client does not read what it is sent. `on_writable` is called when it does again."""
        return self._parts.is_held(self)

    @property
    def _parts(self) -> PartsConnection:
        return cast(PartsConnection, self.connection)
