"""How do messages lie in the body of a gRPC call? Taken out of it, inflated, bounded; and put into it.

Rules:
- A message is a byte that says whether it is compressed, its length in four bytes, and its bytes. Frames of HTTP/2 cut
  through all of these as they please.
- What a message announces is checked against the limit before any of it is kept.
- Status codes are those of https://github.com/grpc/grpc/blob/master/doc/compression.md and statuscodes.md.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from paceline.server import encoding
from paceline.server.grpc import Status
from paceline.server.http_request import Answer

PREFIX_BYTES: Final = 5
_JOINED_BYTES: Final = 64 << 10
ACCEPTED: Final = b"identity,deflate,gzip"
_INFLATED: Final = (b"gzip", b"deflate")


class CallRefused(Exception):
    """The body of a call breaks the protocol or a limit; the call ends with this status."""

    def __init__(self, status: Status, message: str, trailers: tuple[tuple[str, bytes], ...] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.trailers = trailers


class MessageReader:
    """Takes the messages of one call out of the pieces of its body.

    Args:
        limit_bytes: of one message, also once inflated.
        name: the call's `grpc-encoding`.

    Attributes:
        announced: bytes, with the prefix, of the message that has begun and is not complete; 0 when none has.
    """

    __slots__ = ("_filled", "_limit", "_name", "_partial", "announced")

    def __init__(self, limit_bytes: int, name: bytes = b"identity") -> None:
        self._limit = limit_bytes
        self._name = name.strip().lower()
        self._partial = memoryview(b"")
        self._filled = 0
        self.announced = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Add a piece of the body; the messages that it completes.

        Raises:
            CallRefused: a message is too large, or its compression is not understood.
        """
        messages: list[bytes] = []
        view = memoryview(data)
        while view:
            if not self.announced:
                size = self._whole_size(view)
                if size <= len(view):
                    messages.append(self._message(view[:size]))
                    view = view[size:]
                    continue
                self._begin(size)
            used = min(len(view), self.announced - self._filled)
            self._partial[self._filled : self._filled + used] = view[:used]
            self._filled += used
            view = view[used:]
            if self._filled == self.announced:
                self._complete(messages)
        return messages

    def _begin(self, size: int) -> None:
        # Not zeroed: what a client only announces takes no memory until it comes.
        self.announced, self._filled, self._partial = size, 0, np.empty(size, np.uint8).data

    def _complete(self, messages: list[bytes]) -> None:
        whole = self._partial
        size = self._whole_size(whole)
        if size > len(whole):  # it was the prefix that was not complete
            self._begin(size)
            self._partial[:PREFIX_BYTES] = whole
            self._filled = PREFIX_BYTES
        else:
            self.announced, self._partial = 0, memoryview(b"")
            messages.append(self._message(whole))

    def _message(self, whole: memoryview) -> bytes:
        message = bytes(whole[PREFIX_BYTES:])
        return self._inflated(message) if whole[0] else message

    def _whole_size(self, begun: memoryview) -> int:
        """Size of the message that begins there, with its prefix; of the prefix alone while that is not complete."""
        if begun[0] > 1:
            raise CallRefused(Status.INTERNAL, f"the body is not framed as gRPC messages: flag {begun[0]}")
        if len(begun) < PREFIX_BYTES:
            return PREFIX_BYTES
        size = int.from_bytes(begun[1:PREFIX_BYTES], "big")
        if size > self._limit:
            raise too_large(size, self._limit)
        return PREFIX_BYTES + size

    def _inflated(self, message: bytes) -> bytes:
        name = self._name
        if name not in _INFLATED:
            if name == b"identity":
                raise CallRefused(Status.INTERNAL, "a message is compressed, and no grpc-encoding says how")
            shown = name[:40].decode("ascii", "backslashreplace")
            offer = (("grpc-accept-encoding", ACCEPTED),)
            raise CallRefused(Status.UNIMPLEMENTED, f"grpc-encoding '{shown}' is not supported: gzip, deflate", offer)
        try:
            return encoding.inflate(message, name, self._limit)
        except encoding.BadEncoding as problem:
            full = problem.rejection.status == 413
            status = Status.RESOURCE_EXHAUSTED if full else Status.INTERNAL
            raise CallRefused(status, problem.rejection.message) from None


def only_message(data: bytes) -> bytes | None:
    """The message of a body that is one, uncompressed and in one piece, as nearly all are."""
    if len(data) < PREFIX_BYTES or data[0] or int.from_bytes(data[1:PREFIX_BYTES], "big") != len(data) - PREFIX_BYTES:
        return None
    return data[PREFIX_BYTES:]


def framed(message: Answer) -> list[bytes]:
    """A message behind its prefix, in one piece, or in two where joining them is dearer than another frame."""
    if isinstance(message, list):
        size = sum(len(piece) for piece in message)
        return [b"".join([b"\0", size.to_bytes(4, "big"), *message])]
    prefix = b"\0" + len(message).to_bytes(4, "big")
    return [prefix + message] if len(message) < _JOINED_BYTES else [prefix, message]


def too_large(size: int, limit: int) -> CallRefused:
    """The refusal of a message over the limit."""
    return CallRefused(Status.RESOURCE_EXHAUSTED, f"the message has {size} bytes; the limit is {limit}")


def percent_encoded(text: str) -> bytes:
    """A status message as `grpc-message` carries it: visible ASCII as it is, the rest of UTF-8 as %XX."""
    raw = text.encode("utf-8", "replace")
    if raw.isascii() and text.isprintable() and b"%" not in raw:
        return raw
    return b"".join(b"%c" % byte if 0x20 <= byte < 0x7F and byte != 0x25 else b"%%%02X" % byte for byte in raw)
