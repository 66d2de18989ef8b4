"""Inputs to warm a model up with: the user's own where there are some, made from the signature otherwise.

A file of examples is JSON or JSON lines with one item a line, as `/predict` takes it, or a `.npz` of arrays of
shape [rows, ...] named like the inputs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from paceline.core.errors import ConfigError
from paceline.core.tensors import Array, DataType, Signature, Tensors, TensorSpec, column

# Sizes tried for open dimensions behind the batch, until the model runs.
_OPEN_SIZES = (8, 1, 32, 224, 3, 128, 2)
# Kinds of arrays, as numpy names them, that may be given for an input of each kind.
_KINDS = {"b": "b", "i": "iu", "u": "iu", "f": "fiu", "O": "OUS"}


def synthetic(signature: Signature, rows: int) -> Iterator[Tensors]:
    """Inputs that may fit, likeliest first; `rows` is the size of axis 0 when it is open."""
    has_open = any(-1 in spec.shape[1:] for spec in signature.inputs)
    sizes = _OPEN_SIZES if has_open else _OPEN_SIZES[:1]
    # A model may refuse zeros; then all integers are ones, although rows that differ show more.
    for least in (0, 1):
        for size in sizes:
            yield tuple(_values(spec, _filled(spec, rows, size), least) for spec in signature.inputs)


def repeated(inputs: Tensors, rows: int) -> Tensors:
    """`inputs` with exactly `rows` rows, repeating theirs as needed."""
    return tuple(np.ascontiguousarray(np.resize(array, (rows, *array.shape[1:]))) for array in inputs)


def distinct(inputs: Tensors) -> Tensors:
    """`inputs` with rows that differ: a model that mixes them may not show it on equal ones."""
    if any(len(array) > 1 and not np.array_equal(array[0], array[1]) for array in inputs):
        return inputs
    return tuple(_graded(array) if array.dtype.kind == "f" else array for array in inputs)


def to_bf16(values: Array) -> Array:
    """The BF16 bit patterns of float32 numbers, cut off."""
    return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)


def from_file(path: Path, signature: Signature) -> Tensors:
    """Read a file of example inputs.

    Raises:
        ConfigError: it cannot be read, or does not fit the signature.
    """
    try:
        if signature.items:
            return (_json_items(path),)
        named = _from_npz(path, signature) if path.suffix == ".npz" else _from_json(path, signature)
        inputs = signature.bind(named, model=path.name)
        if signature.batched and not len(inputs[0]):
            raise ValueError("holds no item")
    except Exception as error:  # a file can be wrong in as many ways as its readers have exceptions
        raise ConfigError(
            f"examples: {path}: {error}",
            hint="one JSON item a line, as /predict takes it, or a .npz named like the inputs",
        ) from error
    return inputs


def from_items(texts: Sequence[bytes], signature: Signature) -> Tensors:
    """The tensors of items of JSON, as `/predict` takes them.

    Raises:
        ConfigError: they do not fit the signature.
    """
    try:
        items = [json.loads(text) for text in texts]
        return (column(list(texts)),) if signature.items else signature.bind(_from_items(items, signature))
    except Exception as error:
        raise ConfigError(f"example: {error}", hint="an item as /predict takes it") from error


def typed(array: Array, spec: TensorSpec, signature: Signature) -> Array:
    """The array in the datatype of an input.

    Raises:
        ValueError: its values do not fit.
    """
    if signature.batched and spec.shape[0] == 1:
        array = array[:1]
    wanted = spec.datatype
    if wanted is DataType.BF16 and array.dtype.kind == "f":
        return np.asarray(to_bf16(array), order="C")
    fits = array.dtype.kind in _KINDS[wanted.dtype.kind]
    if not fits or (wanted.is_integer and not np.array_equal(array, array.astype(wanted.dtype))):
        raise ValueError(f"'{spec.name}' is {wanted.label}; {array.dtype} values do not fit")
    return np.asarray(array, wanted.dtype, order="C")  # which leaves a scalar one


def _json_items(path: Path) -> Array:
    """The texts of the items: those of a list, or one a line."""
    text = path.read_text(encoding="utf-8")
    try:
        document = json.loads(text)
    except json.JSONDecodeError:
        document = [json.loads(line) for line in text.splitlines() if line.strip()]
    items = document if isinstance(document, list) else [document]
    if not items:
        raise ValueError("holds no item")
    return column([json.dumps(item).encode() for item in items])


def _from_npz(path: Path, signature: Signature) -> dict[str, Array]:
    with np.load(path, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    known = {spec.name: spec for spec in signature.inputs}
    return {name: typed(array, known[name], signature) if name in known else array for name, array in arrays.items()}


def _from_json(path: Path, signature: Signature) -> dict[str, Array]:
    return _from_items(_items(path.read_text(encoding="utf-8"), signature), signature)


def _from_items(items: list[Any], signature: Signature) -> dict[str, Array]:
    only = signature.inputs[0].name
    rows = [item if isinstance(item, dict) else {only: item} for item in items]
    named = {}
    for spec in signature.inputs:
        lacking = [index for index, row in enumerate(rows) if spec.name not in row]
        if lacking or not rows:
            raise ValueError(f"item {lacking[0]} has no '{spec.name}'" if rows else "holds no item")
        values = [row[spec.name] for row in rows]
        named[spec.name] = typed(_array(values if signature.batched else values[0], spec), spec, signature)
    return named


def _items(text: str, signature: Signature) -> list[Any]:
    try:
        document = json.loads(text)
    except json.JSONDecodeError:
        return [json.loads(line) for line in text.splitlines() if line.strip()]
    return document if _is_list_of_items(document, signature) else [document]


def _is_list_of_items(document: Any, signature: Signature) -> bool:
    if not isinstance(document, list) or not document:
        return document == []
    if isinstance(document[0], dict):
        return True
    return signature.batched and np.ndim(document) == len(signature.inputs[0].shape)


def _array(values: Any, spec: TensorSpec) -> Array:
    if spec.datatype is DataType.BYTES:
        return np.array(values, object)
    return np.array(values)


def _filled(spec: TensorSpec, rows: int, size: int) -> tuple[int, ...]:
    return tuple((rows if axis == 0 else size) if extent == -1 else extent for axis, extent in enumerate(spec.shape))


def _values(spec: TensorSpec, shape: tuple[int, ...], least: int) -> Array:
    if spec.datatype is DataType.BYTES:
        return np.full(shape, "", dtype=object)
    if spec.datatype.is_float:
        values = np.random.default_rng(0).standard_normal(shape)
        return to_bf16(values) if spec.datatype is DataType.BF16 else values.astype(spec.datatype.dtype)
    # Small integers are valid token numbers and categories nearly everywhere: rows of 1, 0, 1, ...
    values = np.ones(shape, spec.datatype.dtype)
    if shape:
        values[1::2] = least
    return values


def _graded(array: Array) -> Array:
    factors = 1.0 - np.arange(len(array), dtype=array.dtype) / (4 * len(array))
    return array * factors.reshape(-1, *(1,) * (array.ndim - 1))
