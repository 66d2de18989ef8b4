"""Who asks the supervisor for a restart, and how are they told what comes of it?"""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from paceline.supervisor import control
from paceline.supervisor.lines import Document, Lines
from paceline.supervisor.watch import Watch

# One asks, a few more are told that a restart is under way: nobody needs many.
_MOST_CLIENTS: Final = 16
_MOST_BYTES: Final = 64 << 10


class Clients:
    """The control socket of one supervisor, and those who have come to it.

    Args:
        port: of the server.
        on_request: called with each document and its sender.

    Raises:
        RestartFailed, OSError: there is no place for the socket.
    """

    def __init__(self, port: int, watch: Watch, on_request: Callable[[Lines, Document], None]) -> None:
        self._watch = watch
        self._on_request = on_request
        self._open: set[Lines] = set()
        self._waiting: list[Lines] = []
        self._socket: socket.socket
        self._path: Path
        self._socket, self._path = control.listen(port)
        watch.add(self._socket, self._accept)

    def wait(self, client: Lines) -> None:
        """Tell this one what happens, from now on."""
        self._waiting.append(client)

    def tell(self, text: str, **more: Any) -> None:
        """Tell all who wait; with `ok`, it is the last that they are told."""
        for client in self._waiting:
            client.send({"text": text, **more})
        if "ok" in more:
            self._waiting.clear()  # they hang up

    def close(self) -> None:
        """Come no more: the port is about to be somebody else's, and with it the name of the socket."""
        if self._socket.fileno() >= 0:
            self._watch.remove(self._socket)
            self._path.unlink(missing_ok=True)
            self._socket.close()

    def _accept(self) -> None:
        with suppress(OSError):  # no file left, or gone again: none of it is a reason to end
            sock, _ = self._socket.accept()
            if len(self._open) >= _MOST_CLIENTS:
                sock.close()
                return
            client = Lines(sock, _MOST_BYTES)
            self._open.add(client)
            self._watch.add(client, lambda: self._hear(client))

    def _hear(self, client: Lines) -> None:
        documents = client.receive()
        if documents is None:
            self._watch.remove(client)
            self._open.discard(client)
            if client in self._waiting:
                self._waiting.remove(client)
            client.close()
            return
        for document in documents:
            self._on_request(client, document)
