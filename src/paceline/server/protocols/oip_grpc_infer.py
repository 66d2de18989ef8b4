"""Reads inference requests of one model in protobuf messages, and writes the responses.

Rules:
- Tensors come raw, all of them, or typed, all of them. FP16 and BF16 have no typed field.
- Responses are always raw: Triton's client reads nothing else.
- Around its tensors, a request looks like the one before it. Such a request is not parsed: see `oip_grpc_forms`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

import numpy as np

from paceline.core.errors import DecodeError, InvalidRequest, SignatureMismatch
from paceline.core.requests import InferRequest
from paceline.core.tensors import Array, DataType, Signature, Tensors, TensorSpec
from paceline.server.calls import Encoded
from paceline.server.messages import message, varint
from paceline.server.protocols.oip_binary import Blobs, to_bytes
from paceline.server.protocols.oip_classes import classes, require_classes
from paceline.server.protocols.oip_rules import (
    Rules,
    Wanted,
    count_elements,
    no_region,
    refuse_reserved,
    shaped,
    timeout_s,
)

REQUEST: Final = message("inference.ModelInferRequest")
_RESPONSE: Final = message("inference.ModelInferResponse")

_CONTENTS: Final = {
    DataType.BOOL: "bool_contents",
    DataType.INT8: "int_contents",
    DataType.INT16: "int_contents",
    DataType.INT32: "int_contents",
    DataType.INT64: "int64_contents",
    DataType.UINT8: "uint_contents",
    DataType.UINT16: "uint_contents",
    DataType.UINT32: "uint_contents",
    DataType.UINT64: "uint64_contents",
    DataType.FP32: "fp32_contents",
    DataType.FP64: "fp64_contents",
    DataType.BYTES: "bytes_contents",
}
_NARROW: Final = (DataType.INT8, DataType.INT16, DataType.UINT8, DataType.UINT16)
_ID: Final = b"\x1a"
_RAW_OUTPUT: Final = b"\x32"
_FINAL_KEY: Final = "triton_enable_empty_final_response"
# What a client that asks whether a response is the last of its request gets to read; here there is one for each.
_FINAL: Final[bytes] = _RESPONSE(parameters={"triton_final_response": {"bool_param": True}}).SerializeToString()
# Below this a copy costs less than a view.
_SMALL_BYTES: Final = 16 << 10


class Asked(NamedTuple):
    """A request, understood.

    Attributes:
        echo: fields of the response that follow from the request alone: its id, and whether it is the last.
        timeout_s: how long the client waits; 0.0 when it did not say.
    """

    inputs: Tensors
    wanted: tuple[Wanted, ...]
    echo: bytes = b""
    timeout_s: float = 0.0


class Codec:
    """Reads requests and writes responses of one model."""

    def __init__(self, model: str, version: str, signature: Signature) -> None:
        self.signature = signature
        self._model = model
        self._rules = Rules(model, signature)
        self._all = tuple(Wanted(index, spec, True) for index, spec in self._rules.outputs.values())
        self._head: bytes = _RESPONSE(model_name=model, model_version=version).SerializeToString()

    def read(self, request: Any) -> Asked:
        """Understand a request.

        Raises:
            InvalidRequest: it does not fit the model.
        """
        inputs = self._inputs(request)
        wanted = self._wanted(request.outputs) if request.outputs else self._all
        echo = id_field(request.id.encode()) if request.id else b""
        if not request.parameters:
            return Asked(inputs, wanted, echo)
        parameters = {key: _value(value) for key, value in request.parameters.items()}
        if parameters.pop(_FINAL_KEY, False):
            echo += _FINAL
        refuse_reserved(parameters)
        return Asked(inputs, wanted, echo, timeout_s(parameters.get("timeout", 0)))

    def write(self, asked: Asked, request: InferRequest) -> Encoded:
        """The response of a finished request."""
        arrays = request.outputs or ()
        described: list[bytes | memoryview] = [self._head, asked.echo]
        raw: list[bytes | memoryview] = []
        for index, spec, _, top in asked.wanted:
            array = arrays[index]
            if top:
                array = classes(array, spec, top, self.signature.batched)
            datatype = DataType.BYTES if top else spec.datatype
            described.append(_description(spec.name, datatype.label, array.shape))
            data = array.tobytes() if array.nbytes < _SMALL_BYTES and array.dtype.kind != "O" else to_bytes(array)
            raw += (_RAW_OUTPUT, varint(len(data)), data)
        return described + raw, b"", b""

    # -- inputs ----------------------------------------------------------------------------------------------

    def _inputs(self, request: Any) -> Tensors:
        rules, named, raw = self._rules, dict[str, Array](), request.raw_input_contents
        tensors = request.inputs
        for position, tensor in enumerate(tensors):
            spec = rules.input(tensors, position, named)
            if tensor.parameters:
                _refuse_region(tensor.parameters)
            where = f"inputs[{position}]"
            count = count_elements(tensor.shape, spec.name, where)
            if raw:
                flat = self._raw(tensor, spec, raw, position, count)
            else:
                flat = self._typed(tensor, spec, where, count)
            named[spec.name] = shaped(flat, tuple(tensor.shape), spec.name, where)
        if len(raw) > len(tensors):
            raise DecodeError(f"unexpected additional input data for model '{self._model}'")
        return rules.bind(tensors, named)

    def _raw(self, tensor: Any, spec: TensorSpec, raw: Sequence[bytes], position: int, count: int) -> Array:
        if tensor.HasField("contents"):
            raise InvalidRequest(
                "contents field must not be specified when using raw_input_contents "
                f"for '{spec.name}' for model '{self._model}'"
            )
        if position >= len(raw):
            raise DecodeError(
                f"raw_input_contents has {len(raw)} entries, and none for input '{spec.name}' for model '{self._model}'"
            )
        data = raw[position]
        return Blobs(data, 0, self._model).take(spec, count, len(data))

    def _typed(self, tensor: Any, spec: TensorSpec, where: str, count: int) -> Array:
        datatype = spec.datatype
        field = _CONTENTS.get(datatype)
        if field is None:
            raise InvalidRequest(
                f"receiving {datatype.label} data in contents is not supported. "
                f"Please use raw_input_contents for input '{spec.name}'"
            )
        where = f"{where}.contents.{field}"
        items = getattr(tensor.contents, field)
        if len(items) != count:
            raise self._rules.wrong_count(where, tensor.shape, spec.name, count, len(items))
        if datatype in _NARROW and items:
            limits = np.iinfo(datatype.dtype)
            if min(items) < limits.min or max(items) > limits.max:
                raise SignatureMismatch(
                    f"input '{spec.name}': a value of {field} is out of range for {datatype.label}: "
                    f"{limits.min} to {limits.max}"
                )
        array = np.empty(count, datatype.dtype)
        array[:] = items
        return array

    # -- outputs ---------------------------------------------------------------------------------------------

    def _wanted(self, outputs: Sequence[Any]) -> tuple[Wanted, ...]:
        return self._rules.distinct(tuple([self._one_wanted(output) for output in outputs]))

    def _one_wanted(self, output: Any) -> Wanted:
        index, spec = self._rules.output(output.name)
        if not output.parameters:
            return Wanted(index, spec, True)
        _refuse_region(output.parameters)
        top = _value(output.parameters["classification"]) if "classification" in output.parameters else 0
        if not isinstance(top, int) or isinstance(top, bool) or top < 0:
            raise InvalidRequest("Unable to parse 'classification': expected how many classes, a whole number")
        if top:
            require_classes(spec)
        return Wanted(index, spec, True, top)


def id_field(value: bytes) -> bytes:
    """The id, as a field of the response."""
    return b"%b%b%b" % (_ID, varint(len(value)), value)


@lru_cache(maxsize=1024)
def _description(name: str, datatype: str, shape: tuple[int, ...]) -> bytes:
    """An output without its contents, as a field of the response."""
    output = {"name": name, "datatype": datatype, "shape": shape}
    described: bytes = _RESPONSE(outputs=[output]).SerializeToString()
    return described


def _refuse_region(parameters: Mapping[str, Any]) -> None:
    if "shared_memory_region" in parameters:
        raise no_region(str(_value(parameters["shared_memory_region"])))


def _value(parameter: Any) -> Any:
    choice = parameter.WhichOneof("parameter_choice")
    return None if choice is None else getattr(parameter, choice)
