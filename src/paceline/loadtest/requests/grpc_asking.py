"""What does a gRPC server answer to one call?

The codec of the load test speaks; beside it, a second reader of frames keeps what the codec only counts.
"""

from __future__ import annotations

import socket
import time
from typing import Final, NamedTuple
from urllib.parse import unquote

from httpunk._httpunk import H2Codec, H2FrameData, H2FrameHeaders

from paceline.core.errors import ConfigError, Unreachable
from paceline.loadtest.client.codec import Malformed
from paceline.loadtest.client.grpc import Grpc
from paceline.loadtest.requests.asking import unreachable
from paceline.loadtest.target import Target

_PREFIX_BYTES: Final = 5
_READ_BYTES: Final = 1 << 20


class NotGrpc(ConfigError):
    """What answers there does not speak gRPC."""


class Heard(NamedTuple):
    """The end of a call.

    Attributes:
        status: of gRPC; 0: `message` is the answer.
        says: what an error says.
    """

    status: int
    message: bytes
    says: str


def call(target: Target, timeout_s: float) -> Heard:
    """Send the first body of a target.

    Raises:
        Unreachable, NotGrpc: there is no answer.
    """
    where = target.url.removesuffix(target.path)
    until = time.monotonic() + timeout_s
    try:
        with socket.create_connection((target.host, target.port), timeout_s) as connection:
            return _Call(target, connection).run(until)
    except TimeoutError as error:
        raise Unreachable(f"{where}: no answer within {timeout_s:g} s") from error
    except Malformed as error:
        raise NotGrpc(f"{where}: what answers does not speak gRPC: {error}") from error
    except (OSError, ValueError) as error:
        raise unreachable(where, error) from error


class _Call:
    def __init__(self, target: Target, connection: socket.socket) -> None:
        self._codec = Grpc(target)
        self._frames = H2Codec("client")
        self._connection = connection
        self._data = b""
        self._says = b""

    def run(self, until: float) -> Heard:
        codec, connection = self._codec, self._connection
        connection.sendall(codec.greeting() + codec.request(0))
        while True:
            left_s = until - time.monotonic()
            if left_s <= 0:
                raise TimeoutError
            connection.settimeout(left_s)
            received = connection.recv(_READ_BYTES)
            if not received:
                raise Malformed("it closes the connection")
            answer = codec.receive(received)
            self._keep(received)
            if answer is not None:
                says = unquote(self._says.decode("latin-1"))
                return Heard(answer.status, self._data[_PREFIX_BYTES:], says)
            connection.sendall(codec.pending())

    def _keep(self, received: bytes) -> None:
        for frame in self._frames.receive(received):
            if isinstance(frame, H2FrameData):
                self._data += frame.data
            elif isinstance(frame, H2FrameHeaders):
                self._says = frame.headers.get(b"grpc-message", self._says)
