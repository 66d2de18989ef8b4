"""What happens on one connection of the client: it is opened, asked, read, lost?

Rules:
- Nothing here waits; `Loop` says when a socket can be read or written.
- One request is under way at a time. A connection that is lost may be opened again.
- A request that was sent and brought no complete answer has failed, also on a connection that the server closed while
  it was idle, just before the request came. RFC 9112 (9.3.1) lets a client send again only what is idempotent, which
  no client knows of a POST: users of plain clients see this failure, so it is counted. A server's closing that is seen
  before anything was sent costs nothing.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from functools import partial
from typing import Any, Final, NamedTuple, Protocol

from paceline.core.errors import GeneratorFailed
from paceline.loadtest.client import grpc
from paceline.loadtest.client.codec import Answer, Codec, Malformed
from paceline.loadtest.client.grpc import Grpc
from paceline.loadtest.client.http1 import Http1, Shared
from paceline.loadtest.client.loop import READ, WRITE, Loop
from paceline.loadtest.samples import Outcome
from paceline.loadtest.target import Target

CLOSED: Final = 0
CONNECTING: Final = 1
IDLE: Final = 2
BUSY: Final = 3

_READ_SIZE: Final = 1 << 16
_PROBE_S: Final = 5.0
_CONNECTING_ERRORS: Final = (errno.EINPROGRESS, errno.EALREADY)
# What the client lacks: EAGAIN and EADDRNOTAVAIL mean ports.
_OWN_ERRORS: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EAGAIN, errno.EADDRNOTAVAIL)


class Route(NamedTuple):
    """How connections to a target are made.

    Attributes:
        bodies: how many there are to ask with.
    """

    family: int
    address: Any
    codec: Callable[[], Codec]
    bodies: int


class Owner(Protocol):
    """Who uses a connection, and is told what becomes of it."""

    def opened(self, connection: Connection, /) -> None:
        """It can take a request."""

    def answered(self, connection: Connection, answer: Answer, /) -> None:
        """The request under way has its answer; the connection is idle, or closed if the answer says so."""

    def lost(self, connection: Connection, outcome: Outcome, was: int, /) -> None:
        """It is closed now, and was CONNECTING, IDLE or BUSY."""


class Connection:
    """One connection.

    Attributes:
        state: CLOSED, CONNECTING, IDLE or BUSY.
        due_s: when the request under way should have been sent, in monotonic seconds.
        sent_s: when it was.
    """

    __slots__ = (
        "_codec",
        "_loop",
        "_owner",
        "_pending",
        "_receive",
        "_recv",
        "_rest",
        "_route",
        "_send",
        "_socket",
        "due_s",
        "opening_s",
        "sent_s",
        "state",
    )
    _codec: Codec
    _socket: socket.socket

    def __init__(self, loop: Loop, route: Route, owner: Owner) -> None:
        self._loop = loop
        self._route = route
        self._owner = owner
        self._rest = memoryview(b"")
        self.state = CLOSED
        self.due_s = self.sent_s = self.opening_s = 0.0

    def open(self, now: float) -> None:
        """Begin to connect; the owner is told how it ends, maybe at once."""
        self.opening_s = now
        self.state = CONNECTING
        try:
            self._socket = made = socket.socket(self._route.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        except OSError as error:
            self.state = CLOSED
            self._owner.lost(self, _not_connected(error.errno), CONNECTING)
            return
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._loop.watch(made.fileno(), self._connect, WRITE)
        self._connect()

    def send(self, index: int, due_s: float, now: float) -> None:
        """Send the request with the body of that index."""
        self.state = BUSY
        self.due_s, self.sent_s = due_s, now
        self._write(self._codec.request(index))

    def close(self) -> None:
        """Close it; the owner is not told."""
        if self.state != CLOSED:
            self.state = CLOSED
            self._rest = memoryview(b"")
            self._loop.forget(self._socket.fileno())
            self._socket.close()

    def _connect(self) -> None:
        error = self._socket.connect_ex(self._route.address)
        if error in (0, errno.EISCONN):
            self._connected()
        elif error not in _CONNECTING_ERRORS:
            self._ended(_not_connected(error))

    def _connected(self) -> None:
        self._loop.watch(self._socket.fileno(), self._readable, READ)
        codec = self._codec = self._route.codec()
        self._receive, self._pending = codec.receive, codec.pending
        self._recv, self._send = self._socket.recv, self._socket.send
        self.state = IDLE
        greeting = codec.greeting()
        if greeting:
            self._write(greeting)
        self._owner.opened(self)

    def _readable(self) -> None:
        try:
            data = self._recv(_READ_SIZE)
            if not data:
                self._ended_by_server()
                return
            answer = self._receive(data)
            more = self._pending()
        except BlockingIOError:
            return
        except OSError:
            self._ended(Outcome.RESET)
            return
        except Malformed:
            self._ended(Outcome.MALFORMED)
            return
        if more:
            self._write(more)
        if answer is not None and self.state == BUSY:
            self._answered(answer)

    def _answered(self, answer: Answer) -> None:
        if answer.closes or self._rest:  # of a request that was answered before it had been sent
            self.close()
        else:
            self.state = IDLE
        self._owner.answered(self, answer)

    def _writable(self) -> None:
        rest, self._rest = self._rest, memoryview(b"")
        self._loop.watch(self._socket.fileno(), self._readable, READ)
        self._write(rest)
        self._readable()

    def _write(self, data: bytes | memoryview) -> None:
        if self._rest:
            self._later(memoryview(bytes(self._rest) + data))
            return
        try:
            sent = self._send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            return  # it is readable now: what the server has said before it closed counts, and then why
        if sent < len(data):
            self._later(memoryview(data)[sent:])

    def _later(self, rest: memoryview) -> None:
        self._rest = rest
        self._loop.watch(self._socket.fileno(), self._writable, READ | WRITE)

    def _ended_by_server(self) -> None:
        answer = self._codec.end() if self.state == BUSY else None
        if answer is None:
            self._ended(Outcome.CLOSED)
        else:
            self.close()
            self._owner.answered(self, answer)

    def _ended(self, outcome: Outcome) -> None:
        was = self.state
        self.close()
        self._owner.lost(self, outcome, was)


def route(target: Target) -> Route:
    """Find the first of the target's addresses that takes connections.

    Raises:
        GeneratorFailed: there is none; the message says why.
        ValueError: the target has a header or path that cannot be sent.
    """
    codec = (
        partial(Grpc, target, grpc.Shared(target)) if target.wire == "grpc" else partial(Http1, target, Shared(target))
    )
    try:
        found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise GeneratorFailed(f"{target.host}: {_words(error)}") from error
    reasons = []
    for family, _, _, _, address in found:
        try:
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.settimeout(_PROBE_S)
                probe.connect(address)
        except OSError as error:
            reasons.append(f"{address[0]}: {_words(error)}")
        else:
            return Route(family, address, codec, len(target.bodies))
    raise GeneratorFailed("; ".join(dict.fromkeys(reasons)))


def _not_connected(error: int | None) -> Outcome:
    return Outcome.NO_SOCKET if error in _OWN_ERRORS else Outcome.NOT_CONNECTED


def _words(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return text[:1].lower() + text[1:]
