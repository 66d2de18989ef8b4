"""Does a new connection speak HTTP/1.1 or HTTP/2? Its first bytes decide, and it is handed over.

Rules:
- An HTTP/2 client begins with a preface that no HTTP/1.1 client can send. The first byte that differs decides.
- Until then the connection counts like any other: it has a deadline, it is swept, it drains.
- Nothing is copied: what was read lies at the front of the shared buffer, where the chosen protocol looks for it.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final, cast

from paceline.server.http1 import HttpConnection
from paceline.server.http2 import PREFACE, Http2Connection

if TYPE_CHECKING:
    from paceline.server.app import App

_FIRST: Final = PREFACE[0]


class Sniffer(asyncio.BufferedProtocol):
    """A connection that has not said yet what it speaks."""

    __slots__ = ("_app", "_held", "_transport", "expires")

    is_idle = True
    streams = 0
    answered_at = 0.0
    announces_end = False

    def __init__(self, app: App) -> None:
        self._app = app
        self._held = b""
        self._transport: asyncio.Transport | None = None
        self.expires = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Register the connection and start its deadline."""
        self._transport = cast(asyncio.Transport, transport)
        self._app.connections.add(self)
        self.expires = time.monotonic() + self._app.limits.header_timeout_s

    def connection_lost(self, exc: Exception | None) -> None:
        """It never said anything."""
        self._app.connections.discard(self)
        self._transport = None

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes go: behind those that are held."""
        return self._app.read_buffer[len(self._held) :]

    def buffer_updated(self, nbytes: int) -> None:
        """Decide, if what came is enough for that."""
        buffer, held = self._app.read_buffer, self._held
        if held:  # other connections have used the buffer meanwhile
            buffer[: len(held)] = held
            nbytes += len(held)
        if buffer[0] == _FIRST:
            begun = bytes(buffer[: len(PREFACE)][:nbytes])
            if PREFACE.startswith(begun):
                if nbytes < len(PREFACE):
                    self._held = begun
                else:
                    self._become(Http2Connection(self._app), nbytes)
                return
        self._become(HttpConnection(self._app), nbytes)

    def eof_received(self) -> bool:
        """The client left without a word."""
        return False

    def on_expired(self) -> None:
        """The client said nothing for too long."""
        self.close()

    def close(self) -> None:
        """Close at once: nothing was asked."""
        if self._transport is not None:
            self._transport.close()

    abort = close

    def _become(self, protocol: HttpConnection | Http2Connection, nbytes: int) -> None:
        transport = self._transport
        assert transport is not None
        self._transport = None
        self._app.connections.discard(self)
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        protocol.buffer_updated(nbytes)
