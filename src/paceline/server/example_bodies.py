"""One valid request body for each protocol, made of the row that warm-up ran.

The try-it page, the OpenAPI document, the start-up panel and `GET /example` show these.

Rules:
- Floats have four decimals, or four significant digits where they are small: an example is there to be read.
- A body is None where JSON cannot carry the inputs in that protocol, or no example is known.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import orjson

from paceline.core.tensors import Array, DataType, Signature, Tensors
from paceline.server.json_tensors import dumps, to_json

NO_EXAMPLE: Final = (
    "the code gives no example: let `example()`, beside `predict` or in its class (in R `example`, beside "
    "`predict_fn`), return an item, or give --examples FILE"
)
"""What to tell whoever asks for an example of user code that has none."""

_DECIMALS: Final = 4
_LARGEST_ROUNDED: Final = 1e11  # larger floats have no decimals worth rounding


class ExampleBodies:
    """The bodies of one model.

    Args:
        example: one valid row, shape [1, ...]; or one valid input of a model without rows.
    """

    def __init__(self, signature: Signature, example: Tensors) -> None:
        self._signature = signature
        self._example = example
        self._rows = [array[0, ...] for array in example] if signature.batched else list(example)
        self._unknown = not example  # of user code that has none
        self._datatypes = {spec.datatype for spec in signature.inputs}

    def predict(self) -> bytes | None:
        """The item that `/predict` takes."""
        return None if self._unknown or DataType.BF16 in self._datatypes else dumps(self._item())

    def batch_predict(self) -> bytes | None:
        """Two items."""
        return None if self._unknown or DataType.BF16 in self._datatypes else dumps([self._item()] * 2)

    def tensorflow(self) -> bytes | None:
        """The row format, or the columnar one where the model takes no rows."""
        if self._unknown or self._datatypes & {DataType.FP16, DataType.BF16}:
            return None
        return dumps({"instances": [self._item()]} if self._signature.batched else {"inputs": self._item()})

    def open_inference(self) -> bytes | None:
        """All inputs, with flat data."""
        if self._unknown or self._datatypes & {DataType.FP16, DataType.BF16}:
            return None
        inputs = [
            {
                "name": spec.name,
                "shape": list(array.shape),
                "datatype": spec.datatype.label,
                "data": _short(np.ravel(array)),
            }
            for spec, array in zip(self._signature.inputs, self._example, strict=True)
        ]
        return dumps({"inputs": inputs})

    def _item(self) -> Any:
        if self._signature.items:
            return orjson.Fragment(self._rows[0][()])
        values = [_short(row) for row in self._rows]
        if len(values) == 1:
            return values[0]
        return {spec.name: value for spec, value in zip(self._signature.inputs, values, strict=True)}


def _short(array: Array) -> Any:
    """The array as JSON, its floats rounded, and written as integers where they are whole."""
    if array.dtype.kind != "f":
        return to_json(np.asarray(array))
    values = np.nan_to_num(np.asarray(array, np.float64))  # JSON has neither NaN nor infinity
    size = np.abs(values)
    with np.errstate(divide="ignore"):
        decimals = np.maximum(_DECIMALS, _DECIMALS - 1 - np.floor(np.log10(size)))
    factor = 10.0 ** np.where((size > 0) & (size < _LARGEST_ROUNDED), np.minimum(decimals, 300), 0)
    rounded = np.where(size < _LARGEST_ROUNDED, np.round(values * factor) / factor, values)
    # Half precision is written as single, or 0.1257 would become 0.12573242.
    # The index keeps arrays, and makes a scalar of what has no axes.
    text = dumps(rounded.astype(np.float64 if array.itemsize == 8 else np.float32, order="C")[()])
    return orjson.Fragment(text.replace(b".0,", b",").replace(b".0]", b"]").removesuffix(b".0"))
