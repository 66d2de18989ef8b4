"""How do a supervisor, its replicas and `paceline restart` talk? One JSON document a line, over a Unix socket.

Rules:
- Nobody waits for a reader. What does not fit into the socket is kept, and sent when the owner's loop finds that it can
  be (`has_unsent`, `flush`): two ends that sent much to each other at the same time would block each other for ever.
- What cannot be read as documents, or is too long, is the end of the stream.
"""

from __future__ import annotations

import json
import socket
import time
from contextlib import suppress
from typing import Any, Final

_READ_BYTES: Final = 256 << 10
_MOST_BYTES: Final = 64 << 20
# Whoever has read nothing for so long is given up.
_STUCK_S: Final = 10.0

Document = dict[str, Any]


class Lines:
    """One end of a socket that carries documents.

    Args:
        most_bytes: longest line, and most that is kept for an end that does not read.
    """

    def __init__(self, sock: socket.socket, most_bytes: int = _MOST_BYTES) -> None:
        self._sock = sock
        self._most_bytes = most_bytes
        self._begun = bytearray()
        self._unsent = bytearray()
        self._sent_at = 0.0

    def fileno(self) -> int:
        """For selectors and event loops."""
        return self._sock.fileno()

    @property
    def has_unsent(self) -> bool:
        """True when `flush` has something to do."""
        return bool(self._unsent)

    def send(self, document: Document) -> bool:
        """Send one document, now or later; False when the other end is gone or stuck."""
        now = time.monotonic()
        if not self._unsent:
            self._sent_at = now
        self._unsent += json.dumps(document).encode() + b"\n"
        if len(self._unsent) > self._most_bytes or now - self._sent_at > _STUCK_S:
            self._hang_up()
            return False
        return self.flush()

    def flush(self) -> bool:
        """Send what can be sent now; False when the other end is gone."""
        try:
            while self._unsent:
                sent = self._sock.send(self._unsent, socket.MSG_DONTWAIT)
                self._sent_at = time.monotonic()
                del self._unsent[:sent]
        except BlockingIOError:
            return True
        except OSError:
            self._hang_up()
            return False
        return True

    def finish(self, timeout_s: float) -> None:
        """Wait until all has been sent: these were the last words."""
        self._sock.settimeout(timeout_s)
        with suppress(OSError):
            self._sock.sendall(self._unsent)
        self._unsent.clear()

    def receive(self) -> list[Document] | None:
        """What has come, without waiting; None at the end of the stream."""
        try:
            data = self._sock.recv(_READ_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return []
        except OSError:
            return None
        if not data:
            return None
        whole, end, rest = data.rpartition(b"\n")
        if not end:
            self._begun += data
            return [] if len(self._begun) <= self._most_bytes else None
        lines, self._begun = (bytes(self._begun) + whole).split(b"\n"), bytearray(rest)
        try:
            documents = [json.loads(line) for line in lines]
        except (ValueError, RecursionError):
            return None
        return documents if all(isinstance(document, dict) for document in documents) else None

    def wait(self, timeout_s: float | None) -> None:
        """Wait until something has come.

        Raises:
            TimeoutError: nothing did.
        """
        self._sock.settimeout(timeout_s)
        with suppress(ConnectionError):  # `receive` will say so
            self._sock.recv(1, socket.MSG_PEEK)

    def close(self) -> None:
        """Close this end."""
        self._unsent.clear()
        self._sock.close()

    def _hang_up(self) -> None:
        self._unsent.clear()  # part of a line may have gone: whatever came behind it would be read as its rest
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
