"""The listening socket, and the sweep that ends what takes too long."""

from __future__ import annotations

import asyncio
import errno
import resource
import socket
import time
from pathlib import Path
from typing import cast

from paceline.core.errors import AddressUnavailable
from paceline.server.app import App
from paceline.server.http1 import HttpConnection

_BACKLOG = 2048
_SWEEP_S = 1.0
_DRAIN_POLL_S = 0.01
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
        self._server: asyncio.Server | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._accepted = False  # since the last sweep
        limits = app.limits
        shortest = min(limits.header_timeout_s, limits.body_timeout_s, limits.keep_alive_s, limits.write_timeout_s)
        self._sweep_s = min(_SWEEP_S, max(0.01, shortest / 4))

    async def open(self, host: str, port: int) -> str:
        """Listen; the address as `host:port`.

        Raises:
            AddressUnavailable: the port is taken or not permitted.
        """
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(self._connection, host, port, backlog=_BACKLOG)
        except OSError as error:
            raise _unavailable(host, port, error) from error
        bound = self._server.sockets[0].getsockname()
        return f"[{bound[0]}]:{bound[1]}" if ":" in bound[0] else f"{bound[0]}:{bound[1]}"

    def stop_accepting(self) -> None:
        """Close the listening socket and every idle connection."""
        if self._server is not None:
            self._server.close()
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

    def _connection(self) -> asyncio.BaseProtocol:
        if len(self._app.connections) >= self._max_connections:
            return _Refusal()
        self._accepted = True
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().call_later(self._sweep_s, self._sweep)
        return HttpConnection(self._app)

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


def _unavailable(host: str, port: int, error: OSError) -> AddressUnavailable:
    reason = {
        errno.EADDRINUSE: "the port is already in use",
        errno.EACCES: "not permitted",
        errno.EADDRNOTAVAIL: "this machine has no such address",
    }.get(error.errno or 0, error.strerror or str(error))
    if isinstance(error, socket.gaierror):
        reason = "the host name cannot be resolved"
    owner = _owner(port) if error.errno == errno.EADDRINUSE else None
    by = f" by process {owner}" if owner else ""
    return AddressUnavailable(
        f"cannot listen on {host}:{port}: {reason}{by}",
        hint="choose another with --port; --port 0 takes any free one",
    )


def _owner(port: int) -> str | None:
    """Number and name of the process that listens on `port`, where /proc tells."""
    inodes = set()
    for table in ("tcp", "tcp6"):
        try:
            lines = Path(f"/proc/net/{table}").read_text().splitlines()[1:]
        except OSError:
            return None
        for line in lines:
            fields = line.split()
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{fields[9]}]")
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(str(link.readlink()) in inodes for link in (process / "fd").iterdir()):
                return f"{process.name} ({(process / 'comm').read_text().strip()})"
        except OSError:
            continue  # gone meanwhile, or somebody else's
    return None
