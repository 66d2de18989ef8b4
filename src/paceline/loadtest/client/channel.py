"""How does the client speak with its parent without ever holding up a request?

Rules:
- Nothing here waits while a step runs. What the parent does not read is kept, up to a bound.
- A parent that does not read costs samples, never time or memory without bound; how many is counted.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Iterator
from typing import Final

from paceline.loadtest.client.frames import FrameReader, Kind, packed
from paceline.loadtest.client.loop import READ, WRITE, Handler, Loop
from paceline.loadtest.samples import PACK

_MOST_UNREAD: Final = 32 << 20
_BUFFER: Final = 4 << 20
_READ_SIZE: Final = 1 << 18
_PATIENCE_S: Final = 5.0


class ParentGone(Exception):
    """The parent has ended, or wants nothing more."""


class Channel:
    """The client's end of the connection to its parent.

    Attributes:
        dropped: samples that were lost since `dropped` was last set to 0.
    """

    def __init__(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
        connection.setblocking(False)
        self.dropped = 0
        self._socket = connection
        self._reader = FrameReader()
        self._unsent: deque[memoryview] = deque()
        self._unsent_bytes = 0
        self._loop: Loop | None = None

    def attach(self, loop: Loop, on_readable: Handler) -> None:
        """Let a loop say when something comes, and send what could not be sent at once."""
        self._loop, self._on_readable = loop, on_readable
        loop.watch(self._socket.fileno(), self._ready, READ)

    def received(self) -> Iterator[tuple[Kind, bytes]]:
        """Frames that have come.

        Raises:
            ParentGone: and no more will.
        """
        try:
            data = self._socket.recv(_READ_SIZE)
        except BlockingIOError:
            return
        except OSError as error:
            raise ParentGone from error
        if not data:
            raise ParentGone
        self._reader.feed(data)
        yield from self._reader.frames()

    def send_samples(self, rows: memoryview) -> None:
        """Send, or keep, or drop when too much is kept."""
        if self._unsent_bytes + len(rows) > _MOST_UNREAD:
            self.dropped += len(rows) // PACK.size
        else:
            self.send(Kind.SAMPLES, rows)

    def send(self, kind: Kind, payload: bytes | memoryview = b"") -> None:
        """Send as far as the parent reads; the rest follows."""
        frame = memoryview(packed(kind, payload))
        self._unsent.append(frame)
        self._unsent_bytes += len(frame)
        if len(self._unsent) == 1:
            self._send_on()

    def send_all(self) -> None:
        """Wait until everything is sent, for some seconds at most: the client is about to end.

        Raises:
            ParentGone: before that.
        """
        self._socket.settimeout(_PATIENCE_S)
        try:
            for frame in self._unsent:
                self._socket.sendall(frame)
        except OSError as error:
            raise ParentGone from error

    def _ready(self) -> None:
        if self._unsent:
            self._send_on()
        self._on_readable()

    def _send_on(self) -> None:
        try:
            while self._unsent:
                sent = self._socket.send(self._unsent[0])
                self._unsent_bytes -= sent
                if sent < len(self._unsent[0]):
                    self._unsent[0] = self._unsent[0][sent:]
                else:
                    self._unsent.popleft()
        except BlockingIOError:
            pass
        except OSError as error:
            raise ParentGone from error
        if self._loop is not None:
            self._loop.watch(self._socket.fileno(), self._ready, READ | WRITE if self._unsent else READ)
