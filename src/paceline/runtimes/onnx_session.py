"""How is a session of ONNX Runtime opened? On the processor, and with errors that say in one line what is wrong.

ONNX Runtime is imported when it is needed: what only asks which changes there are does not load it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from paceline.core.errors import ModelLoadError, first_line

if TYPE_CHECKING:
    from onnxruntime import InferenceSession, SessionOptions

_LEVELS: Final[Mapping[str, str]] = {
    "all": "ORT_ENABLE_ALL",
    "extended": "ORT_ENABLE_EXTENDED",
    "basic": "ORT_ENABLE_BASIC",
    "none": "ORT_DISABLE_ALL",
}
# Errors come as exceptions. On stderr too, every wrong request would write a line there.
_FATAL_ONLY: Final = 4
_PREFIX: Final = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ :\s*")


def session_options(graph_optimization: str = "all") -> SessionOptions:
    """What sessions here have in common; see `RuntimeOptions.graph_optimization`."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, _LEVELS[graph_optimization])
    options.log_severity_level = _FATAL_ONLY
    return options


def open_session(model: Path | bytes, options: SessionOptions) -> InferenceSession:
    """Open a file, or the bytes of one whose weights are all inside.

    Raises:
        ModelLoadError: ONNX Runtime does not take it.
    """
    import onnxruntime as ort

    shown = "the model" if isinstance(model, bytes) else str(model)
    try:
        given = model if isinstance(model, bytes) else shown
        return ort.InferenceSession(given, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions have no common base of their own
        why = said(error).replace(f"Load model from {shown} failed:", "")
        raise ModelLoadError(
            f"{shown}: cannot be loaded: {why}", hint="check the file with onnx.checker, or export it again"
        ) from error


def said(error: BaseException) -> str:
    """The first line of what ONNX Runtime says, without the codes that it begins with."""
    return _PREFIX.sub("", first_line(error)) or type(error).__name__
