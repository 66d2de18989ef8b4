"""What does a loaded model answer to all rows?"""

from __future__ import annotations

import numpy as np

from paceline.core.errors import CannotChange
from paceline.core.tensors import Array
from paceline.optimize.rows import Rows
from paceline.runtimes.base import LoadedModel

_MOST_ROWS = 64


def answers(model: LoadedModel, rows: Rows) -> dict[str, Array]:
    """The outputs by name, of shape [rows, ...], run some at a time, or as many as the model takes.

    Raises:
        ModelFailed: the model does.
        CannotChange: its outputs do not have a row for each row.
    """
    signature = model.signature
    fixed = signature.inputs[0].shape[0] if signature.inputs[0].shape else -1
    size = _MOST_ROWS if fixed == -1 else fixed
    instance = model.instances(1, 1)[0]
    parts = []
    for first in range(0, rows.count, size):
        indices = np.arange(first, first + (size if fixed != -1 else min(size, rows.count - first)))
        chosen = rows.take(np.minimum(indices, rows.count - 1))  # a last batch that must be full repeats the last row
        outputs = instance.run(
            tuple(np.asarray(chosen.inputs[spec.name], spec.datatype.dtype, order="C") for spec in signature.inputs)
        )
        if any(array.shape[:1] != (len(indices),) for array in outputs):
            raise CannotChange(f"{len(indices)} rows in, outputs of shapes {[array.shape for array in outputs]} out")
        parts.append([array[: rows.count - first] for array in outputs])
    names = [spec.name for spec in signature.outputs]
    return {name: np.concatenate(pieces) for name, pieces in zip(names, zip(*parts, strict=True), strict=True)}
