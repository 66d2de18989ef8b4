"""Reads inference requests of one model and writes the responses.

Rules:
- `data` is flat or nested, row-major; the number of elements must be that of `shape`. Lists of unequal length
  are refused, although the number might be right: they are a mistake that would go unnoticed.
- Requested outputs decide which come back and in which order. `binary_data_output` holds only for outputs
  that are not listed: a listed one is JSON unless it says `binary_data`.
- FP16 and BF16 travel in binary only.
- Fields and parameters that are not known are ignored, but for those that start with `triton_`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Annotated, Any, Final, NamedTuple, NoReturn

import msgspec
import numpy as np

from paceline.core.errors import Detail, InvalidRequest, SignatureMismatch
from paceline.core.requests import InferRequest
from paceline.core.tensors import Array, DataType, Signature, Tensors, TensorSpec
from paceline.server.calls import Encoded
from paceline.server.http1 import JSON
from paceline.server.json_tensors import (
    Bytes,
    decode,
    decoder,
    dumps,
    element_type,
    raise_decode_error,
    to_array,
    to_json,
)
from paceline.server.protocols.oip_binary import OCTETS, Blobs, json_length, raw_input, to_bytes
from paceline.server.protocols.oip_classes import classes, require_classes

_MAX_ELEMENTS: Final = 2**63 - 1
_MAX_NESTING: Final = 100
_MAX_RANK: Final = 32
_OPENING: Final = re.compile(rb"[\[ \t\r\n]*")
_MAX_TIMEOUT_US: Final = 24 * 3600 * 1_000_000
_BINARY_ONLY: Final = (DataType.FP16, DataType.BF16)

_NO_DATA: Final = msgspec.Raw()
_Size = Annotated[int, msgspec.Meta(ge=0)]


class _InputParameters(msgspec.Struct, gc=False):
    binary_data_size: _Size | None = None
    shared_memory_region: str | None = None


class _Input(msgspec.Struct, gc=False):
    name: str
    shape: list[int]
    datatype: str
    parameters: _InputParameters | None = None
    data: msgspec.Raw = _NO_DATA


class _OutputParameters(msgspec.Struct, gc=False):
    binary_data: bool = False
    classification: _Size = 0
    shared_memory_region: str | None = None


class _Output(msgspec.Struct, gc=False):
    name: str
    parameters: _OutputParameters | None = None


class _Body(msgspec.Struct, gc=False):
    inputs: list[_Input]
    outputs: list[_Output] | None = None
    parameters: dict[str, Any] | None = None
    id: str | None = None


_BODY: Final = msgspec.json.Decoder(_Body)


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


class Asked(NamedTuple):
    """A request, understood.

    Attributes:
        timeout_s: how long the client waits; 0.0 when it did not say.
    """

    inputs: Tensors
    wanted: tuple[Wanted, ...]
    id: str = ""
    timeout_s: float = 0.0


class Codec:
    """Reads requests and writes responses of one model.

    Args:
        nonfinite: what becomes of NaN and infinity in JSON.
    """

    def __init__(self, model: str, version: str, signature: Signature, nonfinite: str = "error") -> None:
        self._model = model
        self._version = version
        self._signature = signature
        self._nonfinite = nonfinite
        self._flat = {
            spec.name: decoder(element_type(spec.datatype), 1)
            for spec in signature.inputs
            if spec.datatype not in _BINARY_ONLY
        }
        self._has_binary_only = any(spec.datatype in _BINARY_ONLY for spec in signature.outputs)
        self._outputs = {spec.name: (index, spec) for index, spec in enumerate(signature.outputs)}
        self._all_json = tuple(Wanted(index, spec, False) for index, spec in self._outputs.values())
        self._all_binary = tuple(Wanted(index, spec, True) for index, spec in self._outputs.values())

    def read(self, body: Bytes, header: bytes | None) -> Asked:
        """Understand a request.

        Args:
            body: all of it, inflated.
            header: value of `Inference-Header-Content-Length`, if the request has it.

        Raises:
            InvalidRequest: it is malformed or does not fit the model.
        """
        size = len(body)
        if header is not None:
            size = json_length(header, size)
            if size == 0:
                array = raw_input(body, self._signature, self._model)
                return Asked(self._signature.bind({self._signature.inputs[0].name: array}), self._all_binary)
        parsed: _Body = decode(memoryview(body)[:size] if size != len(body) else body, _BODY)
        blobs = Blobs(body, size, self._model)
        inputs = self._inputs(parsed.inputs, blobs)
        blobs.end()
        binary, timeout_s = _parameters(parsed.parameters) if parsed.parameters else (False, 0.0)
        return Asked(inputs, self._wanted(parsed.outputs, binary), parsed.id or "", timeout_s)

    def write(self, asked: Asked, request: InferRequest) -> Encoded:
        """The response of a finished request."""
        arrays = request.outputs or ()
        outputs: list[dict[str, Any]] = []
        blobs: list[bytes | memoryview] = []
        is_binary = False
        for index, spec, binary, top in asked.wanted:
            array, label = arrays[index], spec.datatype.label
            if top:
                array, label = classes(array, spec, top, self._signature.batched), DataType.BYTES.label
            shown: dict[str, Any] = {"name": spec.name, "datatype": label, "shape": array.shape}
            if binary:
                is_binary = True
                blobs.append(to_bytes(array))
                shown["parameters"] = {"binary_data_size": len(blobs[-1])}
            else:
                shown["data"] = to_json(array.reshape(-1), self._nonfinite)
            outputs.append(shown)
        document: dict[str, Any] = {"id": asked.id} if asked.id else {}
        document |= {"model_name": self._model, "model_version": self._version, "outputs": outputs}
        text = dumps(document)
        if not is_binary:
            return text, JSON, b""
        return [text, *blobs], OCTETS, b"inference-header-content-length: %d\r\n" % len(text)

    # -- inputs ----------------------------------------------------------------------------------------------

    def _inputs(self, tensors: list[_Input], blobs: Blobs) -> Tensors:
        named: dict[str, Array] = {}
        for position, tensor in enumerate(tensors):
            name = tensor.name
            spec = self._signature.input_named(name)
            if spec is None:
                self._refuse_names(tensors)
            if name in named:
                raise SignatureMismatch(f"input '{name}' already exists in request", model=self._model)
            if tensor.datatype != spec.datatype.label:
                raise SignatureMismatch(
                    f"inference input '{name}' data-type is '{tensor.datatype[:40]}', "
                    f"but model '{self._model}' expects '{spec.datatype.label}'",
                    details=[Detail(f"inputs[{position}].datatype", f"expected {spec.datatype.label}")],
                    model=self._model,
                )
            named[name] = self._array(tensor, spec, blobs, f"inputs[{position}]")
        specs = self._signature.inputs
        if len(named) != len(specs):
            self._refuse_names(tensors)
        arrays = tuple([named[spec.name] for spec in specs])
        self._signature.check(arrays, self._model)
        return arrays

    def _refuse_names(self, tensors: list[_Input]) -> NoReturn:
        nothing = np.empty(0)
        self._signature.bind({tensor.name: nothing for tensor in tensors}, self._model)
        raise AssertionError("the names fit")

    def _array(self, tensor: _Input, spec: TensorSpec, blobs: Blobs, where: str) -> Array:
        count = _count(tensor.shape, spec.name, where)
        parameters, data = tensor.parameters, tensor.data
        if parameters is not None and parameters.shared_memory_region is not None:
            raise _no_region(parameters.shared_memory_region)
        size_bytes = None if parameters is None else parameters.binary_data_size
        if (len(data) == 0) is (size_bytes is None):
            raise InvalidRequest(
                f"input '{spec.name}' must have exactly one of 'data' and the parameter 'binary_data_size'",
                details=[Detail(where, "expected one of: data, parameters.binary_data_size")],
            )
        if size_bytes is not None:
            return _shaped(blobs.take(spec, count, size_bytes), tensor.shape, spec.name, where)
        array = self._json(data, spec, not tensor.shape, where + ".data")
        if array.size != count:
            raise SignatureMismatch(
                "Shape does not match true shape of 'data' field: "
                f"input '{spec.name}' of shape {_brackets(tensor.shape)} "
                f"has {count} elements, got {array.size}",
                details=[Detail(where + ".data", f"expected {count} elements, got {array.size}")],
                model=self._model,
            )
        return _shaped(array, tensor.shape, spec.name, where)

    def _json(self, data: msgspec.Raw, spec: TensorSpec, is_scalar: bool, where: str) -> Array:
        flat = self._flat.get(spec.name)
        if flat is None:
            raise InvalidRequest(
                f"receiving {spec.datatype.label} data via JSON is not supported. "
                f"Please use the binary data format for input '{spec.name}'",
                model=self._model,
            )
        rank = 1
        try:
            value = flat.decode(data)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            rank = _nesting(data)
            if rank == 1 or (rank == 0 and not is_scalar):
                raise_decode_error(error, data, where)
            if rank > _MAX_NESTING:
                raise InvalidRequest(f"{where}: nested more than {_MAX_NESTING} deep") from error
            value = decode(data, decoder(element_type(spec.datatype), rank), where)
        return to_array(value, spec, rank, where)

    # -- outputs ---------------------------------------------------------------------------------------------

    def _wanted(self, outputs: list[_Output] | None, binary: bool) -> tuple[Wanted, ...]:
        if not outputs:
            wanted = self._all_binary if binary else self._all_json
        else:
            wanted = tuple([self._one_wanted(output) for output in outputs])
            if len({each.position for each in wanted}) != len(wanted):
                self._refuse_duplicates(wanted)
        if self._has_binary_only:
            self._refuse_json(wanted)
        return wanted

    def _one_wanted(self, output: _Output) -> Wanted:
        found = self._outputs.get(output.name)
        if found is None:
            raise SignatureMismatch(
                f"unexpected inference output '{output.name[:200]}' for model '{self._model}'. "
                f"Its outputs are {list(self._outputs)}",
                model=self._model,
            )
        index, spec = found
        parameters = output.parameters
        if parameters is None:
            return Wanted(index, spec, False)
        if parameters.shared_memory_region is not None:
            raise _no_region(parameters.shared_memory_region)
        if parameters.classification:
            require_classes(spec)
        return Wanted(index, spec, parameters.binary_data, parameters.classification)

    def _refuse_json(self, wanted: Sequence[Wanted]) -> None:
        for each in wanted:
            if not each.binary and not each.top and each.spec.datatype in _BINARY_ONLY:
                raise InvalidRequest(
                    f"sending {each.spec.datatype.label} data via JSON is not supported. "
                    f"Please use the binary data format for output '{each.spec.name}'",
                    model=self._model,
                )

    def _refuse_duplicates(self, wanted: Sequence[Wanted]) -> NoReturn:
        names = [each.spec.name for each in wanted]
        name = next(name for name in names if names.count(name) > 1)
        raise SignatureMismatch(f"output '{name}' already exists in request", model=self._model)


def _parameters(given: dict[str, Any]) -> tuple[bool, float]:
    """`binary_data_output`, and `timeout` in seconds."""
    for key in given:
        if key.startswith("triton_"):
            raise InvalidRequest(
                "parameter keys starting with 'triton_' are reserved for Triton usage and should not be specified."
            )
    binary = given.get("binary_data_output", False)
    if not isinstance(binary, bool):
        raise InvalidRequest("Unable to parse 'binary_data_output': expected true or false")
    timeout_us = given.get("timeout", 0)
    if not isinstance(timeout_us, int) or isinstance(timeout_us, bool) or timeout_us < 0:
        raise InvalidRequest("Unable to parse 'timeout': expected microseconds, a whole number")
    return binary, min(timeout_us, _MAX_TIMEOUT_US) / 1e6


def _count(shape: list[int], name: str, where: str) -> int:
    """Elements of a tensor of that shape."""
    if shape and min(shape) < 0:
        raise SignatureMismatch(
            "Unable to parse 'shape': attempt to access JSON non-unsigned-integer as unsigned-integer",
            details=[Detail(where + ".shape", f"a size of input '{name}' is negative")],
        )
    # Before multiplying: the product of a million large numbers takes minutes.
    if len(shape) > _MAX_RANK or max(shape, default=0) > _MAX_ELEMENTS:
        raise _impossible(shape, name, where)
    count = math.prod(shape)
    if count > _MAX_ELEMENTS:
        raise _impossible(shape, name, where)
    return count


def _shaped(array: Array, shape: list[int], name: str, where: str) -> Array:
    try:
        return array.reshape(shape)
    except ValueError as error:  # sizes beyond the address space, beside one of 0
        raise _impossible(shape, name, where) from error


def _impossible(shape: list[int], name: str, where: str) -> SignatureMismatch:
    return SignatureMismatch(
        f"input '{name}' has an impossible shape: {_brackets(shape)}",
        details=[Detail(where + ".shape", "too large")],
    )


def _no_region(name: str) -> InvalidRequest:
    return InvalidRequest(
        f"Unable to find shared memory region: '{name[:200]}'",
        hint="shared memory is not offered: send the tensor",
    )


def _nesting(data: msgspec.Raw) -> int:
    """How deep the first element of a JSON value lies."""
    opening = _OPENING.match(memoryview(data))
    return opening.group().count(b"[") if opening else 0


def _brackets(shape: Sequence[int]) -> str:
    text = ",".join(str(size) if size <= _MAX_ELEMENTS else "..." for size in shape[:_MAX_RANK])
    return f"[{text},...]" if len(shape) > _MAX_RANK else f"[{text}]"
