"""How does TensorFlow's SavedModel become ONNX? See `tensorflow.py`."""

from __future__ import annotations

from pathlib import Path

from paceline.optimize.asking import answers
from paceline.optimize.data.rows import Rows
from paceline.optimize.formats.equality import FILE, converted
from paceline.optimize.formats.tensorflow import to_onnx
from paceline.optimize.result import Converted
from paceline.runtimes.options import RuntimeOptions
from paceline.runtimes.tensorflow import TensorFlowModel


def convert(*, model: Path, rows: Path, folder: Path, allow_pickle: bool = False) -> Converted:  # noqa: ARG001
    """Convert the signature `serving_default`; see `optimize/formats`.

    Raises:
        CannotChange: it cannot be converted.
        ModelLoadError, UnsafeModel, RuntimeUnavailable: it cannot be opened.
    """
    given = Rows.load(rows)
    # Opened first: what is unsafe in it is found here, before tf2onnx opens it.
    reference = answers(TensorFlowModel(model, RuntimeOptions()), given)
    to_onnx(model, folder / FILE)
    return converted(folder / FILE, given, reference)
