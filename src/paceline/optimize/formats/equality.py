"""Does what a conversion has written answer as the library does? ONNX Runtime is asked, and the two are compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from paceline.core.errors import CannotChange, ModelFailed, ModelLoadError
from paceline.core.tensors import Array
from paceline.optimize.asking import answers
from paceline.optimize.comparing import compare
from paceline.optimize.data.rows import Rows
from paceline.optimize.result import Converted
from paceline.runtimes.base import load

FILE: Final = "model.onnx"
_TOLERANCE: Final = 1e-4  # sums of single precision, in another order


def answers_of(file: Path, rows: Rows) -> dict[str, Array]:
    """What a converted model makes of rows: its outputs by name.

    Raises:
        CannotChange: ONNX Runtime does not take it, or it fails.
    """
    try:
        return answers(load(file), rows)
    except (ModelLoadError, ModelFailed) as error:
        why = getattr(error, "detail", None) or error.message.removeprefix(f"{file}: ")
        raise CannotChange(f"ONNX Runtime does not run the converted model: {why}") from error


def converted(file: Path, rows: Rows, reference: Mapping[str, Array], notes: Sequence[str] = ()) -> Converted:
    """The result of the conversion of a network.

    Args:
        reference: what its library answered, by name.

    Raises:
        CannotChange: ONNX Runtime does not run it, or it has other outputs.
    """
    equality = compare(reference, answers_of(file, rows), _TOLERANCE)
    return Converted(file=file.name, equality=equality, notes=list(notes))
