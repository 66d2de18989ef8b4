"""How does a SavedModel become ONNX? By tf2onnx; what is common to Keras and TensorFlow.

Rules:
- tf2onnx is driven as its command line is: its functions in Python let a model through of which they understood only
  parts.
- An operator that ONNX has not is no failure of the study: the native model remains.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from paceline.core.errors import CannotChange, RuntimeUnavailable, first_line
from paceline.optimize.quiet import quiet
from paceline.runtimes.savedmodel_file import SIGNATURE, TAG

_OPSET: Final = 18  # the newest that tf2onnx writes


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
        with _command_line("tf2onnx", *arguments, *chosen), quiet():
            convert.main()
    except Exception as error:  # tf2onnx raises what comes
        raise CannotChange(f"tf2onnx cannot convert it: {first_line(error)}") from error
    if not file.is_file():
        raise CannotChange("tf2onnx wrote nothing")


@contextmanager
def _command_line(*arguments: object) -> Iterator[None]:
    before, sys.argv = sys.argv, [str(each) for each in arguments]
    try:
        yield
    finally:
        sys.argv = before
