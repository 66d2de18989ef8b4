"""Which sockets does a server listen on? Opened by the supervisor, or why they cannot be.

Rules:
- A slot has one socket for each address. The sockets of one address share the port (SO_REUSEPORT), and the kernel
  spreads new connections over those that are listened on.
- Sharing is for our own sockets only: a port that somebody else listens on is taken. So the first socket of an
  address is bound and listened on before it may be shared: of two servers that start at the same time, one fails.
"""

from __future__ import annotations

import errno
import socket
from pathlib import Path
from typing import Final

from paceline.core.errors import AddressUnavailable

_BACKLOG: Final = 2048


def bound_sockets(host: str, port: int, slots: int, flag: str = "--port") -> list[list[socket.socket]]:
    """Sockets that wait for connections: for each slot, one for each address of the host.

    Only those of the first slot are listened on at once; the processes begin with theirs, so that no connection waits
    in a slot that nobody serves yet.

    Raises:
        AddressUnavailable: the port is taken or not permitted.
    """
    by_slot: list[list[socket.socket]] = [[] for _ in range(slots)]
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, _, _, _, address in dict.fromkeys(found):
            first = _bound(family, (address[0], port, *address[2:]), shared=False)
            by_slot[0].append(first)
            first.listen(_BACKLOG)
            first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            port = first.getsockname()[1]  # the first address chooses it when any would do
            for sockets in by_slot[1:]:
                sockets.append(_bound(family, (address[0], port, *address[2:]), shared=True))
    except OSError as error:
        for sockets in by_slot:
            for each in sockets:
                each.close()
        raise unavailable(host, port, error, flag) from error
    return by_slot


def _bound(family: int, address: tuple[object, ...], *, shared: bool) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    return sock


def shown(sock: socket.socket) -> str:
    """Its address as `host:port`."""
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def unavailable(host: str, port: int, error: OSError, flag: str) -> AddressUnavailable:
    """The error for a port that cannot be listened on, with its owner where /proc tells."""
    reason = {
        errno.EADDRINUSE: "the port is already in use",
        errno.EACCES: "not permitted",
        errno.EADDRNOTAVAIL: "this machine has no such address",
    }.get(error.errno or 0, error.strerror or str(error))
    if isinstance(error, socket.gaierror):
        reason = "the host name cannot be resolved"
    owner = _owner(port) if error.errno == errno.EADDRINUSE else None
    by = f" by process {owner}" if owner else ""
    hint = f"choose another with {flag}; {flag} 0 takes any free one"
    if error.errno == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror):
        hint = "name an address of this machine with --host; 127.0.0.1 is for this machine alone, 0.0.0.0 for all"
    return AddressUnavailable(f"cannot listen on {host}:{port}: {reason}{by}", hint=hint)


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
