"""What does a loaded model answer to all rows?"""

from __future__ import annotations

from typing import Final

import numpy as np

from paceline.core.errors import CannotChange
from paceline.core.tensors import Array, Signature
from paceline.optimize.data.rows import Rows
from paceline.runtimes.base import LoadedModel

_MOST_ROWS: Final = 64


def answers(model: LoadedModel, rows: Rows, most: int = _MOST_ROWS) -> dict[str, Array]:
    """The outputs by name, of shape [rows, ...].

    Args:
        most: rows of a run; a model that fixes its batch is given that many, the last row repeated where it has to be.

    Raises:
        ModelFailed: the model does.
        CannotChange: its outputs do not have a row for each row.
    """
    signature = model.signature
    first = signature.inputs[0].shape[:1]
    is_fixed = first not in ((), (-1,))
    size = first[0] if is_fixed else most
    typed = as_taken(rows, signature)
    instance = model.instances(1, 1)[0]
    parts = []
    for start in range(0, rows.count, size):
        left = rows.count - start
        indices = np.minimum(np.arange(start, start + (size if is_fixed else min(size, left))), rows.count - 1)
        outputs = instance.run(tuple(map(np.ascontiguousarray, typed.take(indices).inputs.values())))
        if any(array.shape[:1] != (len(indices),) for array in outputs):
            raise CannotChange(f"{len(indices)} rows in, outputs of shapes {[array.shape for array in outputs]} out")
        parts.append([array[:left] for array in outputs])
    names = [spec.name for spec in signature.outputs]
    return {name: np.concatenate(pieces) for name, pieces in zip(names, zip(*parts, strict=True), strict=True)}


def as_taken(rows: Rows, signature: Signature) -> Rows:
    """The inputs of a model alone, in its order and its types."""
    return Rows(
        {spec.name: rows.inputs[spec.name].astype(spec.datatype.dtype, copy=False) for spec in signature.inputs}
    )
