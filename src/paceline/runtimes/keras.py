"""How is a .keras file opened, and made into what TensorFlow serves? In Keras's safe mode, and by its own export.

Rules:
- Only the model is loaded: no optimizer, no loss, and nobody's code; see `keras_file.py`.
"""

from __future__ import annotations

import json
import re
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from paceline.core.errors import ModelLoadError, UnsafeModel, first_line
from paceline.runtimes.keras_file import check
from paceline.runtimes.tensorflow_library import keras

_UNKNOWN_CODE: Final = re.compile("Could not locate (\\w+ '[^']*')")
_EXPORT: Final = "export the model where its code is, and serve what was written: model.export(FOLDER)"


def load(path: Path) -> Any:
    """The model of a .keras file.

    Raises:
        UnsafeModel: opening it could run code.
        ModelLoadError: it is corrupt, or of a version of Keras that this one cannot read.
        RuntimeUnavailable: TensorFlow is not installed.
    """
    check(path)
    library = keras()
    try:
        with _no_warnings():
            return library.saving.load_model(str(path), compile=False, safe_mode=True)
    except Exception as error:  # whatever a layer raises when it is built from what the file says
        unknown = _UNKNOWN_CODE.search(str(error))
        if unknown:
            raise UnsafeModel(f"{path}: needs code of your own: {unknown[1]}", hint=_EXPORT) from error
        raise ModelLoadError(
            f"{path}: cannot be loaded: {first_line(error)}",
            hint=f"saved with Keras {_saved_with(path)}; this is Keras {library.__version__}",
        ) from error


def export(model: Any, folder: Path) -> None:
    """Write a model as a SavedModel, for inference, with an open batch dimension.

    Raises:
        ModelLoadError: it has no known inputs.
    """
    try:
        with _no_warnings():
            model.export(str(folder), format="tf_saved_model", verbose=False)
    except Exception as error:  # whatever a layer raises when it is traced
        raise ModelLoadError(
            f"model '{model.name}' cannot be exported: {first_line(error)}",
            hint="call it once on real inputs before it is saved",
        ) from error


def input_names(model: Any) -> list[str]:
    """In the model's order; empty where it does not say."""
    return [tensor.name for tensor in getattr(model, "inputs", None) or ()]


@contextmanager
def _no_warnings() -> Iterator[None]:
    """What Keras advises is for who writes a model, not for who serves it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _saved_with(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            return str(json.loads(archive.read("metadata.json"))["keras_version"])
    except (OSError, KeyError, TypeError, ValueError, zipfile.BadZipFile):
        return "of an unknown version"
