"""An HTTP/2 client that sends exactly the frames that a test names, and reads what comes back.

Real clients keep the protocol; what a server does when one does not shows only with bytes made by hand.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Any

from httpunk._httpunk import H2_PREFACE, H2Codec, H2FrameGoAway, H2FramePing, H2FrameSettings, HeaderMap

from paceline.testing import RunningServer

CALL = (("content-type", "application/grpc"), ("te", "trailers"))


class Frames:
    """One connection.

    Args:
        window: what the server may send on a stream before we say more; never more than that.
    """

    def __init__(self, server: RunningServer, *, window: int = 1 << 20, greet: bool = True) -> None:
        self.codec = H2Codec("client")
        self.codec.set_max_recv_frame_size(1 << 20)
        self.socket = socket.create_connection((server.host, server.port), timeout=10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.seen: list[Any] = []
        self.answers_pings = True
        if greet:
            self.send(H2_PREFACE, self.codec.serialize_settings(initial_window_size=window))

    def __enter__(self) -> Frames:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, *pieces: bytes) -> Frames:
        for piece in pieces:
            self.socket.sendall(piece)
        return self

    def head(self, stream: int, path: str, *headers: tuple[str, str], method: str = "POST", end: bool = False) -> bytes:
        """The HEADERS frame of a request."""
        fields = HeaderMap(headers or CALL)
        return self.codec.serialize_request_headers(stream, method, path, fields, end, scheme="http", authority="test")

    def data(self, stream: int, data: bytes, end: bool = False) -> bytes:
        return self.codec.serialize_data(stream, data, end)

    def call(self, stream: int, path: str, message: bytes, *headers: tuple[str, str]) -> bytes:
        """A whole unary call."""
        return self.head(stream, path, *headers) + self.data(stream, framed(message), True)

    def until(self, wanted: Callable[[Any], bool]) -> Any:
        """Read frames until one is wanted; that one."""
        while True:
            for place, frame in enumerate(self.seen):
                if wanted(frame):
                    del self.seen[: place + 1]
                    return frame
            if not self._more():
                raise EOFError("the server closed the connection")

    def status(self, stream: int) -> tuple[str, str]:
        """The status and message that end a call."""
        frame = self.until(lambda f: getattr(f, "stream_id", 0) == stream and hasattr(f, "headers") and f.end_stream)
        values = {name: value.decode() for name, value in frame.headers.items()}
        return values["grpc-status"], values.get("grpc-message", "")

    def message(self, stream: int) -> bytes:
        """The next DATA of a stream, without the prefix of its message."""
        frame = self.until(lambda f: getattr(f, "stream_id", 0) == stream and hasattr(f, "data"))
        data: bytes = frame.data
        return data[5:]

    def goaway(self) -> int:
        """The error code of the GOAWAY with which the server leaves."""
        frame = self.until(lambda f: isinstance(f, H2FrameGoAway))
        code: int = frame.error_code
        return code

    def is_closed(self) -> bool:
        """Read until the server closes; a reset counts as closing."""
        end = time.monotonic() + 10
        while time.monotonic() < end:
            try:
                if not self.socket.recv(65536):
                    return True
            except ConnectionError:
                return True
        return False

    def _more(self) -> bool:
        data = self.socket.recv(1 << 20)
        for frame in self.codec.receive(data) if data else ():
            if isinstance(frame, H2FrameSettings) and not frame.ack:
                self.send(self.codec.serialize_settings_ack())
            elif isinstance(frame, H2FramePing) and not frame.ack and self.answers_pings:
                self.send(self.codec.serialize_ping_ack(frame.data))
            self.seen.append(frame)
        return bool(data)


def framed(message: bytes, compressed: bool = False) -> bytes:
    """A message as it lies in the body."""
    return bytes([compressed]) + len(message).to_bytes(4, "big") + message


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """A frame by its numbers."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload
