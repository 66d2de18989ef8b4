"""How does a SavedModel become ONNX? By tf2onnx; what is common to Keras and TensorFlow.

Rules:
- tf2onnx is driven as its command line is: its functions in Python let a model through of which they understood only
  parts.
- An operator that ONNX has not is no failure of the study: the native model remains.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Final

from paceline.core.errors import CannotChange, ModelLoadError, RuntimeUnavailable
from paceline.core.tensors import Array
from paceline.optimize.comparing import compare
from paceline.optimize.formats.asking import answers
from paceline.optimize.result import Converted
from paceline.optimize.rows import Rows
from paceline.runtimes.onnx import OnnxModel
from paceline.runtimes.options import RuntimeOptions
from paceline.runtimes.savedmodel_file import TAG
from paceline.runtimes.tensorflow import SIGNATURE
from paceline.runtimes.tensorflow_library import first_line

MODEL: Final = "model.onnx"

_OPSET: Final = 18  # the newest that tf2onnx writes
_TOLERANCE: Final = 1e-4  # sums of single precision, in another order


def to_onnx(saved_model: Path, file: Path) -> None:
    """Convert the signature for serving; its inputs and outputs keep their names.

    Raises:
        CannotChange: there is an operator that ONNX, or tf2onnx, has not.
        RuntimeUnavailable: tf2onnx is not installed.
    """
    try:
        from tf2onnx import convert
    except ImportError as error:
        raise RuntimeUnavailable(
            f"tf2onnx cannot be imported: {first_line(error)}", hint="pip install 'paceline[tensorflow]'"
        ) from error
    arguments = ("--saved-model", saved_model, "--output", file, "--opset", _OPSET)
    chosen = ("--tag", TAG, "--signature_def", SIGNATURE)
    try:
        with _command_line("tf2onnx", *arguments, *chosen), _silence():
            convert.main()
    except Exception as error:  # tf2onnx raises what comes
        raise CannotChange(f"tf2onnx cannot convert it: {first_line(error)}") from error
    if not file.is_file():
        raise CannotChange("tf2onnx wrote nothing")


def converted(file: Path, rows: Rows, reference: dict[str, Array], notes: list[str]) -> Converted:
    """What a conversion returns: the ONNX model, compared with what the library answered."""
    try:
        opened = OnnxModel(file, RuntimeOptions())
    except ModelLoadError as error:  # it is ours: an operator that tf2onnx let through
        raise CannotChange(f"it holds what ONNX has not: {error.message.partition(': ')[2]}") from error
    return Converted(file=file.name, equality=compare(reference, answers(opened, rows), _TOLERANCE), notes=notes)


@contextmanager
def _command_line(*arguments: object) -> Iterator[None]:
    before, sys.argv = sys.argv, [str(each) for each in arguments]
    try:
        yield
    finally:
        sys.argv = before


@contextmanager
def _silence() -> Iterator[None]:
    """Nothing below an error, and no progress in a form that is not ours."""
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        logging.disable(logging.ERROR)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)
