"""What is wrong with a tensor in a TensorFlow Serving request?

The messages are the reference server's, and quote the offending piece of the request up to a bound.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np

from paceline.core.errors import Detail, SignatureMismatch
from paceline.core.tensors import DataType, TensorSpec

_QUOTED_BYTES: Final = 256
_INDEX: Final = re.compile(r"\[(\d+)\]")
_WITHOUT_RANGE: Final = (DataType.BYTES, DataType.BOOL)
_NAMES: Final = {
    DataType.FP16: "half",
    DataType.BF16: "bfloat16",
    DataType.FP32: "float",
    DataType.FP64: "double",
    DataType.BYTES: "string",
}


@dataclass(frozen=True)
class Place:
    """Where in the request a tensor stands.

    Attributes:
        key: `instances`, `inputs` or `examples`.
        name: of the input; empty where the request does not name it.
        in_rows: axis 0 counts the elements of a list.
    """

    key: str
    name: str
    in_rows: bool

    def path(self, indexes: list[int]) -> str:
        """Path of an element in the request."""
        name = f".{self.name}" if self.name else ""
        if not self.in_rows:
            return self.key + name + _brackets(indexes)
        return self.key + _brackets(indexes[:1]) + name + _brackets(indexes[1:])


def type_name(datatype: DataType) -> str:
    """TensorFlow's word for a datatype."""
    return _NAMES.get(datatype, datatype.label.lower())


def json_type(value: Any) -> str:
    """The reference server's word for the type of a JSON value."""
    if value is None:
        return "Null"
    if isinstance(value, bool):
        return str(value)
    for kind, name in ((dict, "Object"), (list, "Array"), (str, "String")):
        if isinstance(value, kind):
            return name
    return "Number"


def fragment(value: Any) -> str:
    """JSON of a value, cut to what fits into a message."""
    text = msgspec.json.encode(value)
    if len(text) <= _QUOTED_BYTES:
        return text.decode()
    return text[: _QUOTED_BYTES - 3].decode(errors="ignore") + "..."


def explain(error: Exception, value: Any, spec: TensorSpec, place: Place) -> SignatureMismatch:
    """The error for a value that does not make a tensor of `spec`.

    Args:
        error: what the decoder or numpy said.
        value: the whole tensor, as decoded.
        spec: the input that it is for.
        place: where the value stands.
    """
    rank = len(spec.shape)
    if isinstance(error, msgspec.ValidationError):
        indexes = [int(index) for index in _INDEX.findall(str(error).rpartition(" - at `")[2])]
        problem = _of_type(_at(value, indexes[:rank]), spec, len(indexes[:rank]) - place.in_rows, place)
    elif (ragged := _first_ragged(value, rank)) is not None:
        indexes, wanted = ragged
        piece = _at(value, indexes)
        problem = (
            f"Encountered list at unexpected size: {len(piece)} at level: {len(indexes) - place.in_rows} "
            f"expected size: {wanted}. JSON Value: {fragment(piece)}"
        )
    else:
        indexes = [] if spec.datatype in _WITHOUT_RANGE else _first_out_of_range(value, spec)
        problem = _of_range(_at(value, indexes), spec)
    prefix = _prefix(indexes, place)
    return SignatureMismatch(prefix + problem, details=[Detail(place.path(indexes), problem)])


def _prefix(indexes: list[int], place: Place) -> str:
    if not place.in_rows or not indexes:
        return f"Input: {place.name}. " if place.name else ""
    key = f" key: {place.name}" if place.name else ""
    return f"Failed to process element: {indexes[0]}{key} of '{place.key}' list. Error: "


def _of_type(piece: Any, spec: TensorSpec, level: int, place: Place) -> str:
    rank = len(spec.shape) - place.in_rows
    if isinstance(piece, list):
        return f"Encountered list at unexpected level: {level} expected < {rank}. JSON Value: {fragment(piece)}"
    if level < rank:
        return (
            f"JSON Value: {fragment(piece)} found at incorrect level: {level} in the JSON DOM. "
            f"Expected at level: {rank}"
        )
    if isinstance(piece, dict) and spec.datatype is DataType.BYTES:
        return f"JSON Value: {fragment(piece)} not formatted correctly for base64 data"
    return _wrong_type(piece, spec)


def _wrong_type(piece: Any, spec: TensorSpec) -> str:
    return f"JSON Value: {fragment(piece)} Type: {json_type(piece)} is not of expected type: {type_name(spec.datatype)}"


def _of_range(piece: Any, spec: TensorSpec) -> str:
    if isinstance(piece, list):
        return f"JSON Value: {fragment(piece)} has no elements. Expected rank: {len(spec.shape)}"
    if spec.datatype.is_float:
        wanted = type_name(spec.datatype)
        return f"Cannot convert JSON value: {fragment(piece)} to {wanted} without loss of precision."
    return _wrong_type(piece, spec)


def _first_ragged(value: Any, rank: int) -> tuple[list[int], int] | None:
    """Indexes of the first list that is not as long as its elder cousins, and how long those are."""
    shape: list[int] = []
    first = value
    for _ in range(rank):
        shape.append(len(first))
        if not first:
            break
        first = first[0]

    def search(piece: list[Any], indexes: list[int]) -> tuple[list[int], int] | None:
        level = len(indexes)
        if len(piece) != shape[level]:
            return indexes, shape[level]
        if level + 1 < len(shape):
            for index, item in enumerate(piece):
                if (found := search(item, [*indexes, index])) is not None:
                    return found
        return None

    return search(value, []) if shape else None


def _first_out_of_range(value: Any, spec: TensorSpec) -> list[int]:
    exact = np.array(value, dtype=object)  # keeps integers of any size
    dtype = spec.datatype.dtype
    limits = np.finfo(dtype) if spec.datatype.is_float else np.iinfo(dtype)
    low, high = int(limits.min), int(limits.max)
    found = np.argwhere(np.asarray((exact < low) | (exact > high), bool))
    return [int(index) for index in found[0]] if len(found) else []


def _at(value: Any, indexes: list[int]) -> Any:
    for index in indexes:
        value = value[index]
    return value


def _brackets(indexes: list[int]) -> str:
    return "".join(f"[{index}]" for index in indexes)
