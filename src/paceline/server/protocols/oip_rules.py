"""What must a request of the Open Inference Protocol fulfil, whether it came as JSON or as a protobuf message?

Rules:
- Texts are those that Triton's clients know.
- Requested outputs decide which come back and in which order; none may be named twice.
- Parameters that are not known are ignored, but for those that start with `triton_`.
- A shape is checked before it is multiplied: the product of a million large numbers takes minutes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple, NoReturn, Protocol

import numpy as np

from paceline.core.errors import Detail, InvalidRequest, SignatureMismatch
from paceline.core.tensors import Array, Signature, Tensors, TensorSpec
from paceline.server.protocols import item_codec

_MAX_ELEMENTS: Final = 2**63 - 1
_MAX_RANK: Final = 32
_MAX_TIMEOUT_US: Final = 24 * 3600 * 1_000_000


class Wanted(NamedTuple):
    """One output that a request wants.

    Attributes:
        position: which of the model's outputs.
        top: how many of the best classes are wanted in place of the tensor; 0: the tensor.
    """

    position: int
    spec: TensorSpec
    binary: bool
    top: int = 0


class Described(Protocol):
    """An input as a request describes it."""

    @property
    def name(self) -> str: ...

    @property
    def datatype(self) -> str: ...


class Rules:
    """The rules for one model."""

    def __init__(self, model: str, signature: Signature) -> None:
        self.model = model
        self.signature = signature
        self.outputs = {spec.name: (index, spec) for index, spec in enumerate(signature.outputs)}

    def input(self, tensors: Sequence[Described], position: int, named: dict[str, Array]) -> TensorSpec:
        """The input that a tensor is for.

        Args:
            named: what has been read of the others.

        Raises:
            SignatureMismatch: the model has none of that name and datatype, or it came before.
        """
        tensor = tensors[position]
        name = tensor.name
        spec = self.signature.input_named(name)
        if spec is None:
            self._refuse_names(tensors)
        if name in named:
            raise SignatureMismatch(f"input '{name}' already exists in request", model=self.model)
        if tensor.datatype != spec.datatype.label:
            raise SignatureMismatch(
                f"inference input '{name}' data-type is '{tensor.datatype[:40]}', "
                f"but model '{self.model}' expects '{spec.datatype.label}'",
                details=[Detail(f"inputs[{position}].datatype", f"expected {spec.datatype.label}")],
                model=self.model,
            )
        return spec

    def bind(self, tensors: Sequence[Described], named: dict[str, Array]) -> Tensors:
        """The inputs in the model's order, checked.

        Raises:
            SignatureMismatch: one is missing, or of another shape.
        """
        specs = self.signature.inputs
        if len(named) != len(specs):
            self._refuse_names(tensors)
        arrays = tuple([named[spec.name] for spec in specs])
        self.signature.check(arrays, self.model)
        return (item_codec.texts(arrays[0], specs[0].name),) if self.signature.items else arrays

    def output(self, name: str) -> tuple[int, TensorSpec]:
        """Position and spec of a requested output.

        Raises:
            SignatureMismatch: the model has none of that name.
        """
        found = self.outputs.get(name)
        if found is None:
            raise SignatureMismatch(
                f"unexpected inference output '{name[:200]}' for model '{self.model}'. "
                f"Its outputs are {list(self.outputs)}",
                model=self.model,
            )
        return found

    def distinct(self, wanted: tuple[Wanted, ...]) -> tuple[Wanted, ...]:
        """The requested outputs, of which none may be there twice.

        Raises:
            SignatureMismatch: one is.
        """
        if len({each.position for each in wanted}) != len(wanted):
            names = [each.spec.name for each in wanted]
            name = next(name for name in names if names.count(name) > 1)
            raise SignatureMismatch(f"output '{name}' already exists in request", model=self.model)
        return wanted

    def wrong_count(self, where: str, shape: Sequence[int], name: str, count: int, got: int) -> SignatureMismatch:
        """The error of an input whose shape and number of elements contradict one another.

        Args:
            where: the field with the elements.
        """
        return SignatureMismatch(
            f"Shape does not match true shape of '{where.rpartition('.')[2]}' field: "
            f"input '{name}' of shape {brackets(shape)} has {count} elements, got {got}",
            details=[Detail(where, f"expected {count} elements, got {got}")],
            model=self.model,
        )

    def _refuse_names(self, tensors: Sequence[Described]) -> NoReturn:
        nothing = np.empty(0)
        self.signature.bind({tensor.name: nothing for tensor in tensors}, self.model)
        raise AssertionError("the names fit")


def refuse_reserved(keys: Iterable[str]) -> None:
    """Check the names of a request's parameters.

    Raises:
        InvalidRequest: one is reserved.
    """
    for key in keys:
        if key.startswith("triton_"):
            raise InvalidRequest(
                "parameter keys starting with 'triton_' are reserved for Triton usage and should not be specified."
            )


def timeout_s(timeout_us: Any) -> float:
    """The parameter `timeout` in seconds; 0.0: none.

    Raises:
        InvalidRequest: it is not a whole number of microseconds.
    """
    if not isinstance(timeout_us, int) or isinstance(timeout_us, bool) or timeout_us < 0:
        raise InvalidRequest("Unable to parse 'timeout': expected microseconds, a whole number")
    return min(timeout_us, _MAX_TIMEOUT_US) / 1e6


def count_elements(shape: Sequence[int], name: str, where: str) -> int:
    """Elements of a tensor of that shape.

    Args:
        where: the tensor's place in the request.

    Raises:
        SignatureMismatch: there is no such tensor.
    """
    if shape and min(shape) < 0:
        raise SignatureMismatch(
            "Unable to parse 'shape': attempt to access JSON non-unsigned-integer as unsigned-integer",
            details=[Detail(where + ".shape", f"a size of input '{name}' is negative")],
        )
    if len(shape) > _MAX_RANK or max(shape, default=0) > _MAX_ELEMENTS:
        raise _impossible(shape, name, where)
    count = math.prod(shape)
    if count > _MAX_ELEMENTS:
        raise _impossible(shape, name, where)
    return count


def shaped(array: Array, shape: Sequence[int], name: str, where: str) -> Array:
    """The tensor in its shape.

    Raises:
        SignatureMismatch: nothing can have that shape.
    """
    try:
        return array.reshape(shape)
    except ValueError as error:  # sizes beyond the address space, beside one of 0
        raise _impossible(shape, name, where) from error


def no_region(name: str) -> InvalidRequest:
    """The error of a tensor in shared memory."""
    return InvalidRequest(
        f"Unable to find shared memory region: '{name[:200]}'",
        hint="shared memory is not offered: send the tensor",
    )


def brackets(shape: Sequence[int]) -> str:
    """A shape, for people."""
    text = ",".join(str(size) if size <= _MAX_ELEMENTS else "..." for size in shape[:_MAX_RANK])
    return f"[{text},...]" if len(shape) > _MAX_RANK else f"[{text}]"


def _impossible(shape: Sequence[int], name: str, where: str) -> SignatureMismatch:
    return SignatureMismatch(
        f"input '{name}' has an impossible shape: {brackets(shape)}",
        details=[Detail(where + ".shape", "too large")],
    )
