"""How does a batch travel to a Python worker, and its outputs back?

Body of RUN and RESULT: the length of the header as a 32-bit integer, the header (MessagePack, `_Header`), padding
up to a multiple of 64 bytes, and the tensors one after the other, each padded likewise.

Rules:
- Numbers travel as they lie in memory. BYTES tensors are their lengths (32 bits each), then the bytes.
- From `LARGE_BYTES` on a tensor does not travel at all: it lies in memory that both sides have mapped, one
  `Arena` for each direction. An arena holds one message at a time, so there is none where a worker has several calls.
- What a worker gets lies in that memory or in the frame: it is read-only, and valid until the call ends. What the
  server gets is read-only, too, and stays as long as somebody holds it.
- A row that failed on its own has its error in the header.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np

from paceline.core.errors import InvalidRequest, ModelFailed, PacelineError
from paceline.core.tensors import DATATYPES, Array, DataType, Tensors
from paceline.workers.arena import Arena
from paceline.workers.frames import BadFrame

LARGE_BYTES: Final = 256 << 10
_ALIGN: Final = 64
_INLINE: Final = -1

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


def decode(body: memoryview, arena: Arena | None = None, *, lend: bool = False) -> tuple[Tensors, list[RowError]]:
    """The tensors of a body, as views wherever possible, and the rows that failed.

    Args:
        arena: where large tensors are.
        lend: what lies there stays, as long as somebody holds it; otherwise until the next message.

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
                array, base = _array(each, body[at : at + each.size_bytes])
                at += _padded(each.size_bytes)
            elif arena is None:
                raise BadFrame("a tensor in shared memory, and there is none")
            else:
                array, base = _array(each, arena.read(each.at, each.size_bytes))
                if lend and base is not None:
                    arena.lend(each.at, base)
            tensors.append(array)
        return tuple(tensors), header.failed
    except (msgspec.MsgspecError, ValueError, KeyError) as error:
        raise BadFrame(f"a batch that cannot be read: {error}") from None


def _place(placed: list[_Placed], pieces: list[Buffer], arena: Arena) -> list[Buffer]:
    """Put the large pieces into the arena; those that are left."""
    large = [index for index, each in enumerate(placed) if each.size_bytes >= LARGE_BYTES]
    if not large:
        return pieces
    at = arena.place(sum(_padded(placed[index].size_bytes) for index in large))
    if at is None:
        return pieces
    for index in large:
        placed[index].at = at
        at += _padded(placed[index].size_bytes)
    memory = np.frombuffer(arena.writable(at), np.uint8)
    for index in large:
        each = placed[index]
        memory[each.at : each.at + each.size_bytes] = np.frombuffer(pieces[index], np.uint8)
    return [piece for each, piece in zip(placed, pieces, strict=True) if each.at == _INLINE]


def _bytes_of(tensor: Array) -> Buffer:
    if tensor.dtype != object:
        flat = np.ascontiguousarray(tensor).reshape(-1)
        return flat.view(np.uint8).data if flat.size else b""
    elements = [each.encode() if isinstance(each, str) else each for each in tensor.reshape(-1).tolist()]
    lengths = struct.pack(f"<{len(elements)}I", *map(len, elements))
    return b"".join([lengths, *elements])


def _array(placed: _Placed, data: memoryview) -> tuple[Array, Array | None]:
    """The tensor; and the array that all views of `data` refer to, if it is one."""
    datatype = DATATYPES[placed.datatype]
    if datatype is DataType.BYTES:
        return _elements(data.tobytes(), placed.shape), None
    base = np.frombuffer(data, datatype.dtype)
    base.flags.writeable = False
    return base.reshape(placed.shape), base


def _elements(data: bytes, shape: list[int]) -> Array:
    count = math.prod(shape)
    if count < 0 or 4 * count > len(data):
        raise ValueError("more elements than there is room for")
    elements = []
    start = 4 * count
    for length in struct.unpack_from(f"<{count}I", data):
        end = start + length
        elements.append(data[start:end])
        start = end
    if start != len(data):
        raise ValueError("lengths that do not add up")
    array = np.empty(count, object)
    array[:] = elements
    return array.reshape(shape)


def _label(tensor: Array) -> str:
    if tensor.dtype == object:
        return "BYTES"
    return _LABELS[tensor.dtype.newbyteorder("<") if tensor.dtype.byteorder == ">" else tensor.dtype]


def _padded(size: int) -> int:
    return -(-size // _ALIGN) * _ALIGN
