"""TensorFlow, on the processor, in this process: SavedModel folders, and .keras files as the SavedModel they export.

Rules:
- A model runs in sessions. Each has its own pool of as many threads as its instance, where TensorFlow's functions share
  one pool of the process, whose size is fixed before anybody knows which is best.
- Operators run on the thread that calls: for small batches, handing each to a pool costs more than it takes.
- Instances of one thread share a session, for `run` is re-entrant. Others have one each, with its own weights.
- Inputs and outputs are those of the signature `serving_default`, by name: the format keeps no order, but Keras does.
- A .keras file is exported to a folder of temporary files first, which lives as long as the model.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any, Final

import numpy as np

from paceline.core.errors import ModelFailed, ModelLoadError, first_line
from paceline.core.tensors import Array, DataType, Signature, Tensors, TensorSpec
from paceline.runtimes.base import Instance, looks_batched
from paceline.runtimes.options import RuntimeOptions
from paceline.runtimes.savedmodel_file import FILE, SIGNATURE, TAG, check, in_natural_order
from paceline.runtimes.tensorflow_library import tensorflow

_DATATYPES: Final = {
    "bool": DataType.BOOL,
    "uint8": DataType.UINT8,
    "uint16": DataType.UINT16,
    "uint32": DataType.UINT32,
    "uint64": DataType.UINT64,
    "int8": DataType.INT8,
    "int16": DataType.INT16,
    "int32": DataType.INT32,
    "int64": DataType.INT64,
    "float16": DataType.FP16,
    "float32": DataType.FP32,
    "float64": DataType.FP64,
    "bfloat16": DataType.BF16,
    "string": DataType.BYTES,
}
_ON_THE_CALLING_THREAD: Final = -1


class TensorFlowModel:
    """A SavedModel, with a session that all single-threaded instances share."""

    platform = "tensorflow_savedmodel"

    def __init__(self, path: Path, options: RuntimeOptions) -> None:
        self._path = path
        self._options = options
        self._folder, order = path, list[str]()
        if not (path / FILE).is_file():
            order = self._export()
        self._tf = tensorflow()
        check(self._folder)
        self._session, found = self._open(threads=1)
        self._inputs = _ordered(found.inputs, order)
        self._outputs = _ordered(found.outputs)
        inputs = tuple(self._spec(name, info) for name, info in self._inputs.items())
        outputs = tuple(self._spec(name, info) for name, info in self._outputs.items())
        self.signature = Signature(inputs, outputs, batched=looks_batched(inputs, outputs))

    def instances(self, count: int, threads: int) -> list[Instance]:
        """Make `count` instances of `threads` threads each."""
        if threads == 1:
            return [self._instance(self._session)] * count
        return [self._instance(self._open(threads)[0]) for _ in range(count)]

    def _export(self) -> list[str]:
        """Write a .keras file's model as a SavedModel, and return the names of its inputs."""
        from paceline.runtimes import keras

        model = keras.load(self._path)
        try:
            self._folder = Path(mkdtemp(prefix="paceline-keras-"))
        except OSError as error:
            raise ModelLoadError(
                f"{self._path}: cannot be exported: no folder for temporary files", hint="set TMPDIR"
            ) from error
        weakref.finalize(self, rmtree, self._folder, ignore_errors=True)
        keras.export(model, self._folder)
        return keras.input_names(model)

    def _open(self, threads: int) -> tuple[Any, Any]:
        """A session of so many threads with the model in it, and its signature."""
        v1 = self._tf.compat.v1
        branches = self._options.inter_op_threads
        config = v1.ConfigProto(
            intra_op_parallelism_threads=threads,
            inter_op_parallelism_threads=branches if branches > 1 else _ON_THE_CALLING_THREAD,
            use_per_session_threads=branches > 1,
            device_count={"GPU": 0},
        )
        session = v1.Session(graph=self._tf.Graph(), config=config)
        try:
            with session.graph.as_default():
                loaded = v1.saved_model.load(session, [TAG], str(self._folder))
        except Exception as error:  # TensorFlow's exceptions have no common base
            raise ModelLoadError(f"{self._path}: cannot be loaded: {first_line(error)}") from error
        if SIGNATURE not in loaded.signature_def:
            raise ModelLoadError(
                f"{self._path}: has no signature '{SIGNATURE}'; it has {', '.join(sorted(loaded.signature_def))}",
                hint="tf.saved_model.save(module, FOLDER, signatures=function)",
            )
        return session, loaded.signature_def[SIGNATURE]

    def _instance(self, session: Any) -> TensorFlowInstance:
        feeds = [info.name for info in self._inputs.values()]
        fetches = [info.name for info in self._outputs.values()]
        return TensorFlowInstance(session, feeds, fetches, self.signature)

    def _spec(self, name: str, info: Any) -> TensorSpec:
        datatype = _DATATYPES.get(self._tf.dtypes.as_dtype(info.dtype).name)
        if datatype is None or info.WhichOneof("encoding") != "name":
            raise ModelLoadError(f"{self._path}: '{name}' is no tensor of a type that can be served")
        if info.tensor_shape.unknown_rank:
            raise ModelLoadError(
                f"{self._path}: '{name}' has any number of dimensions, and cannot be served",
                hint="export it with a tf.TensorSpec that says how many: shape=[None, 8]",
            )
        return TensorSpec(name, datatype, tuple(axis.size for axis in info.tensor_shape.dim))


class TensorFlowInstance:
    """Runs batches in a session."""

    def __init__(self, session: Any, feeds: Sequence[str], fetches: Sequence[str], signature: Signature) -> None:
        self._call = _callable(session, feeds, fetches)
        self._bf16_inputs = _places(signature.inputs, DataType.BF16)
        self._bf16_outputs = _places(signature.outputs, DataType.BF16)

    def run(self, inputs: Tensors) -> Tensors:
        """Run one batch; see `Instance.run`."""
        if self._bf16_inputs:
            inputs = tuple(_as_bf16(each) if at in self._bf16_inputs else each for at, each in enumerate(inputs))
        try:
            results = self._call(*inputs)
        except Exception as error:  # see TensorFlowModel._open
            raise ModelFailed("the model raised an error", detail=first_line(error)) from error
        if self._bf16_outputs:
            results = [_as_bits(each) if at in self._bf16_outputs else each for at, each in enumerate(results)]
        return tuple(results)


def _callable(session: Any, feeds: Sequence[str], fetches: Sequence[str]) -> Callable[..., Sequence[Array]]:
    """The session's `run` for these tensors, prepared once; `run` prepares in Python each time, which takes longer."""
    from tensorflow.core.protobuf import config_pb2

    called: Callable[..., Sequence[Array]] = session._make_callable_from_options(
        config_pb2.CallableOptions(feed=feeds, fetch=fetches)
    )
    return called


def _ordered(named: Mapping[str, Any], first: Sequence[str] = ()) -> dict[str, Any]:
    """Those of `first` in that order; then the others by name, where `output_10` comes after `output_9`."""
    known = [name for name in first if name in named]
    return {name: named[name] for name in (*known, *in_natural_order(set(named) - set(known)))}


def _places(specs: Sequence[TensorSpec], datatype: DataType) -> frozenset[int]:
    return frozenset(at for at, spec in enumerate(specs) if spec.datatype is datatype)


def _as_bf16(bits: Array) -> Array:
    from ml_dtypes import bfloat16

    return bits.view(bfloat16)


def _as_bits(numbers: Array) -> Array:
    return numbers.view(np.uint16)
