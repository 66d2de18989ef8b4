"""From `tensorflow.Example`s to the inputs of a classification or regression: one row per example.

Rules:
- A feature is named like the input. Its kind is the input's: floats, integers (also for booleans), or bytes.
- The values of a feature are flat: they take the shape of a row, of whose sizes one may be open.
- Features of the context belong to every example that has none of that name.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

from paceline.core.errors import InvalidRequest, SignatureMismatch
from paceline.core.tensors import Array, DataType, Signature, Tensors, TensorSpec, column
from paceline.engine.examples import to_bf16
from paceline.server.protocols.tfs_tensors import narrowed

_KINDS: Final = {"float_list": "float", "int64_list": "int64", "bytes_list": "string"}


def to_inputs(proto: Any, signature: Signature, model: str) -> Tensors:
    """The inputs that a message `Input` holds.

    Raises:
        InvalidRequest: it holds none, or they do not fit the signature.
    """
    if not signature.batched:
        raise InvalidRequest(f"model '{model}' has no batch dimension, so it takes no examples: use Predict")
    kind = proto.WhichOneof("kind")
    examples = getattr(proto, kind).examples if kind else ()
    if not examples:
        raise InvalidRequest("Input is empty.")
    context = proto.example_list_with_context.context.features.feature if kind != "example_list" else {}
    rows = [example.features.feature for example in examples]
    return tuple([_column(rows, context, spec) for spec in signature.inputs])


def _column(rows: list[Any], context: Any, spec: TensorSpec) -> Array:
    field = _field(spec.datatype)
    found = []
    for index, row in enumerate(rows):
        feature = row.get(spec.name) or context.get(spec.name)
        kind = feature.WhichOneof("kind") if feature is not None else None
        if feature is None or kind is None:
            raise SignatureMismatch(
                f"Name: <unknown>, Feature: {spec.name} (data type: {_KINDS[field]}) is required "
                f"but could not be found, in example {index}"
            )
        if kind != field:
            raise SignatureMismatch(
                f"Key: {spec.name}.  Data types don't match. Expected type: {_KINDS[field]}, "
                f"got {_KINDS[kind]}, in example {index}"
            )
        found.append(getattr(feature, field).value)
    shape = _row_shape(spec, len(found[0]))
    for index, values in enumerate(found):
        if len(values) != math.prod(shape):
            raise SignatureMismatch(
                f"Key: {spec.name}, Index: {index}.  Number of {_KINDS[field]} values != expected.  "
                f"values size: {len(values)} but output shape: [{','.join(map(str, shape))}]"
            )
    return _array(found, spec).reshape(len(rows), *shape)


def _field(datatype: DataType) -> str:
    if datatype is DataType.BYTES:
        return "bytes_list"
    return "float_list" if datatype.is_float else "int64_list"


def _row_shape(spec: TensorSpec, count: int) -> tuple[int, ...]:
    """The shape of a row; its open size follows from the values of the first."""
    shape = spec.shape[1:]
    if shape.count(-1) > 1:
        raise InvalidRequest(f"input '{spec.name}' has several open dimensions, which no feature tells: use Predict")
    known = math.prod(size for size in shape if size != -1)
    return tuple([count // max(known, 1) if size == -1 else size for size in shape])


def _array(found: list[Any], spec: TensorSpec) -> Array:
    flat = [value for values in found for value in values]
    datatype = spec.datatype
    if datatype is DataType.BYTES:
        return column(flat)
    if datatype is DataType.BF16:
        return to_bf16(np.array(flat, np.float32))
    if datatype.is_float:
        return np.array(flat, datatype.dtype)
    wide = np.array(flat, np.int64)
    if datatype is not DataType.BOOL:
        return narrowed(wide, spec)
    if wide.size and (wide.min() < 0 or wide.max() > 1):
        raise SignatureMismatch(f"Feature: {spec.name}: a boolean is 0 or 1")
    return wide.astype(np.bool_)
