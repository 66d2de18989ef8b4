"""JSON values to arrays and back, typed by the model's signature.

Rules:
- Elements must have the signature's kind: no bool or string for a number, no fraction for an integer, no null.
- An integer outside its type and a float outside its type are errors; nothing wraps or becomes infinite silently.
- Floats are written with the fewest digits that give the same float32 (or float64) back.
- JSON cannot carry NaN and infinity: `null` and `string` write them as such, where the operator chose so; `bare`
  writes the tokens that TensorFlow Serving writes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import cache
from typing import Any, NoReturn

import msgspec
import numpy as np
import orjson

from paceline.core.errors import DecodeError, Detail, InvalidRequest, SignatureMismatch
from paceline.core.tensors import Array, DataType, TensorSpec

Bytes = bytes | bytearray | memoryview
_AT = re.compile(r" - at `\$?(.*)`$")
_OFFSET = re.compile(r"\(byte (\d+)\)")
_TOKENS = {
    "string": (b'"NaN"', b'"Infinity"', b'"-Infinity"'),
    "bare": (b"NaN", b"Infinity", b"-Infinity"),
}
# ONNX Runtime's integers are C's long long, which orjson does not know.
_LONG_LONG = {"q": np.dtype(np.int64), "Q": np.dtype(np.uint64)}


def element_type(datatype: DataType) -> type:
    """The Python type that JSON elements of a datatype must have."""
    if datatype is DataType.BOOL:
        return bool
    if datatype is DataType.BYTES:
        return str
    return float if datatype.is_float else int


@cache
def nested(element: Any, rank: int) -> Any:
    """`list[list[...[element]]]`, `rank` deep: a type that msgspec decodes and checks in one pass."""
    for _ in range(rank):
        element = list[element]
    return element


@cache
def decoder(element: Any, rank: int) -> msgspec.json.Decoder[Any]:
    """A decoder of nested lists of that rank."""
    return msgspec.json.Decoder(nested(element, rank))


def object_type(name: str, fields: Sequence[tuple[str, Any]], **options: Any) -> Any:
    """A type for objects with these keys, decoded to their values in this order.

    Args:
        options: for msgspec, such as `forbid_unknown_fields`.
    """
    names = [f"field_{index}" for index in range(len(fields))]
    return msgspec.defstruct(
        name,
        [(each, kind) for each, (_, kind) in zip(names, fields, strict=True)],
        rename=dict(zip(names, (key for key, _ in fields), strict=True)),
        **options,
    )


def decode(body: Bytes, kind: msgspec.json.Decoder[Any], where: str = "") -> Any:
    """Decode JSON, with the path or the byte offset of what is wrong in the error.

    Raises:
        DecodeError: not JSON.
        SignatureMismatch: JSON, but of another type than expected.
    """
    try:
        return kind.decode(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise_decode_error(error, body, where)


def raise_decode_error(error: Exception, body: Bytes, where: str = "") -> NoReturn:
    """Turn a decoder's exception into ours."""
    if isinstance(error, RecursionError):
        raise DecodeError("the JSON is nested too deeply") from error
    if isinstance(error, msgspec.ValidationError):
        text = str(error)
        at = _AT.search(text)
        path = (where + (at.group(1) if at else "")).removeprefix(".")
        message = text[: at.start()] if at else text
        shown = path or "the body"
        raise SignatureMismatch(f"{shown}: {message}", details=[Detail(path, message)]) from error
    if isinstance(error, UnicodeDecodeError):
        raise DecodeError(f"the body is not valid UTF-8 at byte {_first_not_utf8(body)}") from error
    if not len(body):
        raise DecodeError("the body is empty: expected JSON (byte 0)") from error
    if _OFFSET.search(str(error)):
        raise DecodeError(str(error)) from error
    raise DecodeError(f"{error} (byte {len(body)})") from error


def _first_not_utf8(body: Bytes) -> int:
    """Offset in the body; the decoder counts from the start of the string that it was reading."""
    try:
        str(body, "utf-8")
    except UnicodeDecodeError as error:
        return error.start
    return 0


def to_array(value: Any, spec: TensorSpec, shape_rank: int, where: str) -> Array:
    """Make an array of decoded nested lists.

    Args:
        shape_rank: rank that the array must have.
        where: path of the value in the request.

    Raises:
        SignatureMismatch: ragged, or an element is outside the datatype's range.
    """
    datatype = spec.datatype
    if datatype is DataType.BF16:
        raise InvalidRequest(
            f"receiving BF16 data via JSON is not supported. Please use the binary data format for input '{spec.name}'"
        )
    try:
        array = np.array(value, datatype.dtype)
    except OverflowError as error:
        raise _mismatch(where, f"a value is outside the range of {datatype.label}") from error
    except ValueError as error:
        raise _mismatch(*_ragged(value, spec, where)) from error
    if array.ndim != shape_rank:
        raise _mismatch(*_ragged(value, spec, where))
    if datatype.is_float and not math.isfinite(np.vdot(array, array)) and not np.isfinite(array).all():
        raise _mismatch(where, f"a value is outside the range of {datatype.label}")
    return array


def to_json(array: Array, nonfinite: str = "error") -> Any:
    """What `dumps` can write: the array itself where orjson reads it.

    Args:
        nonfinite: `string` and `bare` write NaN and infinity as such, anything else as null.
    """
    kind = array.dtype.kind
    if kind == "O":
        return _text(array.tolist())
    if kind == "f" and nonfinite in _TOKENS and not np.isfinite(array).all():
        return _with_tokens(array, _TOKENS[nonfinite])
    if array.dtype.char in _LONG_LONG:
        array = array.view(_LONG_LONG[array.dtype.char])
    if not array.flags.c_contiguous:
        return np.ascontiguousarray(array)
    return array


def elements(array: Array, nonfinite: str = "error") -> list[Any]:
    """What `dumps` can write for each element along axis 0."""
    if array.dtype.kind == "O":
        texts: list[Any] = _text(array.tolist())
        return texts
    if array.ndim > 1:
        return [to_json(row, nonfinite) for row in array]
    # By way of text: a Python float would lose the digits of its type, and arrays without axes are slow.
    text = dumps(to_json(array, nonfinite))
    return [orjson.Fragment(each) for each in text[1:-1].split(b",")] if array.size else []


def dumps(value: Any) -> bytes:
    """Compact JSON of values that may hold arrays."""
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY, default=_unsupported)


def _unsupported(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        # Without axes: a scalar keeps the digits of its type, which a Python float would not.
        return value[()] if not value.ndim and value.dtype.kind == "f" else _text(value.tolist())
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(type(value).__name__)


def _text(value: Any) -> Any:
    if isinstance(value, list):
        return [_text(item) for item in value]
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _with_tokens(array: Array, tokens: tuple[bytes, bytes, bytes]) -> orjson.Fragment:
    """JSON of an array with tokens for NaN, infinity and its negative where orjson writes null."""
    nan, positive, negative = tokens
    bad = iter(array[~np.isfinite(array)].tolist())

    def token(_: re.Match[bytes]) -> bytes:
        value = next(bad)
        return nan if value != value else positive if value > 0 else negative

    return orjson.Fragment(re.sub(b"null", token, dumps(np.ascontiguousarray(array) if array.ndim else array)))


def _mismatch(where: str, message: str) -> SignatureMismatch:
    return SignatureMismatch(f"{where}: {message}" if where else message, details=[Detail(where, message)])


def _ragged(value: Any, spec: TensorSpec, where: str) -> tuple[str, str]:
    """Path and description of the first list whose length differs from its brothers'."""
    found = _first_odd(value, where)
    return found or (where, f"lists of unequal length for input '{spec.name}'")


def _first_odd(value: Any, where: str) -> tuple[str, str] | None:
    if not isinstance(value, list) or not value or not isinstance(value[0], list):
        return None
    for index, item in enumerate(value):
        if isinstance(item, list) and len(item) != len(value[0]):
            return f"{where}[{index}]", f"expected {len(value[0])} values, got {len(item)}"
    for index, item in enumerate(value):
        if (found := _first_odd(item, f"{where}[{index}]")) is not None:
            return found
    return None
