"""The listening socket, and the sweep that ends what takes too long."""

from __future__ import annotations

import asyncio
import resource
import socket
import time
from typing import cast

from paceline.server.app import App
from paceline.server.sniff import Sniffer
from paceline.supervisor.addresses import unavailable

_BACKLOG = 4096
_SWEEP_S = 1.0
_DRAIN_POLL_S = 0.01
_LAST_CALL_S = 2.0
# Files that are no connection: the model, its libraries, the event loop, the connection that is told to leave.
_OTHER_FILES = 100
_TOO_MANY = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


def allow_connections(wanted: int) -> int:
    """Raise the limit of open files as far as `wanted` connections need; how many it lets this process have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + _OTHER_FILES
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted
    allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    except (OSError, ValueError):
        allowed = soft  # macOS says "unlimited" and yet has a limit
    return min(wanted, max(1, allowed - _OTHER_FILES))


class Listener:
    """Accepts connections for an application.

    Args:
        max_connections: more than these are closed as they come.
    """

    def __init__(self, app: App, max_connections: int) -> None:
        self._app = app
        self._max_connections = max_connections
        self._servers: list[asyncio.Server] = []
        self._taken: dict[socket.socket, asyncio.Server] = {}
        self._sweeper: asyncio.TimerHandle | None = None
        self._accepted = False  # since the last sweep
        limits = app.limits
        shortest = min(limits.header_timeout_s, limits.body_timeout_s, limits.keep_alive_s, limits.write_timeout_s)
        self._sweep_s = min(_SWEEP_S, max(0.01, shortest / 4))

    async def open(self, host: str, port: int, flag: str = "--port") -> str:
        """Listen, on one more address if it listens already; the address as `host:port`.

        Args:
            flag: what sets the port, for the hint.

        Raises:
            AddressUnavailable: the port is taken or not permitted.
        """
        loop = asyncio.get_running_loop()
        try:
            server = await loop.create_server(self._connection, host, port, backlog=_BACKLOG)
        except OSError as error:
            raise unavailable(host, port, error, flag) from error
        self._servers.append(server)
        bound = server.sockets[0].getsockname()
        return f"[{bound[0]}]:{bound[1]}" if ":" in bound[0] else f"{bound[0]}:{bound[1]}"

    async def accept_from(self, sock: socket.socket) -> None:
        """Accept from a bound or listening socket of somebody else's, which stays open when we stop."""
        if sock in self._taken:
            return
        loop = asyncio.get_running_loop()
        self._taken[sock] = await loop.create_server(self._connection, sock=sock.dup(), backlog=_BACKLOG)

    def stop_accepting_from(self, sock: socket.socket) -> None:
        """Leave the socket to others; connections that came from it go on."""
        server = self._taken.pop(sock, None)
        if server is not None:
            server.close()

    def stop_accepting(self) -> None:
        """Close the listening sockets and every idle connection."""
        for server in (*self._servers, *self._taken.values()):
            server.close()
        for connection in list(self._app.connections):
            connection.close()

    async def drained(self, grace_s: float) -> None:
        """Wait until every connection has had its answer; cut off those that have not after `grace_s`."""
        until = time.monotonic() + grace_s
        while self._app.connections and time.monotonic() < until:
            for connection in list(self._app.connections):
                connection.close()
            await asyncio.sleep(_DRAIN_POLL_S)
        for connection in list(self._app.connections):
            connection.abort()
        if self._sweeper is not None:
            self._sweeper.cancel()
        await asyncio.sleep(0)

    async def retired(self, grace_s: float) -> None:
        """Accept no more, and wait until every client has left of itself.

        A client that keeps its connection is told with its next answer to come back on another one. Closing an idle
        connection at once could meet a request on its way, so it gets `_LAST_CALL_S` for that.
        """
        for sock in list(self._taken):
            self.stop_accepting_from(sock)
        began = time.monotonic()
        while self._app.connections and time.monotonic() < began + grace_s:
            silent_since = time.monotonic() - _LAST_CALL_S
            for connection in list(self._app.connections):
                if connection.announces_end or max(began, connection.answered_at) < silent_since:
                    connection.close()
            await asyncio.sleep(_DRAIN_POLL_S)
        await self.drained(0.0)

    def _connection(self) -> asyncio.BaseProtocol:
        if len(self._app.connections) >= self._max_connections:
            return _Refusal()
        self._accepted = True
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().call_later(self._sweep_s, self._sweep)
        return Sniffer(self._app)

    def _sweep(self) -> None:
        """End overdue phases. Without connections there is no sweep, and an idle server costs nothing."""
        now = time.monotonic()
        # One that was accepted a moment ago is not among the connections yet, and must not be forgotten.
        again = bool(self._app.connections) or self._accepted
        self._accepted = False
        self._sweeper = asyncio.get_running_loop().call_later(self._sweep_s, self._sweep) if again else None
        for connection in list(self._app.connections):
            if connection.expires <= now:
                connection.on_expired()


class _Refusal(asyncio.Protocol):
    """One connection too many: said so, and closed."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        stream = cast(asyncio.WriteTransport, transport)  # uvloop's is one without being derived from it
        stream.write(_TOO_MANY)
        stream.close()
