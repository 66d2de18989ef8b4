"""The binary tensor extension: tensors as raw bytes behind the JSON of a request or a response.

Rules:
- The header `Inference-Header-Content-Length: N` says that the first N bytes of the inflated body are JSON;
  the tensors follow in the order of the JSON, little-endian and row-major, with nothing between them.
- N = 0 is a raw binary request: the whole body is the one input, whose shape follows from its size.
- BYTES elements have their length in four bytes before them, except in a raw binary request.
- A tensor is a view of the body. Only one that starts off its element's alignment is copied: native code may
  assume the alignment.
"""

from __future__ import annotations

import math
import struct
from typing import Final

import numpy as np

from paceline.core.errors import DecodeError, InvalidRequest, SignatureMismatch
from paceline.core.tensors import Array, DataType, Signature, TensorSpec, column
from paceline.server.json_tensors import Bytes

HEADER: Final = b"inference-header-content-length"
OCTETS: Final = b"application/octet-stream"
_HEADER_SHOWN: Final = "Inference-Header-Content-Length"
_MAX_DIGITS: Final = 20
_LENGTH: Final = struct.Struct("<I")


def json_length(value: bytes, body_size: int) -> int:
    """How many bytes of the body are JSON, from the header's value.

    Raises:
        DecodeError: not a number, or not within the body.
    """
    text = value.strip()
    digits = text[1:] if text[:1] == b"-" else text
    shown = text[:40].decode("latin-1")
    if not digits.isdigit():
        raise DecodeError(f"Unable to parse {_HEADER_SHOWN}, got: {shown}")
    if digits is not text or len(digits) > _MAX_DIGITS or int(digits) > body_size:
        raise DecodeError(f"inference header size should be in range (0, {body_size}), got: {shown}")
    return int(digits)


class Blobs:
    """Hands out the tensors behind the JSON, front to back.

    Args:
        at: where in `body` they begin.
        model: its name, for messages.
    """

    __slots__ = ("_at", "_body", "_model", "_size")

    def __init__(self, body: Bytes, at: int, model: str) -> None:
        self._body = body
        self._size = len(body)
        self._at = at
        self._model = model

    def take(self, spec: TensorSpec, count: int, size_bytes: int) -> Array:
        """The next tensor, flat.

        Args:
            spec: the input that it is for.
            count: its elements, by its shape.
            size_bytes: its size, as the request gives it.

        Raises:
            InvalidRequest: too few bytes are left, or the sizes contradict one another.
        """
        start, end = self._at, self._at + size_bytes
        if end > self._size:
            raise DecodeError(
                f"unexpected size for input '{spec.name}', expecting {end - self._size} "
                f"additional bytes for model '{self._model}'"
            )
        self._at = end
        if spec.datatype is DataType.BYTES:
            return column(_strings(memoryview(self._body)[start:end], count, spec.name))
        expected = count * spec.datatype.itemsize_bytes
        if expected != size_bytes:
            raise SignatureMismatch(
                f"input byte size mismatch for input '{spec.name}' for model '{self._model}'. "
                f"Expected {expected}, got {size_bytes}",
                model=self._model,
            )
        return view(self._body, spec, count, start)

    def end(self) -> None:
        """Check that nothing is left.

        Raises:
            DecodeError: bytes remain that belong to no input.
        """
        if self._at != self._size:
            raise DecodeError(f"unexpected additional input data for model '{self._model}'")


def raw_input(body: Bytes, signature: Signature, model: str) -> Array:
    """The input of a raw binary request.

    Raises:
        InvalidRequest: the model has several inputs, or the shape does not follow from the size.
    """
    if len(signature.inputs) != 1:
        raise InvalidRequest(
            f"a raw binary request must only have 1 input, but model '{model}' has {len(signature.inputs)}",
            model=model,
        )
    spec = signature.inputs[0]
    if spec.datatype is DataType.BYTES:
        return _raw_string(body, spec, model)
    shape = list(spec.shape)
    if signature.batched and shape.count(-1) == 2 and shape[0] == -1:
        shape[0] = 1
    if shape.count(-1) > 1:
        raise InvalidRequest(
            f"the shape of the raw input '{spec.name}' can not be deduced: "
            f"model '{model}' has more than one variable dimension",
            model=model,
        )
    fixed_bytes = math.prod(size for size in shape if size != -1) * spec.datatype.itemsize_bytes
    if -1 in shape and fixed_bytes:
        shape[shape.index(-1)] = len(body) // fixed_bytes
    expected = math.prod(shape) * spec.datatype.itemsize_bytes
    if expected != len(body):
        raise SignatureMismatch(
            f"input byte size mismatch for input '{spec.name}' for model '{model}'. "
            f"Expected {expected}, got {len(body)}",
            model=model,
        )
    return view(body, spec, math.prod(shape), 0).reshape(shape)


def to_bytes(array: Array) -> bytes | memoryview:
    """A tensor as it goes over the wire; numbers without a copy."""
    if array.dtype.kind == "O":
        return _packed(array)
    octets: memoryview = array.reshape(-1).view(np.uint8).data
    return octets


def view(body: Bytes, spec: TensorSpec, count: int, start: int) -> Array:
    """The numbers that lie there, flat.

    Raises:
        SignatureMismatch: an element is no value of its datatype.
    """
    dtype = spec.datatype.dtype
    if count == 0:
        return np.empty(0, dtype)
    array = np.frombuffer(body, dtype, count, start)
    if spec.datatype is DataType.BOOL and array.view(np.uint8).max() > 1:
        raise SignatureMismatch(f"input '{spec.name}': a BOOL element is neither 0 nor 1")
    return array if array.flags.aligned else array.copy()


def _raw_string(body: Bytes, spec: TensorSpec, model: str) -> Array:
    if any(size not in (1, -1) for size in spec.shape):
        raise InvalidRequest(
            f"for the BYTES raw input '{spec.name}', model '{model}' must have input shape [1]", model=model
        )
    return column([bytes(body)]).reshape((1,) * len(spec.shape))


def _strings(data: memoryview, count: int, name: str) -> list[bytes]:
    found: list[bytes] = []
    at, size = 0, len(data)
    while at < size:
        start = at + 4
        if start > size:
            raise DecodeError(f"incomplete string length indicator for inference input '{name}', expecting 4 bytes")
        at = start + _LENGTH.unpack_from(data, start - 4)[0]
        if at > size:
            raise DecodeError(
                f"incomplete string data for inference input '{name}', "
                f"expecting string of length {at - start} but only {size - start} bytes available"
            )
        found.append(bytes(data[start:at]))
    if len(found) != count:
        raise SignatureMismatch(
            f"unexpected number of string elements {len(found)} for inference input '{name}', expecting {count}"
        )
    return found


def _packed(array: Array) -> bytes:
    pieces: list[bytes] = []
    for item in array.ravel().tolist():
        data = item if isinstance(item, bytes) else str(item).encode()
        pieces += (_LENGTH.pack(len(data)), data)
    return b"".join(pieces)
