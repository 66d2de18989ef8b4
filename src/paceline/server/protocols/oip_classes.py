"""The classification extension: the best classes of a tensor of scores, as text.

Rules:
- Scores are along the trailing dimensions of a row; the answer has shape [rows, classes], or [classes]
  without a batch dimension. Each element is `score:index`, or `score:index:label` where the model
  names its classes.
- Equal scores keep the order of their indices; NaN comes last.
"""

from __future__ import annotations

import math

import numpy as np

from paceline.core.errors import InvalidRequest
from paceline.core.tensors import Array, DataType, TensorSpec

_UNRANKED = (DataType.BYTES, DataType.BOOL, DataType.BF16)


def require_classes(spec: TensorSpec) -> None:
    """Check that an output can be ranked.

    Raises:
        InvalidRequest: its datatype has no order.
    """
    if spec.datatype in _UNRANKED:
        raise InvalidRequest(
            f"class result not available for output '{spec.name}' due to unsupported type '{spec.datatype.label}'"
        )


def classes(array: Array, spec: TensorSpec, top: int, batched: bool) -> Array:
    """The `top` best classes of every row."""
    shape = array.shape if batched else (1, *array.shape)
    scores = array.reshape(shape[0], math.prod(shape[1:]))
    found = np.empty((shape[0], min(top, scores.shape[1])), object)
    for row, values in enumerate(scores):
        found[row] = [_shown(values, index, spec.labels) for index in _best(values, found.shape[1])]
    return found if batched else found[0]


def _best(values: Array, top: int) -> list[int]:
    """Indices by falling value."""
    if values.dtype.kind == "f":
        values = np.where(np.isnan(values), -np.inf, values)
    # Sorted backwards: equal values stay in order, and unsigned ones need no sign.
    best: list[int] = (values.size - 1 - np.argsort(values[::-1], kind="stable")[::-1][:top]).tolist()
    return best


def _shown(values: Array, index: int, labels: tuple[str, ...]) -> str:
    value = values[index]
    text = f"{value:f}" if values.dtype.kind == "f" else str(int(value))
    return f"{text}:{index}:{labels[index]}" if index < len(labels) else f"{text}:{index}"
