"""A server that behaves as a test wants it to, on real sockets: good ones do not close in the middle of an answer."""

from __future__ import annotations

import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)", re.IGNORECASE)
_NO_LINGER = struct.pack("ii", 1, 0)


def ok(body: bytes = b"ok", *headers: bytes) -> bytes:
    """A good answer."""
    lines = b"".join(header + b"\r\n" for header in headers)
    return b"HTTP/1.1 200 OK\r\n%sContent-Length: %d\r\n\r\n%s" % (lines, len(body), body)


class Peer:
    """The server's end of one connection."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._received = b""

    def requests(self) -> Iterator[bytes]:
        """The bodies of requests, until the client closes."""
        while (body := self.request()) is not None:
            yield body

    def request(self) -> bytes | None:
        """The body of the next request; None: the client has closed."""
        while (end := self._received.find(b"\r\n\r\n")) < 0:
            if not self._more():
                return None
        match = _LENGTH.search(self._received[:end])
        stop = end + 4 + (int(match[1]) if match else 0)
        while len(self._received) < stop:
            if not self._more():
                return None
        body, self._received = self._received[end + 4 : stop], self._received[stop:]
        return body

    def send(self, data: bytes) -> None:
        """All of it."""
        self.socket.sendall(data)

    def reset(self) -> None:
        """Close with RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self.socket.close()

    def _more(self) -> bool:
        data = self.socket.recv(1 << 20)
        self._received += data
        return bool(data)


class OddServer:
    """Runs `behave` in a thread for each connection, which is closed when that returns.

    Attributes:
        connections: how many there have been; the client makes one only to see whether somebody is there.
    """

    def __init__(self, behave: Callable[[Peer], None], host: str = "127.0.0.1", port: int = 0) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listening = socket.create_server((host, port), family=family, backlog=1024)
        self.host = host
        self.port: int = self._listening.getsockname()[1]
        self.connections = 0
        self._behave = behave
        self._peers: list[Peer] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def __enter__(self) -> OddServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Listen no more, and close what is open; may be called twice."""
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        self._listening.close()
        for peer in self._peers:
            with suppress(OSError):
                peer.socket.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                peer = Peer(self._listening.accept()[0])
                self.connections += 1
                self._peers.append(peer)
                self._threads.append(threading.Thread(target=self._talk, args=[peer]))
                self._threads[-1].start()

    def _talk(self, peer: Peer) -> None:
        with peer.socket, suppress(OSError):
            self._behave(peer)
