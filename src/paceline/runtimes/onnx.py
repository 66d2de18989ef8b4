"""ONNX Runtime, on the processor, in this process.

Rules:
- The thread pools are set explicitly: ONNX Runtime reads neither OMP_NUM_THREADS nor a container's quota.
- Threads do not spin while they wait for work: they share the cores with the event loop.
- Instances of one thread share a session, for the calling thread does all the work and `run` is re-entrant.
  Instances of several threads have a session each, with its own pool.
- Branches that run side by side share the threads of their instance: with one thread there are none.
- It computes in the types of the file. Only Arm's processors are told to multiply single precision as bfloat16.
- Sequences and maps, which classical models put out, become tensors with one labelled column per key. A file that was
  converted by Paceline has tensors, and the names of their columns in its metadata.
"""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnxruntime as ort

from paceline.core.errors import InvalidRequest, ModelFailed, ModelLoadError, RuntimeUnavailable
from paceline.core.tensors import Array, DataType, Signature, Tensors, TensorSpec
from paceline.runtimes.base import Instance, looks_batched
from paceline.runtimes.onnx_file import check
from paceline.runtimes.onnx_session import open_session, said, session_options
from paceline.runtimes.options import RuntimeOptions

_TYPES = {
    "tensor(bool)": DataType.BOOL,
    "tensor(uint8)": DataType.UINT8,
    "tensor(uint16)": DataType.UINT16,
    "tensor(uint32)": DataType.UINT32,
    "tensor(uint64)": DataType.UINT64,
    "tensor(int8)": DataType.INT8,
    "tensor(int16)": DataType.INT16,
    "tensor(int32)": DataType.INT32,
    "tensor(int64)": DataType.INT64,
    "tensor(float16)": DataType.FP16,
    "tensor(float)": DataType.FP32,
    "tensor(double)": DataType.FP64,
    "tensor(bfloat16)": DataType.BF16,
    "tensor(string)": DataType.BYTES,
}
COLUMN_NAMES = "paceline.columns"
"""Key of a file's metadata: a JSON object of the names of columns, by output."""
_ARM = ("aarch64", "arm64")
_BFLOAT16 = 16  # onnx.TensorProto.BFLOAT16


class OnnxModel:
    """An ONNX file, with a session that all single-threaded instances share."""

    platform = "onnxruntime_onnx"

    def __init__(self, path: Path, options: RuntimeOptions) -> None:
        check(path)
        self._path = path
        self._options = options
        self._check_precision()
        self._session = self._open(threads=1)
        inputs = tuple(_tensor_spec(node, path) for node in self._session.get_inputs())
        outputs = tuple(_output_spec(node, path) for node in self._session.get_outputs())
        self.signature = Signature(inputs, outputs, batched=looks_batched(inputs, outputs))

    def instances(self, count: int, threads: int) -> list[Instance]:
        """Make `count` instances of `threads` threads each."""
        if threads == 1:
            return [OnnxInstance(self._session, self.signature)] * count
        return [OnnxInstance(self._open(threads), self.signature) for _ in range(count)]

    def _open(self, threads: int) -> ort.InferenceSession:
        options = session_options(self._options.graph_optimization)
        branches = min(self._options.inter_op_threads, threads)
        options.intra_op_num_threads = threads // branches
        options.inter_op_num_threads = branches
        if branches > 1:
            options.execution_mode = ort.ExecutionMode.ORT_PARALLEL
            options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        if self._options.precision == "bf16":
            options.add_session_config_entry("mlas.enable_gemm_fastmath_arm64_bfloat16", "1")
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        return open_session(self._path, options)

    def _check_precision(self) -> None:
        precision = self._options.precision
        if precision in (None, "f32") or (precision == "bf16" and platform.machine() in _ARM):
            return
        raise RuntimeUnavailable(
            f"{self._path}: precision {precision}: ONNX Runtime computes in the types of the file on this processor",
            hint="OpenVINO has the choice: --runtime openvino, or leave precision out",
        )


class OnnxInstance:
    """Runs batches in a session."""

    def __init__(self, session: ort.InferenceSession, signature: Signature) -> None:
        self._session = session
        self._names = [spec.name for spec in signature.inputs]
        self._output_names = [node.name for node in session.get_outputs()]
        self._outputs = signature.outputs
        self._text = [index for index, spec in enumerate(signature.inputs) if spec.datatype is DataType.BYTES]
        specs = signature.inputs + signature.outputs
        self._has_bf16 = any(spec.datatype is DataType.BF16 for spec in specs)
        self._plain = all(node.type.startswith("tensor(") for node in session.get_outputs())
        self._inputs = signature.inputs

    def run(self, inputs: Tensors) -> Tensors:
        """Run one batch; see `Instance.run`."""
        results = self._results(inputs)
        if self._plain:
            return tuple(results)
        return tuple(_as_tensor(result, spec) for result, spec in zip(results, self._outputs, strict=True))

    def labels(self, inputs: Tensors) -> list[tuple[str, ...]]:
        """Column names of every output: of maps, found by running `inputs`; of tensors, where the file has them."""
        if self._plain:
            named = _named_columns(self._session)
            return [_fitting(named.get(spec.name, ()), spec) for spec in self._outputs]
        return [_labels(result) for result in self._results(inputs)]

    def _results(self, inputs: Tensors) -> Sequence[Any]:
        if self._text:
            inputs = tuple(_text(a) if index in self._text else a for index, a in enumerate(inputs))
        try:
            if self._has_bf16:
                return self._run_with_bf16(inputs)
            return self._session.run(self._output_names, dict(zip(self._names, inputs, strict=True)))  # type: ignore[no-any-return]
        except Exception as error:  # ONNX Runtime's exceptions have no common base of their own
            raise ModelFailed("the model raised an error", detail=said(error)) from error

    def _run_with_bf16(self, inputs: Tensors) -> Tensors:
        feed = {
            spec.name: ort.OrtValue.ortvalue_from_numpy_with_onnx_type(array, _BFLOAT16)
            if spec.datatype is DataType.BF16
            else ort.OrtValue.ortvalue_from_numpy(array)
            for spec, array in zip(self._inputs, inputs, strict=True)
        }
        results = self._session.run_with_ort_values(self._output_names, feed)
        return tuple(
            _bf16_bits(result) if spec.datatype is DataType.BF16 else result.numpy()
            for spec, result in zip(self._outputs, results, strict=True)
        )


def _tensor_spec(node: Any, path: Path) -> TensorSpec:
    if node.type not in _TYPES:
        raise ModelLoadError(f"{path}: '{node.name}' has type {node.type}, which cannot be served")
    shape = tuple(size if isinstance(size, int) else -1 for size in node.shape or ())
    return TensorSpec(node.name, _TYPES[node.type], shape)


def _output_spec(node: Any, path: Path) -> TensorSpec:
    # The innermost type: `tensor(float)` of `seq(map(int64,tensor(float)))`.
    element = _TYPES.get("tensor(" + node.type.rpartition("tensor(")[2].rstrip(")") + ")")
    if element is not None and node.type.startswith(("seq(map(", "map(")):
        return TensorSpec(node.name, element, (-1, -1))
    if element is not None and node.type.startswith("seq(tensor("):
        return TensorSpec(node.name, element, (-1,))
    return _tensor_spec(node, path)


def _text(array: Array) -> Array:
    """ONNX Runtime takes `str`; binary clients send `bytes`."""
    try:
        flat = [item if isinstance(item, str) else item.decode() for item in array.ravel().tolist()]
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"a BYTES element is not valid UTF-8: {error}") from error
    return np.array(flat, dtype=object).reshape(array.shape)


def _as_tensor(result: Any, spec: TensorSpec) -> Array:
    if isinstance(result, np.ndarray):
        return result
    if isinstance(result, dict):
        result = [result]
    try:
        if result and isinstance(result[0], dict):
            keys = sorted(result[0])
            return np.array([[row[key] for key in keys] for row in result], dtype=spec.datatype.dtype)
        return np.stack([np.asarray(item) for item in result])
    except (KeyError, ValueError) as error:
        raise ModelFailed(
            f"output '{spec.name}' is a sequence whose items differ in their shapes or keys",
            code="bad_model_output",
            detail=str(error),
        ) from error


def _labels(result: Any) -> tuple[str, ...]:
    if isinstance(result, dict):
        result = [result]
    if isinstance(result, list) and result and isinstance(result[0], dict):
        return tuple(str(key) for key in sorted(result[0]))
    return ()


def _named_columns(session: ort.InferenceSession) -> dict[str, tuple[str, ...]]:
    """By output, as the file's metadata has them; what is none of ours there says nothing."""
    text = session.get_modelmeta().custom_metadata_map.get(COLUMN_NAMES, "")
    try:
        return msgspec.json.decode(text, type=dict[str, tuple[str, ...]]) if text else {}
    except msgspec.DecodeError:
        return {}


def _fitting(names: tuple[str, ...], spec: TensorSpec) -> tuple[str, ...]:
    """The names, if there is one for each column."""
    return names if len(spec.shape) > 1 and spec.shape[-1] == len(names) else ()


def _bf16_bits(value: ort.OrtValue) -> Array:
    shape = value.shape()
    size_bytes = 2 * int(np.prod(shape, dtype=np.int64))
    raw = ctypes.string_at(value.data_ptr(), size_bytes)
    return np.frombuffer(raw, dtype=DataType.BF16.dtype).reshape(shape)
