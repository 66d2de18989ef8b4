"""How does a Keras model become ONNX? By its own export to a SavedModel, and from there by tf2onnx.

Rules:
- Keras's own `export(format="onnx")` takes the same way, but leaves names to chance, and out what looks words up.
- What it is compared with is `model.predict`.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from paceline.core.tensors import Array
from paceline.optimize.data.rows import Rows
from paceline.optimize.formats.equality import FILE, converted
from paceline.optimize.formats.tensorflow import to_onnx
from paceline.optimize.result import Converted
from paceline.runtimes import keras
from paceline.runtimes.options import RuntimeOptions
from paceline.runtimes.tensorflow import TensorFlowModel


def convert(*, model: Path, rows: Path, folder: Path, allow_pickle: bool = False) -> Converted:  # noqa: ARG001
    """Convert a .keras file; see `optimize/formats`.

    Raises:
        CannotChange: it cannot be converted.
        ModelLoadError, UnsafeModel, RuntimeUnavailable: it cannot be opened.
    """
    given = Rows.load(rows)
    loaded = keras.load(model)
    with TemporaryDirectory(prefix="paceline-keras-") as name:
        saved_model = Path(name)
        keras.export(loaded, saved_model)
        outputs = [spec.name for spec in TensorFlowModel(saved_model, RuntimeOptions()).signature.outputs]
        to_onnx(saved_model, folder / FILE)
    return converted(folder / FILE, given, _predicted(loaded, given, outputs))


def _predicted(model: Any, rows: Rows, names: list[str]) -> dict[str, Array]:
    """What `predict` answers; `names` are those that the export gives to the outputs, in the model's order."""
    from keras import tree

    given = [_tensor(rows.inputs[name]) for name in keras.input_names(model) or rows.inputs]
    said = model.predict(given if len(given) > 1 else given[0], verbose=0)
    return {name: np.asarray(each) for name, each in zip(names, tree.flatten(said), strict=True)}


def _tensor(array: Array) -> Any:
    """What Keras takes: text only as a tensor."""
    import tensorflow as tf

    return tf.constant(array) if array.dtype.kind in "USO" else array
