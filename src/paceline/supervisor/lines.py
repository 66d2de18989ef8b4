"""How do a supervisor, its replicas and `paceline restart` talk? One JSON document a line, over a Unix socket."""

from __future__ import annotations

import json
import socket
import struct
from typing import Any, Final

_READ_BYTES: Final = 256 << 10
_MOST_BYTES: Final = 64 << 20
# Whoever does not read for so long is given up, so that one stuck process cannot hold up the others.
_SEND_TIMEOUT_S: Final = 2

Document = dict[str, Any]


class Lines:
    """One end of a socket that carries documents."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._begun = b""
        sock.setblocking(True)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", _SEND_TIMEOUT_S, 0))

    def fileno(self) -> int:
        """For selectors and event loops."""
        return self._sock.fileno()

    def send(self, document: Document) -> bool:
        """Send one document; False when the other end is gone or stuck."""
        try:
            self._sock.sendall(json.dumps(document).encode() + b"\n")
        except OSError:
            return False
        return True

    def receive(self) -> list[Document] | None:
        """What has come, without waiting; None at the end of the stream."""
        try:
            data = self._sock.recv(_READ_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return []
        except OSError:
            return None
        if not data or len(self._begun) > _MOST_BYTES:
            return None
        *whole, self._begun = (self._begun + data).split(b"\n")
        return [json.loads(line) for line in whole]

    def wait(self, timeout_s: float | None) -> None:
        """Wait until something has come.

        Raises:
            TimeoutError: nothing did.
        """
        self._sock.settimeout(timeout_s)
        try:
            self._sock.recv(1, socket.MSG_PEEK)
        finally:
            self._sock.setblocking(True)

    def close(self) -> None:
        """Close this end."""
        self._sock.close()
