"""OpenVINO, on the processor, in this process: its own files (.xml with .bin), and ONNX.

Rules:
- What it computes in is always said: left alone, it takes bfloat16 where the processor has it, and the answers change.
- All instances are requests of one compiled model, which has a stream for each: one copy of the weights, and as many
  batches at a time as there are instances.
- Large inputs are read where they lie. Small ones are copied to where the last ones were: telling a request of another
  place costs five times what copying some KiB does. Outputs are copied, for the next run writes over them.
- A file beside an .xml is read only if it lies in the model's folder.
- OpenVINO reports to its maker that it is imported, unless the package that does so is not there: here it is not.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np

from paceline.core.errors import ModelFailed, ModelLoadError, RuntimeUnavailable
from paceline.core.paths import is_inside
from paceline.core.tensors import Array, DataType, Signature, Tensors, TensorSpec
from paceline.runtimes.base import Instance, looks_batched
from paceline.runtimes.onnx_file import check
from paceline.runtimes.options import RuntimeOptions


@contextmanager
def _unreported() -> Iterator[None]:
    """While the block runs, the package that reports cannot be imported: OpenVINO then has a stand-in for it."""
    name = "openvino_telemetry"
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]  # Python's own way to say that a module must not be found
    try:
        yield
    finally:
        del sys.modules[name]


try:
    with _unreported():
        import openvino as ov
except ImportError as error:
    raise RuntimeUnavailable(
        "OpenVINO is needed, and cannot be imported", hint="pip install 'paceline[openvino]'"
    ) from error

_TYPES: Final = {
    "boolean": DataType.BOOL,
    "u8": DataType.UINT8,
    "u16": DataType.UINT16,
    "u32": DataType.UINT32,
    "u64": DataType.UINT64,
    "i8": DataType.INT8,
    "i16": DataType.INT16,
    "i32": DataType.INT32,
    "i64": DataType.INT64,
    "f16": DataType.FP16,
    "f32": DataType.FP32,
    "f64": DataType.FP64,
}
_MOST_COPIED_BYTES: Final = 128 << 10
_WHERE: Final = re.compile(r"^(Exception from |Check '|\[ ?[A-Z_]+ ?\]|While validating|Shape inference input shapes)")


class OpenVinoModel:
    """A file that OpenVINO reads; compiled for as many instances as are asked for."""

    platform = "openvino"

    def __init__(self, path: Path, options: RuntimeOptions) -> None:
        self._path = path
        self._precision = options.precision or "f32"
        _check(path)
        self._core = ov.Core()
        try:
            self._model = self._core.read_model(path)
            inputs = tuple(_spec(port, path) for port in self._model.inputs)
            outputs = tuple(_spec(port, path) for port in self._model.outputs)
        except RuntimeError as error:
            raise self._unreadable(error) from error
        self._compiled = self._compile(1, 1)
        self.signature = Signature(inputs, outputs, batched=looks_batched(inputs, outputs))

    def instances(self, count: int, threads: int) -> list[Instance]:
        """Make `count` instances of `threads` threads each."""
        compiled = self._compiled if (count, threads) == (1, 1) else self._compile(count, threads)
        return [OpenVinoInstance(compiled, self.signature) for _ in range(count)]

    def _compile(self, count: int, threads: int) -> ov.CompiledModel:
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": count,
            "INFERENCE_NUM_THREADS": count * threads,
            "INFERENCE_PRECISION_HINT": self._precision,
            # Other instances, and other models, share the cores: the kernel places the threads.
            "ENABLE_CPU_PINNING": False,
        }
        try:
            return self._core.compile_model(self._model, "CPU", settings)
        except RuntimeError as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: RuntimeError) -> ModelLoadError:
        return ModelLoadError(f"{self._path}: cannot be loaded: {_said(error)}")


class OpenVinoInstance:
    """Runs batches in a request of a compiled model."""

    def __init__(self, compiled: ov.CompiledModel, signature: Signature) -> None:
        self._request = compiled.create_infer_request()
        self._outputs = range(len(signature.outputs))
        self._held: list[Array | None] = [None] * len(signature.inputs)
        # A request keeps nothing alive of what it is told to read.
        self._given: list[Array | None] = [None] * len(signature.inputs)

    def run(self, inputs: Tensors) -> Tensors:
        """Run one batch; see `Instance.run`."""
        request = self._request
        try:
            for index, array in enumerate(inputs):
                held = self._held[index]
                if held is not None and held.shape == array.shape:
                    held[...] = array
                else:
                    self._give(index, array)
            request.infer(share_outputs=True)
            return tuple([np.array(request.get_output_tensor(index).data) for index in self._outputs])
        except RuntimeError as error:
            self._held = [None] * len(self._held)
            raise ModelFailed("the model raised an error", detail=_said(error)) from error

    def _give(self, index: int, array: Array) -> None:
        """Tell the request where an input lies: in a copy of ours, if it is small."""
        small = array.nbytes <= _MOST_COPIED_BYTES
        own = array.copy() if small or not array.flags.writeable else array
        self._held[index] = own if small else None
        self._given[index] = own
        self._request.set_input_tensor(index, ov.Tensor(own, shared_memory=True))


def _check(path: Path) -> None:
    if path.suffix.lower() == ".onnx":
        check(path)
        return
    weights = path.with_suffix(".bin")
    if not weights.exists():
        raise ModelLoadError(f"{path}: its weights, {weights.name}, are not beside it")
    if not is_inside(weights, path.parent):
        raise ModelLoadError(f"{path}: its weights, {weights.name}, are not in the model's folder, and are not read")


def _spec(port: Any, path: Path) -> TensorSpec:
    name, element = port.get_any_name(), port.get_element_type().get_type_name()
    if element not in _TYPES:
        raise ModelLoadError(
            f"{path}: '{name}' has type {element}, which OpenVINO does not serve here",
            hint="--runtime onnxruntime, for an ONNX file" if path.suffix.lower() == ".onnx" else None,
        )
    shape = port.get_partial_shape()
    if shape.rank.is_dynamic:
        return TensorSpec(name, _TYPES[element], ())
    return TensorSpec(name, _TYPES[element], tuple(-1 if d.is_dynamic else d.get_length() for d in shape))


def _said(error: BaseException) -> str:
    """What is wrong: OpenVINO's errors begin with the lines of its own code where they were raised."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if not _WHERE.match(line)]
    return (telling or lines or [type(error).__name__])[0]
