"""What passes between the server and a worker?

A frame is a head of four little-endian 32-bit integers, and a body: magic, kind, call, length of the body in bytes.
A worker in any language can read that.

server -> worker
    SETUP    JSON: `Setup`                        once, after HELLO
    RUN      a batch                              `call` tells the batches apart
    CANCEL   nothing                              nobody waits for this call any more
    PAUSE    nothing                              whom this call's parts go to does not read: make no more of them
    RESUME   nothing                              go on
worker -> server
    HELLO    JSON: `About`                        the code is imported, and was recognised
    READY    JSON: `Readiness`                    it is initialised: batches may come
    FATAL    JSON: `Trouble`                      it cannot serve; the worker ends
    RESULT   the outputs of a batch               ends the call
    FAILED   JSON: `Trouble`                      ends the call: the code raised
    PART     bytes                                a piece of a streamed answer

Rules:
- A worker that finds its channel closed ends.
- No frame holds a pickle. A length that is negative or absurd ends the channel.
- The bodies of RUN and RESULT belong to the language: `tensors.py` for Python, `r/columns.py` for R.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np

from paceline.core.errors import PacelineError

HEAD: Final = struct.Struct("<iiii")
MAGIC: Final = 0x4C454350
MOST_BYTES: Final = 2**31 - 1
STREAM_TOO_LONG: Final = "stream_too_long"
"""Code of an answer in parts that are too long for one list: they have all been sent, and were not kept."""
_ROOM: Final = 64 << 10


class Kind(enum.IntEnum):
    """What a frame means."""

    SETUP = 1
    RUN = 2
    CANCEL = 3
    PAUSE = 4
    RESUME = 5
    HELLO = 16
    READY = 17
    FATAL = 18
    RESULT = 19
    FAILED = 20
    PART = 21


class Setup(msgspec.Struct):
    """What a worker has to know before it initialises.

    Attributes:
        threads: cores that it may compute with.
        fetch_concurrency: most calls of `fetch` at once.
        max_batch_rows: most rows that may be predicted together; None: any number.
        nonfinite: NaN or infinity in a prediction: `error` fails its item, `null` and `string` are written instead.
    """

    threads: int
    fetch_concurrency: int = 64
    max_batch_rows: int | None = None
    nonfinite: str = "error"


class Tensor(msgspec.Struct):
    """A tensor of a signature, as in `TensorSpec`."""

    name: str
    datatype: str
    shape: list[int]
    labels: list[str] = []


class About(msgspec.Struct):
    """What a worker has recognised in the code it was given.

    Attributes:
        platform: for Open Inference clients, such as `python` or `r`.
        says: what was recognised, for people, a line each.
        lanes: how many batches it takes at once: more than one only where it waits for others (`fetch`, streams).
        streams: answers come in parts.
        inputs, outputs: tensors; without inputs it takes items of JSON.
        deterministic: equal items have equal predictions.
        max_batch_rows: most rows of a batch, where the code says so.
        routes: further addresses that the code's kind of contract is served on: `score`, `execute`.
        raw: the item is a whole HTTP request.
        tables: how many tables a call takes at most, where it takes tables (`execute`).
        parameters: a call takes named parameters as well.
    """

    platform: str = "python"
    says: list[str] = []
    lanes: int = 1
    streams: bool = False
    inputs: list[Tensor] = []
    outputs: list[Tensor] = []
    deterministic: bool = True
    max_batch_rows: int | None = None
    routes: list[str] = []
    raw: bool = False
    tables: int = 0
    parameters: bool = False


class Readiness(msgspec.Struct):
    """What a worker knows once it is initialised.

    Attributes:
        examples: items that the code says are good.
        inputs, outputs: tensors that only the initialised code knew.
    """

    examples: list[msgspec.Raw] = []
    inputs: list[Tensor] = []
    outputs: list[Tensor] = []


class Trouble(msgspec.Struct):
    """What went wrong in a worker.

    Attributes:
        message: one line.
        detail: the frames of the user's own code, and what they raised.
        code: of the error: `model_failed`, `bad_model_output`, `invalid_item`, `model_load_error`, ...
    """

    message: str
    detail: str = ""
    hint: str | None = None
    code: str = "model_failed"


class Frame(NamedTuple):
    """One frame, taken apart."""

    kind: Kind
    call: int
    body: memoryview


class BadFrame(PacelineError):
    """What came is no frame: the other side is not to be trusted any more."""


def head(kind: Kind, call: int, length: int) -> bytes:
    """The head of a frame whose body has `length` bytes."""
    if length > MOST_BYTES:
        raise BadFrame(f"a frame of {length} bytes is too long: at most {MOST_BYTES}")
    return HEAD.pack(MAGIC, kind, call, length)


def parse_head(data: bytes | bytearray | memoryview, offset: int = 0) -> tuple[Kind, int, int]:
    """Kind, call and length of the body.

    Raises:
        BadFrame: it is none.
    """
    magic, kind, call, length = HEAD.unpack_from(data, offset)
    if magic != MAGIC or length < 0:
        raise BadFrame(f"not a frame: {bytes(data[offset : offset + HEAD.size]).hex()}")
    try:
        return Kind(kind), call, length
    except ValueError:
        raise BadFrame(f"a frame of an unknown kind: {kind}") from None


class FrameReader:
    """Cuts a stream of bytes into frames.

    Whoever reads the stream puts what comes into `room()`, and is given the frames by `received`. A long body has
    memory of its own, and is read into it: it is copied no further.
    """

    def __init__(self) -> None:
        self._buffer = memoryview(bytearray(_ROOM))
        self._held = 0
        self._long: tuple[Kind, int] | None = None
        self._body = self._buffer[:0]
        self._filled = 0

    def room(self) -> memoryview:
        """Where the next bytes of the stream go; never empty."""
        return self._buffer[self._held :] if self._long is None else self._body[self._filled :]

    def received(self, count: int) -> list[Frame]:
        """The frames that are complete, now that `count` bytes have been put into `room()`.

        Raises:
            BadFrame: the stream is none of ours.
        """
        if self._long is None:
            self._held += count
            return self._cut()
        self._filled += count
        return [self._finished()] if self._filled == len(self._body) else []

    def feed(self, data: bytes | memoryview) -> Iterator[Frame]:
        """The frames that `data` completes, for those who have it in memory of their own.

        Raises:
            BadFrame: the stream is none of ours.
        """
        at = 0
        while at < len(data):
            room = self.room()
            count = min(len(room), len(data) - at)
            room[:count] = data[at : at + count]
            at += count
            yield from self.received(count)

    def _cut(self) -> list[Frame]:
        buffer, held, at = self._buffer, self._held, 0
        frames: list[Frame] = []
        while held - at >= HEAD.size:
            kind, call, length = parse_head(buffer, at)
            body = at + HEAD.size
            at = body + length
            if at > held:
                if at - body > _ROOM - HEAD.size:
                    self._begin_long(kind, call, length, buffer[body:held])
                    self._held = 0
                    return frames
                at = body - HEAD.size
                break
            frames.append(Frame(kind, call, memoryview(bytes(buffer[body:at]))))
        if at:
            buffer[: held - at] = buffer[at:held]
        self._held = held - at
        return frames

    def _begin_long(self, kind: Kind, call: int, length: int, begun: memoryview) -> None:
        try:
            # Memory that nobody has touched takes none: a length alone costs nothing.
            self._body = np.empty(length, np.uint8).data
        except MemoryError:
            raise BadFrame(f"a frame of {length} bytes, and no memory for it") from None
        self._long = kind, call
        self._filled = len(begun)
        self._body[: self._filled] = begun

    def _finished(self) -> Frame:
        assert self._long is not None
        frame = Frame(*self._long, self._body)
        self._long, self._body = None, self._buffer[:0]
        return frame


def encode(document: msgspec.Struct) -> bytes:
    """The JSON of one of the structures above."""
    return msgspec.json.encode(document)


def decode(body: memoryview, kind: Any) -> Any:
    """One of the structures above.

    Raises:
        BadFrame: it is none.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadFrame(f"{kind.__name__}: {error}") from None
