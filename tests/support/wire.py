"""A client that says exactly what a test wants said, and accepts no answer that is not exact HTTP/1.1.

Real clients forgive, repair and retry; what a server does with malformed or unusual bytes shows only on a bare socket.
"""

from __future__ import annotations

import re
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from paceline.testing import RunningServer

_STATUS_LINE = re.compile(rb"HTTP/1\.1 ([1-5]\d\d) [ -~]+")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+): ([\t -~\x80-\xff]*)")
_NO_LINGER = struct.pack("ii", 1, 0)


class NotHttp(AssertionError):
    """The server sent something that is no complete response."""


@dataclass(frozen=True)
class Response:
    """One response; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def closes(self) -> bool:
        return self.headers.get("connection") == "close"


class Wire:
    """One connection.

    Args:
        receive_buffer: bytes that the kernel may hold for us; small for a client that reads slowly.
    """

    def __init__(self, server: RunningServer, timeout_s: float = 10.0, receive_buffer: int = 0) -> None:
        self.socket = socket.socket()
        self.socket.settimeout(timeout_s)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            self.socket.connect((server.host, server.port))
        except OSError:
            self.socket.close()
            raise
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = b""

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, *pieces: bytes) -> Wire:
        """Send each piece in a segment of its own, as far as the kernel lets us."""
        for piece in pieces:
            self.socket.sendall(piece)
        return self

    def finish_sending(self) -> Wire:
        """Close our half."""
        self.socket.shutdown(socket.SHUT_WR)
        return self

    def reset(self) -> None:
        """Leave with RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self.socket.close()

    def response(self, method: str = "GET") -> Response:
        """Read one response."""
        lines = self._head().split(b"\r\n")
        status_line = _STATUS_LINE.fullmatch(lines[0])
        if status_line is None:
            raise NotHttp(f"status line: {lines[0]!r}")
        headers: dict[str, str] = {}
        for line in lines[1:]:
            match = _HEADER.fullmatch(line)
            name = match and match[1].decode().lower()
            if match is None or not name or name in headers:
                raise NotHttp(f"header: {line!r}")
            headers[name] = match[2].decode("latin-1")
        status = int(status_line[1])
        if status < 200:
            return Response(status, headers, b"")
        length = int(headers["content-length"])
        return Response(status, headers, b"" if method == "HEAD" else self._exactly(length))

    def rest(self) -> bytes:
        """Everything until the server closes; a reset counts as closing."""
        try:
            while piece := self.socket.recv(65536):
                self._received += piece
        except ConnectionResetError:
            pass
        data, self._received = self._received, b""
        return data

    def is_quiet(self) -> bool:
        """True while the server has neither answered nor closed; reads nothing."""
        return not select.select([self.socket], [], [], 0)[0]

    def _head(self) -> bytes:
        while b"\r\n\r\n" not in self._received:
            self._more("in the middle of a head")
        head, _, self._received = self._received.partition(b"\r\n\r\n")
        return head

    def _exactly(self, length: int) -> bytes:
        while len(self._received) < length:
            self._more("in the middle of a body")
        body, self._received = self._received[:length], self._received[length:]
        return body

    def _more(self, where: str) -> None:
        piece = self.socket.recv(1 << 20)
        if not piece:
            raise NotHttp(f"closed {where}: {self._received[:200]!r}")
        self._received += piece


@contextmanager
def connections(server: RunningServer, count: int) -> Iterator[list[Wire]]:
    """Many connections at once; closed at the end if they are not yet."""
    with ExitStack() as stack, ThreadPoolExecutor(8) as pool:
        yield [stack.enter_context(wire) for wire in pool.map(lambda _: Wire(server), range(count))]


def get(target: str = "/livez", *headers: str, method: str = "GET", version: str = "1.1") -> bytes:
    """A request without a body."""
    lines = [f"{method} {target} HTTP/{version}", "Host: test", *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1")


def post(body: bytes, *headers: str, target: str = "/predict") -> bytes:
    """A JSON request with a Content-Length."""
    length = f"Content-Length: {len(body)}"
    return get(target, "Content-Type: application/json", length, *headers, method="POST") + body


def chunked_head(*headers: str, target: str = "/predict") -> bytes:
    """The head of a request whose body comes in chunks."""
    kind = "Content-Type: application/json"
    return get(target, kind, "Transfer-Encoding: chunked", *headers, method="POST")


def chunked(body: bytes, size: int) -> bytes:
    """A body in chunks of `size` bytes, with the last chunk."""
    pieces = (body[start : start + size] for start in range(0, len(body), size))
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def ask(server: RunningServer, *pieces: bytes, method: str = "GET") -> Response:
    """One response on a connection of its own."""
    with Wire(server) as wire:
        return wire.send(*pieces).response(method)


def refused(server: RunningServer, *pieces: bytes) -> Response:
    """The only response on a connection that the server then closes."""
    with Wire(server) as wire:
        response = wire.send(*pieces).response()
        rest = wire.rest()
    assert rest == b"", "a second answer"
    assert response.closes
    return response


def metric(server: RunningServer, name: str, **labels: str) -> float:
    """The sum of a metric's samples that carry these labels."""
    text = ask(server, get("/metrics", "Connection: close")).body.decode()
    total = 0.0
    for line in text.splitlines():
        sample, _, value = line.rpartition(" ")
        if sample.partition("{")[0] == name and all(f'{k}="{v}"' in sample for k, v in labels.items()):
            total += float(value)
    return total


def memory_bytes(server: RunningServer, field: str = "VmRSS") -> int:
    """Resident memory of the server process; `VmHWM` is its peak."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(status.partition(f"{field}:")[2].split()[0]) * 1024


def until(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    """Wait for something that happens soon."""
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError("it did not happen")
        time.sleep(0.005)
