"""Tensors and signatures: which inputs does a model take, and do these arrays fit?

Rules:
- Datatypes carry the Open Inference Protocol's names; shapes include the batch dimension; -1 means any size.
- BYTES tensors are object arrays of `str` or `bytes`; BF16 tensors are uint16 arrays of bit patterns,
  because numpy has no such type.
- Axis 0 holds the rows when the signature is batched. Everything behind it is the trailing shape.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paceline.core.errors import Detail, SignatureMismatch

Array = NDArray[Any]
Tensors = tuple[Array, ...]


class DataType(enum.Enum):
    """Element types of the Open Inference Protocol."""

    BOOL = ("BOOL", "?")
    UINT8 = ("UINT8", "u1")
    UINT16 = ("UINT16", "<u2")
    UINT32 = ("UINT32", "<u4")
    UINT64 = ("UINT64", "<u8")
    INT8 = ("INT8", "i1")
    INT16 = ("INT16", "<i2")
    INT32 = ("INT32", "<i4")
    INT64 = ("INT64", "<i8")
    FP16 = ("FP16", "<f2")
    FP32 = ("FP32", "<f4")
    FP64 = ("FP64", "<f8")
    BF16 = ("BF16", "<u2")
    BYTES = ("BYTES", "O")

    def __init__(self, label: str, code: str) -> None:
        self.label = label
        self.dtype = np.dtype(code)
        self.is_float = label in ("FP16", "FP32", "FP64", "BF16")
        self.is_integer = "INT" in label

    @property
    def itemsize_bytes(self) -> int:
        """Bytes an element takes on the wire; 0 for BYTES, whose elements vary."""
        return 0 if self is DataType.BYTES else self.dtype.itemsize


_ANY_ROWS = (-1,)

DATATYPES: Mapping[str, DataType] = {datatype.label: datatype for datatype in DataType}


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, datatype and shape of one input or output.

    Attributes:
        shape: sizes with the batch dimension first when the signature is batched; -1 means any.
        labels: names of the columns, where an output came from a map of named scores, or a model was fitted on a
            table whose columns are one input.
    """

    name: str
    datatype: DataType
    shape: tuple[int, ...]
    labels: tuple[str, ...] = ()

    def accepts(self, shape: Sequence[int]) -> bool:
        """True when `shape` fits this spec."""
        if len(shape) != len(self.shape):
            return False
        return all(want in (-1, got) for want, got in zip(self.shape, shape, strict=True))


@dataclass(frozen=True, slots=True)
class Signature:
    """The named inputs and outputs of a model, in the model's own order.

    Attributes:
        batched: axis 0 of every input and output counts rows that do not influence one another.
        items: the one input and the one output are BYTES of shape [rows], and hold JSON texts: the items and the
            predictions of user code. In place of a prediction may stand a `PacelineError`, the row's own.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    batched: bool
    items: bool = False
    _input_index: dict[str, int] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._input_index.update({spec.name: index for index, spec in enumerate(self.inputs)})

    def input_named(self, name: str) -> TensorSpec | None:
        """The input of that name, or None."""
        index = self._input_index.get(name)
        return None if index is None else self.inputs[index]

    def bind(self, named: Mapping[str, Array], model: str = "") -> Tensors:
        """Order `named` arrays as the model's inputs and check every one.

        Raises:
            SignatureMismatch: an input is missing, unknown, or of another shape.
        """
        if len(named) != len(self.inputs) or any(spec.name not in named for spec in self.inputs):
            raise self._wrong_names(named, model)
        arrays = tuple(named[spec.name] for spec in self.inputs)
        self.check(arrays, model)
        return arrays

    def check(self, arrays: Tensors, model: str = "") -> None:
        """Check shapes and, when batched, that all inputs have the same number of rows.

        Raises:
            SignatureMismatch: naming the input, the expected shape and the one that came.
        """
        for spec, array in zip(self.inputs, arrays, strict=True):
            # Closed trailing shapes, the usual case, compare in one step; `accepts` walks the axes.
            shape = array.shape
            known = shape[1:] == spec.shape[1:] and spec.shape[:1] == _ANY_ROWS and shape
            if not known and not spec.accepts(shape):
                raise SignatureMismatch(
                    f"unexpected shape for input '{spec.name}' for model '{model}'. "
                    f"Expected {_brackets(spec.shape)}, got {_brackets(array.shape)}.",
                    details=[Detail(f"inputs.{spec.name}", f"expected {_brackets(spec.shape)}")],
                    model=model,
                )
        if self.batched and len(arrays) > 1:
            rows = {array.shape[0] for array in arrays}
            if len(rows) > 1:
                shown = ", ".join(f"{s.name}: {a.shape[0]}" for s, a in zip(self.inputs, arrays, strict=True))
                raise SignatureMismatch(f"inputs differ in their number of rows: {shown}", model=model)

    def _wrong_names(self, named: Mapping[str, Array], model: str) -> SignatureMismatch:
        wanted = [spec.name for spec in self.inputs]
        missing = [name for name in wanted if name not in named]
        unknown = [name for name in named if name not in wanted]
        if missing:
            return SignatureMismatch(
                f"expected {len(wanted)} inputs but got {len(named)} inputs for model '{model}'. "
                f"Got input(s) {_names(named)}, but missing required input(s) {_names(missing)}. "
                "Please provide all required input(s).",
                details=[Detail(f"inputs.{name}", "missing") for name in missing],
                model=model,
            )
        return SignatureMismatch(
            f"unexpected inference input {_names(unknown)} for model '{model}'. Its inputs are {_names(wanted)}.",
            details=[Detail(f"inputs.{name}", "unknown") for name in unknown],
            model=model,
        )


def column(elements: Sequence[Any]) -> Array:
    """An array of objects, of one axis, that holds the elements as they are."""
    array = np.empty(len(elements), object)
    array[:] = elements
    return array


def bf16_to_float32(bits: Array) -> Array:
    """The numbers that BF16 bit patterns stand for."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def group_of(arrays: Tensors) -> tuple[tuple[int, ...], ...]:
    """Key of what may share a batch: the trailing shapes of all inputs."""
    return tuple([array.shape[1:] for array in arrays])


def _brackets(shape: Sequence[int]) -> str:
    return "[" + ",".join(str(size) for size in shape) + "]"


def _names(names: Mapping[str, Any] | Sequence[str]) -> str:
    return "[" + ", ".join(f"'{name}'" for name in names) + "]"
