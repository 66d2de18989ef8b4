"""What does the engine need of a framework? This, and nothing else.

A runtime loads a file once and makes as many instances of it as asked for; each runs one batch at a time,
from whichever thread calls it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from paceline.core.errors import RuntimeUnavailable
from paceline.core.tensors import Signature, Tensors


class Instance(Protocol):
    """One loaded copy of a model."""

    def run(self, inputs: Tensors) -> Tensors:
        """Run one batch.

        Args:
            inputs: C-contiguous arrays in the order of the signature's inputs.

        Returns:
            Arrays in the order of the signature's outputs.

        Raises:
            ModelFailed: the framework raised.
        """


class LoadedModel(Protocol):
    """A model file in memory."""

    platform: str
    """What Open Inference clients see, such as `onnxruntime_onnx`."""

    signature: Signature
    """As the file declares it; whether rows are independent is found out by running it."""

    def instances(self, count: int, threads: int) -> list[Instance]:
        """Make `count` instances of `threads` threads each."""


def load(path: Path) -> LoadedModel:
    """Load a model with the runtime that its file name asks for.

    Raises:
        ModelLoadError: the file is missing, corrupt or unsupported.
        RuntimeUnavailable: no runtime reads such files.
    """
    suffix = path.suffix.lower()
    if suffix == ".onnx":
        from paceline.runtimes.onnx import OnnxModel

        return OnnxModel(path)
    readable: Mapping[str, str] = {".onnx": "ONNX"}
    kinds = ", ".join(f"{kind} (*{ending})" for ending, kind in readable.items())
    raise RuntimeUnavailable(
        f"{path}: no runtime reads '{suffix or path.name}' files",
        hint=f"readable: {kinds}; code: *.py, *.R, pipeline.toml; pickles: *.pkl, *.joblib, *.skops",
    )
