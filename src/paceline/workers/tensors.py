"""How does a batch travel to a Python worker, and its outputs back?

Body of RUN and RESULT: the length of the header as a 32-bit integer, the header (MessagePack, `_Header`), padding
up to a multiple of 64 bytes, and the tensors one after the other, each padded likewise.

Rules:
- Numbers travel as they lie in memory. BYTES tensors are their lengths (32 bits each), then the bytes.
- From `LARGE_BYTES` on a tensor does not travel at all: it lies in memory that both sides have mapped, one
  `Arena` for each direction.
- What a worker gets lies in that memory or in the frame: it is read-only, and valid until the call ends.
- A row that failed on its own has its error in the header.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np

from paceline.core.errors import InvalidRequest, ModelFailed, PacelineError
from paceline.core.tensors import DATATYPES, Array, DataType, Tensors
from paceline.workers.frames import BadFrame

LARGE_BYTES: Final = 256 << 10
_ALIGN: Final = 64
_INLINE: Final = -1
_GROWTH: Final = 1 << 20

Buffer = bytes | memoryview


class RowError(msgspec.Struct, array_like=True):
    """A row that failed alone."""

    row: int
    code: str
    message: str
    detail: str = ""

    def error(self) -> PacelineError:
        """What its client gets."""
        if self.code == "invalid_item":
            return InvalidRequest(self.message)
        return ModelFailed(self.message, code=self.code, detail=self.detail or None)


class _Placed(msgspec.Struct, array_like=True):
    """A tensor. `at` is its offset in the arena; -1: it follows in the frame."""

    datatype: str
    shape: list[int]
    size_bytes: int
    at: int = _INLINE


class _Header(msgspec.Struct, array_like=True):
    tensors: list[_Placed]
    failed: list[RowError] = []


_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(_Header)
_LABELS: Final = {
    datatype.dtype: datatype.label for datatype in DATATYPES.values() if datatype not in (DataType.BF16, DataType.BYTES)
}


class Arena:
    """Memory that two processes have mapped; one writes, the other reads.

    It grows on demand and never shrinks. The reader maps more as soon as it is told of an offset behind its end.

    Args:
        descriptor: of anonymous memory (`memfd_create`); inherited by the worker.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._map: mmap.mmap | None = None

    @classmethod
    def new(cls) -> Arena:
        """An arena of its own memory."""
        return cls(os.memfd_create("paceline", os.MFD_CLOEXEC))

    def writable(self, size_bytes: int) -> memoryview:
        """The first `size_bytes` bytes, to write into."""
        if self._map is None or len(self._map) < size_bytes:
            size = -(-size_bytes // _GROWTH) * _GROWTH
            os.ftruncate(self.descriptor, size)
            self._map = mmap.mmap(self.descriptor, size)
        return memoryview(self._map)[:size_bytes]

    def read(self, at: int, size_bytes: int) -> memoryview:
        """Some bytes that the other side has written.

        Raises:
            BadFrame: there are none.
        """
        end = at + size_bytes
        if at < 0 or size_bytes < 0 or end > os.fstat(self.descriptor).st_size:
            raise BadFrame(f"a tensor at {at} with {size_bytes} bytes lies outside the shared memory")
        if self._map is None or len(self._map) < end:
            self._map = mmap.mmap(self.descriptor, os.fstat(self.descriptor).st_size, access=mmap.ACCESS_READ)
        return memoryview(self._map)[at:end]

    def close(self) -> None:
        """Let go of the memory; views that are left keep it."""
        self._map = None
        os.close(self.descriptor)


def encode(tensors: Sequence[Array], arena: Arena | None = None, failed: Sequence[RowError] = ()) -> list[Buffer]:
    """The body of a frame, in pieces.

    Args:
        arena: where large tensors go; None: they travel.
    """
    pieces = [_bytes_of(tensor) for tensor in tensors]
    placed = [
        _Placed(_label(tensor), list(tensor.shape), len(piece)) for tensor, piece in zip(tensors, pieces, strict=True)
    ]
    inline = list(pieces)
    if arena is not None:
        inline = _place(placed, pieces, arena)
    header = _ENCODER.encode(_Header(placed, list(failed)))
    start = len(header).to_bytes(4, "little") + header
    body: list[Buffer] = [start.ljust(_padded(len(start)), b"\0")]
    for piece in inline:
        body.append(piece)
        if len(piece) % _ALIGN:
            body.append(bytes(_padded(len(piece)) - len(piece)))
    return body


def decode(body: memoryview, arena: Arena | None = None) -> tuple[Tensors, list[RowError]]:
    """The tensors of a body, as views wherever possible, and the rows that failed.

    Raises:
        BadFrame: it is none.
    """
    try:
        length = int.from_bytes(body[:4], "little")
        header = _DECODER.decode(body[4 : 4 + length])
        at = _padded(4 + length)
        tensors = []
        for each in header.tensors:
            if each.at == _INLINE:
                data = body[at : at + each.size_bytes]
                at += _padded(each.size_bytes)
            elif arena is None:
                raise BadFrame("a tensor in shared memory, and there is none")
            else:
                data = arena.read(each.at, each.size_bytes)
            tensors.append(_array(each, data))
        return tuple(tensors), header.failed
    except (msgspec.MsgspecError, ValueError, KeyError) as error:
        raise BadFrame(f"a batch that cannot be read: {error}") from None


def _place(placed: list[_Placed], pieces: list[Buffer], arena: Arena) -> list[Buffer]:
    """Put the large pieces into the arena; those that are left."""
    size = 0
    for each in placed:
        if each.size_bytes >= LARGE_BYTES:
            each.at = size
            size += _padded(each.size_bytes)
    if size:
        memory = np.frombuffer(arena.writable(size), np.uint8)
        for each, piece in zip(placed, pieces, strict=True):
            if each.at != _INLINE:
                memory[each.at : each.at + each.size_bytes] = np.frombuffer(piece, np.uint8)
    return [piece for each, piece in zip(placed, pieces, strict=True) if each.at == _INLINE]


def _bytes_of(tensor: Array) -> Buffer:
    if tensor.dtype != object:
        flat = np.ascontiguousarray(tensor).reshape(-1)
        return flat.view(np.uint8).data if flat.size else b""
    elements = [each.encode() if isinstance(each, str) else each for each in tensor.reshape(-1).tolist()]
    lengths = np.array([len(each) for each in elements], "<u4")
    return b"".join([lengths.tobytes(), *elements])


def _array(placed: _Placed, data: memoryview) -> Array:
    datatype = DATATYPES[placed.datatype]
    if datatype is not DataType.BYTES:
        array = np.frombuffer(data, datatype.dtype).reshape(placed.shape)
        array.flags.writeable = False
        return array
    count = int(np.prod(placed.shape, dtype=np.int64))
    lengths = np.frombuffer(data[: 4 * count], "<u4").tolist()
    elements = np.empty(count, object)
    at = 4 * count
    for index, length in enumerate(lengths):
        elements[index] = bytes(data[at : at + length])
        at += length
    if at != len(data):
        raise ValueError("lengths that do not add up")
    return elements.reshape(placed.shape)


def _label(tensor: Array) -> str:
    if tensor.dtype == object:
        return "BYTES"
    return _LABELS[tensor.dtype.newbyteorder("<") if tensor.dtype.byteorder == ">" else tensor.dtype]


def _padded(size: int) -> int:
    return -(-size // _ALIGN) * _ALIGN
