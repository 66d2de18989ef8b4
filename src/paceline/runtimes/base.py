"""What does the engine need of a framework? This, and nothing else.

A runtime loads a file once and makes as many instances of it as asked for; each runs one batch at a time,
from whichever thread calls it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Final, Protocol

from paceline.core.errors import RuntimeUnavailable
from paceline.core.tensors import Signature, Tensors, TensorSpec
from paceline.runtimes.formats import identify
from paceline.runtimes.options import Runtime, RuntimeOptions

_CLASSES: Final[Mapping[Runtime, tuple[str, str]]] = {
    "onnxruntime": ("onnx", "OnnxModel"),
    "openvino": ("openvino", "OpenVinoModel"),
    "tensorflow": ("tensorflow", "TensorFlowModel"),
    "torch": ("torch", "TorchModel"),
}
"""By runtime: the module, imported when it is chosen, and its class, made with a path and `RuntimeOptions`."""

_DEFAULTS: Final = RuntimeOptions()


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


def load(path: Path, options: RuntimeOptions = _DEFAULTS) -> LoadedModel:
    """Load a model file or folder with the runtime that its format, or the options, ask for.

    Raises:
        ModelLoadError: it is missing, corrupt or unsupported.
        RuntimeUnavailable: no runtime reads such files, or the one that does is not installed.
    """
    found = identify(path)
    if found.runtime is None:
        raise RuntimeUnavailable(f"{path}: served by worker processes, and by no runtime of this process")
    runtime = options.runtime or found.runtime
    if runtime not in (found.runtime, *found.other_runtimes):
        readers = ", ".join((found.runtime, *found.other_runtimes))
        raise RuntimeUnavailable(f"{path}: {runtime} does not read {found.title}", hint=f"what reads it: {readers}")
    module, name = _CLASSES[runtime]
    opened: LoadedModel = getattr(import_module(f"paceline.runtimes.{module}"), name)(path, options)
    return opened


def looks_batched(inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> bool:
    """True when axis 0 of every input is open, or 1 in all tensors."""
    first = {spec.shape[:1] for spec in inputs}
    return first == {(-1,)} or (first == {(1,)} and {spec.shape[:1] for spec in outputs} <= first)
