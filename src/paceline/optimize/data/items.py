"""How do rows become the items of a service, and its predictions arrays?

Rules:
- Several inputs make an object by name of each row; a single one is the item itself.
- Objects with the same keys become an array for each key; objects in these, such as probabilities by class, columns in
  the order of the keys of the first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np

from paceline.core.errors import ModelFailed, PacelineError
from paceline.core.tensors import Array, column
from paceline.optimize.data.rows import finite
from paceline.runtimes.bundle import MOST_EXAMPLE_BYTES
from paceline.server.json_tensors import dumps, to_json

PREDICTION: Final = "prediction"


def items(inputs: Mapping[str, Array]) -> Array:
    """The texts of the items, of shape [rows]."""
    columns = [array.tolist() for array in inputs.values()]
    return column([msgspec.json.encode(_item(inputs, row)) for row in zip(*columns, strict=True)])


def example(inputs: Mapping[str, Array]) -> str:
    """The first row that JSON can carry, as an item; "": there is none, or a bundle has no room for it."""
    lacking = np.any([~finite(array) for array in inputs.values() if array.dtype.kind == "f"], axis=0)
    if np.all(lacking):
        return ""
    place = int(np.argmin(lacking))
    text = dumps(_item(inputs, [to_json(array[place, ...]) for array in inputs.values()]))
    return text.decode() if len(text) <= MOST_EXAMPLE_BYTES else ""


def outputs(predictions: list[Any]) -> dict[str, Array]:
    """Arrays by name of what a service answered.

    Raises:
        ModelFailed: a row has failed, or the answers differ in their keys or shapes.
    """
    values = [_value(each) for each in predictions]
    if not values or not isinstance(values[0], dict):
        return {PREDICTION: _array(values)}
    try:
        return {key: _array([value[key] for value in values]) for key in values[0]}
    except (KeyError, TypeError):
        raise ModelFailed("the predictions differ in their keys") from None


def texts(array: Array) -> Array:
    """Text of a fixed width, for objects that are `str` or `bytes`."""
    flat = [each.decode("utf-8", "replace") if isinstance(each, bytes) else str(each) for each in array.ravel()]
    return np.array(flat, np.str_).reshape(array.shape)


def _item(names: Iterable[str], values: Sequence[Any]) -> Any:
    return values[0] if len(values) == 1 else dict(zip(names, values, strict=True))


def _value(prediction: Any) -> Any:
    if isinstance(prediction, PacelineError):
        raise prediction
    return msgspec.json.decode(prediction)


def _array(values: list[Any]) -> Array:
    try:
        if isinstance(values[0], dict):
            return np.array([[value[key] for key in values[0]] for value in values], np.float64)
        array = np.array(values)
    except (KeyError, TypeError, ValueError):
        raise ModelFailed("the predictions differ in their keys or shapes") from None
    return texts(array) if array.dtype.kind == "O" else array
