"""Inputs to warm a model up with: the user's own where there are some, made from the signature otherwise.

A file of examples is JSON or JSON lines with one item a line, as `/predict` takes it, or a `.npz` of arrays of
shape [rows, ...] named like the inputs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from paceline.core.errors import ConfigError
from paceline.core.tensors import Array, DataType, Signature, Tensors, TensorSpec

# Sizes tried for open dimensions behind the batch, until the model runs.
_OPEN_SIZES = (8, 1, 32, 224, 3, 128, 2)


def synthetic(signature: Signature, rows: int) -> Iterator[Tensors]:
    """Inputs that may fit, likeliest first; `rows` is the size of axis 0 when it is open."""
    has_open = any(-1 in spec.shape[1:] for spec in signature.inputs)
    for size in _OPEN_SIZES if has_open else _OPEN_SIZES[:1]:
        yield tuple(_values(spec, _filled(spec, rows, size)) for spec in signature.inputs)


def repeated(inputs: Tensors, rows: int) -> Tensors:
    """`inputs` with exactly `rows` rows, repeating theirs as needed."""
    return tuple(np.ascontiguousarray(np.resize(array, (rows, *array.shape[1:]))) for array in inputs)


def from_file(path: Path, signature: Signature) -> Tensors:
    """Read a file of example inputs.

    Raises:
        ConfigError: it cannot be read, or does not fit the signature.
    """
    try:
        named = _from_npz(path) if path.suffix == ".npz" else _from_json(path, signature)
        inputs = signature.bind(
            {
                name: np.ascontiguousarray(array, dtype=spec.datatype.dtype)
                for name, array in named.items()
                if (spec := signature.input_named(name)) is not None
            },
            model=path.name,
        )
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(
            f"examples: {path}: {error}",
            hint="one JSON item a line, as /predict takes it, or a .npz named like the inputs",
        ) from error
    return inputs


def _from_npz(path: Path) -> dict[str, Array]:
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def _from_json(path: Path, signature: Signature) -> dict[str, Array]:
    text = path.read_text()
    try:
        document = json.loads(text)
        items = document if _is_list_of_items(document, signature) else [document]
    except json.JSONDecodeError:
        items = [json.loads(line) for line in text.splitlines() if line.strip()]
    if not items:
        raise ConfigError(f"examples: {path}: holds no item")
    only = signature.inputs[0]
    rows = [item if isinstance(item, dict) else {only.name: item} for item in items]
    return {
        spec.name: np.array([row[spec.name] for row in rows], spec.datatype.dtype)
        for spec in signature.inputs
    }


def _is_list_of_items(document: Any, signature: Signature) -> bool:
    if not isinstance(document, list) or not document:
        return False
    if isinstance(document[0], dict):
        return True
    return np.ndim(document) == len(signature.inputs[0].shape)


def _filled(spec: TensorSpec, rows: int, size: int) -> tuple[int, ...]:
    return tuple(
        (rows if axis == 0 else size) if extent == -1 else extent for axis, extent in enumerate(spec.shape)
    )


def _values(spec: TensorSpec, shape: tuple[int, ...]) -> Array:
    if spec.datatype is DataType.BYTES:
        return np.full(shape, "", dtype=object)
    if spec.datatype is DataType.BF16:
        return np.zeros(shape, spec.datatype.dtype)
    if spec.datatype.is_float:
        # Rows must differ, or a model that mixes them would not show it.
        return np.random.default_rng(0).standard_normal(shape).astype(spec.datatype.dtype)
    # Small integers are valid token numbers and categories nearly everywhere.
    return np.ones(shape, spec.datatype.dtype)
