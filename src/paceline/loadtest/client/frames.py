"""What do the client's process and its parent say to each other? Frames: a length, a kind, a payload.

    length of the payload, 4 bytes | kind, 1 byte | payload

Both ends see EOF when the other is gone, however that happened.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator
from typing import Final

from paceline.core.errors import GeneratorFailed

_HEAD: Final = struct.Struct("<IB")


class Kind(enum.IntEnum):
    """What a payload is: msgpack of a Struct, where nothing else is said."""

    TARGET = 1  # to the client, once
    STEP = 2
    CHANGE = 3
    STOP = 4  # empty
    READY = 5  # from the client: it has reached the target; empty
    SAMPLES = 6  # rows of `SAMPLE`
    ENDED = 7
    FAILED = 8  # text: why it gives up


def packed(kind: Kind, payload: bytes | memoryview = b"") -> bytes:
    """A frame.

    Raises:
        GeneratorFailed: 4 GiB or more, which is more than a frame can hold.
    """
    if len(payload) >> 32:
        raise GeneratorFailed(f"{len(payload) >> 20} MiB are too many for one message to the client")
    return _HEAD.pack(len(payload), kind) + payload


class FrameReader:
    """Frames out of what is received, however it is cut."""

    def __init__(self) -> None:
        self._received = bytearray()

    def feed(self, data: bytes) -> None:
        """Take what came."""
        self._received += data

    def frames(self) -> Iterator[tuple[Kind, bytes]]:
        """Those that are complete."""
        begin, received = 0, self._received
        try:
            while len(received) - begin >= _HEAD.size:
                size, kind = _HEAD.unpack_from(received, begin)
                end = begin + _HEAD.size + size
                if len(received) < end:
                    return
                payload = bytes(memoryview(received)[begin + _HEAD.size : end])
                begin = end
                yield Kind(kind), payload
        finally:
            del received[:begin]
