"""How do arrays travel in TensorFlow's message TensorProto?

Rules:
- A tensor is its bytes, `tensor_content`, or values in the field of its type. Fewer values than elements: the last one
  stands for the rest; none at all: zeros. More are refused.
- Types are strict: the signature's.
- What is written has values in the field of its type: many clients read nothing else.
- Numbers of fixed size lie in a packed field as in memory, so neither way makes a Python object for each of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import numpy as np

from paceline.core.errors import InvalidRequest, RequestTooLarge, SignatureMismatch
from paceline.core.tensors import Array, DataType, TensorSpec
from paceline.server.messages import message, varint
from paceline.server.protocols.oip_binary import view
from paceline.server.protocols.tfs_faults import type_name

_TENSOR: Final = message("tensorflow.TensorProto")
_LENGTH_DELIMITED: Final = 2
_POINTER_BYTES: Final = 8
# Below this the numbers are taken one by one, in less time.
_FEW: Final = 48
_MOST_KNOWN_SHAPES: Final = 1024


class _Form(NamedTuple):
    """How a datatype is written.

    Attributes:
        number: in the enumeration `tensorflow.DataType`.
        field: that holds the values.
        wide: the array type of that field's values.
    """

    number: int
    field: str
    wide: np.dtype[Any]

    @property
    def tag(self) -> bytes:
        """What stands before the packed values."""
        return varint(_TENSOR.DESCRIPTOR.fields_by_name[self.field].number << 3 | _LENGTH_DELIMITED)


def _form(name: str, field: str, code: str) -> _Form:
    return _Form(
        _TENSOR.DESCRIPTOR.fields_by_name["dtype"].enum_type.values_by_name[name].number, field, np.dtype(code)
    )


_FORMS: Final[Mapping[DataType, _Form]] = {
    DataType.FP32: _form("DT_FLOAT", "float_val", "<f4"),
    DataType.FP64: _form("DT_DOUBLE", "double_val", "<f8"),
    DataType.INT8: _form("DT_INT8", "int_val", "<i4"),
    DataType.INT16: _form("DT_INT16", "int_val", "<i4"),
    DataType.INT32: _form("DT_INT32", "int_val", "<i4"),
    DataType.INT64: _form("DT_INT64", "int64_val", "<i8"),
    DataType.UINT8: _form("DT_UINT8", "int_val", "<i4"),
    DataType.UINT16: _form("DT_UINT16", "int_val", "<i4"),
    DataType.UINT32: _form("DT_UINT32", "uint32_val", "<u4"),
    DataType.UINT64: _form("DT_UINT64", "uint64_val", "<u8"),
    DataType.BOOL: _form("DT_BOOL", "bool_val", "?"),
    DataType.FP16: _form("DT_HALF", "half_val", "<i4"),
    DataType.BF16: _form("DT_BFLOAT16", "half_val", "<i4"),
    DataType.BYTES: _form("DT_STRING", "string_val", "O"),
}
_NAMES: Final = {form.number: type_name(datatype) for datatype, form in _FORMS.items()}
_TAGS: Final = {form.field: form.tag for form in _FORMS.values()}
# Packed, these are the bytes of the array.
_AS_IN_MEMORY: Final = (DataType.FP32, DataType.FP64, DataType.BOOL)
_HALVES: Final = (DataType.FP16, DataType.BF16)


def to_array(tensor: Any, spec: TensorSpec, limit_bytes: int) -> Array:
    """The array that a TensorProto describes.

    Args:
        limit_bytes: of a tensor that is larger than its message.

    Raises:
        InvalidRequest: it is of another type, or its size does not fit its shape.
        RequestTooLarge: it is over the limit.
    """
    form = _FORMS[spec.datatype]
    if tensor.dtype != form.number:
        came = _NAMES.get(tensor.dtype, f"type {tensor.dtype}")
        raise SignatureMismatch(f"Expects input '{spec.name}' to be {type_name(spec.datatype)} but {came} is provided")
    shape = _shape(tensor.tensor_shape, spec)
    count = math.prod(shape)
    content = tensor.tensor_content
    flat = _from_content(content, spec, count) if content else _from_values(tensor, spec, form, count, limit_bytes)
    try:
        return flat.reshape(shape)
    except ValueError as error:  # sizes beyond the address space, beside one of 0
        raise _invalid_shape(spec, shape) from error


def narrowed(wide: Array, spec: TensorSpec) -> Array:
    """Whole numbers in the type of the input.

    Raises:
        SignatureMismatch: one is out of its range.
    """
    dtype = spec.datatype.dtype
    if wide.dtype == dtype:
        return wide
    limits = np.iinfo(dtype)
    if wide.size and (wide.min() < limits.min or wide.max() > limits.max):
        raise SignatureMismatch(
            f"input '{spec.name}': a value is out of range for {type_name(spec.datatype)}: {limits.min} to {limits.max}"
        )
    return wide.astype(dtype)


class TensorWriter:
    """Writes the arrays of one output, as entries of the map `outputs` of a response."""

    def __init__(self, spec: TensorSpec) -> None:
        self._spec = spec
        self._form = _FORMS[spec.datatype]
        name = spec.name.encode()
        self._key = b"\x0a%b%b\x12" % (varint(len(name)), name)
        self._heads: dict[tuple[int, ...], bytes] = {}

    def entry(self, array: Array) -> bytes:
        """The entry for an array."""
        head, values = self._head(array.shape), self._values(array)
        tensor_length = len(head) + len(values)
        key, length = self._key, varint(tensor_length)
        return b"%b%b%b%b%b" % (varint(len(key) + len(length) + tensor_length), key, length, head, values)

    def _head(self, shape: tuple[int, ...]) -> bytes:
        heads = self._heads
        found = heads.get(shape)
        if found is None:
            if len(heads) >= _MOST_KNOWN_SHAPES:
                heads.clear()
            described = {"dim": [{"size": size} for size in shape]}
            found = _TENSOR(dtype=self._form.number, tensor_shape=described).SerializeToString()
            heads[shape] = found
        return found

    def _values(self, array: Array) -> bytes:
        datatype, field = self._spec.datatype, self._form.field
        if datatype in _AS_IN_MEMORY:
            data = array.tobytes()
            return b"%b%b%b" % (_TAGS[field], varint(len(data)), data) if data else b""
        if datatype is DataType.BYTES:
            items = [item if isinstance(item, bytes) else str(item).encode() for item in array.ravel().tolist()]
        else:
            items = (array.view(np.uint16) if datatype in _HALVES else array).ravel().tolist()
        written: bytes = _TENSOR(**{field: items}).SerializeToString()
        return written


def _shape(proto: Any, spec: TensorSpec) -> tuple[int, ...]:
    shape = tuple([dim.size for dim in proto.dim])
    if proto.unknown_rank or (shape and min(shape) < 0):
        raise _invalid_shape(spec, shape)
    return shape


def _invalid_shape(spec: TensorSpec, shape: tuple[int, ...]) -> SignatureMismatch:
    shown = ",".join(map(str, shape[:8]))
    return SignatureMismatch(f"input '{spec.name}' has no valid tensor_shape: [{shown}{',...' if shape[8:] else ''}]")


def _from_content(content: bytes, spec: TensorSpec, count: int) -> Array:
    if spec.datatype is DataType.BYTES:
        raise InvalidRequest(f"input '{spec.name}': strings travel in string_val, not in tensor_content")
    expected = count * spec.datatype.itemsize_bytes
    if len(content) != expected:
        raise SignatureMismatch(
            f"input '{spec.name}': tensor_content has {len(content)} bytes, its tensor_shape needs {expected}"
        )
    return view(content, spec, count, 0)


def _from_values(tensor: Any, spec: TensorSpec, form: _Form, count: int, limit_bytes: int) -> Array:
    values = getattr(tensor, form.field)
    came = len(values)
    if came > count:
        raise SignatureMismatch(f"input '{spec.name}': {form.field} has {came} values, its tensor_shape needs {count}")
    if came < count and count * (spec.datatype.itemsize_bytes or _POINTER_BYTES) > limit_bytes:
        raise RequestTooLarge(f"input '{spec.name}': {count} elements are more than the {limit_bytes} bytes of a body")
    flat = _as_asked(_taken(tensor, values, form), spec)
    return flat if came == count else _filled_up(flat, count)


def _taken(tensor: Any, values: Any, form: _Form) -> Array:
    """The values of the field as they are."""
    count = len(values)
    if form.wide.kind == "O":
        strings = np.empty(count, object)
        strings[:] = list(values)
        return strings
    if form.wide.kind == "f" and count > _FEW:
        return _unpacked(tensor, values, form)
    return np.fromiter(values, form.wide, count)


def _as_asked(wide: Array, spec: TensorSpec) -> Array:
    """The values in the type of the input."""
    if spec.datatype in _HALVES:
        return _halves(wide, spec)
    return narrowed(wide, spec) if spec.datatype.is_integer else wide


def _unpacked(tensor: Any, values: Any, form: _Form) -> Array:
    """The numbers of a packed field: they end the message where no field of a higher number follows."""
    data, size = tensor.SerializeToString(), len(values) * form.wide.itemsize
    head, start = _TAGS[form.field] + varint(size), len(data) - size
    if data[start - len(head) : start] != head:
        return np.fromiter(values, form.wide, len(values))
    array = np.frombuffer(data, form.wide, len(values), start)
    return array if array.flags.aligned else array.copy()


def _halves(bits: Array, spec: TensorSpec) -> Array:
    if bits.size and (bits.min() < 0 or bits.max() > np.iinfo(np.uint16).max):
        raise SignatureMismatch(f"input '{spec.name}': half_val holds bit patterns from 0 to 65535")
    return bits.astype("<u2").view(spec.datatype.dtype)


def _filled_up(flat: Array, count: int) -> Array:
    filled = np.empty(count, flat.dtype)
    zero = b"" if flat.dtype.kind == "O" else 0
    filled[: len(flat)] = flat
    filled[len(flat) :] = flat[-1] if len(flat) else zero
    return filled
