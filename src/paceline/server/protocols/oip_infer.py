"""Reads inference requests of one model in JSON, with or without binary tensors, and writes the responses.

Rules:
- `data` is flat or nested, row-major; the number of elements must be that of `shape`. Lists of unequal length
  are refused, although the number might be right: they are a mistake that would go unnoticed.
- `binary_data_output` holds only for outputs that are not listed: a listed one is JSON unless it says `binary_data`.
- FP16 and BF16 travel in binary only.
- Fields that are not known are ignored.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Final, NamedTuple

import msgspec

from paceline.core.errors import Detail, InvalidRequest
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
from paceline.server.protocols import item_codec
from paceline.server.protocols.oip_binary import OCTETS, Blobs, json_length, raw_input, to_bytes
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

_MAX_NESTING: Final = 100
_OPENING: Final = re.compile(rb"[\[ \t\r\n]*")
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
        self._rules = Rules(model, signature)
        self._all_json = tuple(Wanted(index, spec, False) for index, spec in self._rules.outputs.values())
        self._all_binary = tuple(Wanted(index, spec, True) for index, spec in self._rules.outputs.values())

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
                name = self._signature.inputs[0].name
                inputs = self._signature.bind({name: array})
                return Asked((item_codec.texts(array, name),) if self._signature.items else inputs, self._all_binary)
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
        rules, named = self._rules, dict[str, Array]()
        for position, tensor in enumerate(tensors):
            spec = rules.input(tensors, position, named)
            named[tensor.name] = self._array(tensor, spec, blobs, f"inputs[{position}]")
        return rules.bind(tensors, named)

    def _array(self, tensor: _Input, spec: TensorSpec, blobs: Blobs, where: str) -> Array:
        count = count_elements(tensor.shape, spec.name, where)
        parameters, data = tensor.parameters, tensor.data
        if parameters is not None and parameters.shared_memory_region is not None:
            raise no_region(parameters.shared_memory_region)
        size_bytes = None if parameters is None else parameters.binary_data_size
        if (len(data) == 0) is (size_bytes is None):
            raise InvalidRequest(
                f"input '{spec.name}' must have exactly one of 'data' and the parameter 'binary_data_size'",
                details=[Detail(where, "expected one of: data, parameters.binary_data_size")],
            )
        if size_bytes is not None:
            return shaped(blobs.take(spec, count, size_bytes), tensor.shape, spec.name, where)
        array = self._json(data, spec, not tensor.shape, where + ".data")
        if array.size != count:
            raise self._rules.wrong_count(where + ".data", tensor.shape, spec.name, count, array.size)
        return shaped(array, tensor.shape, spec.name, where)

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
            wanted = self._rules.distinct(tuple([self._one_wanted(output) for output in outputs]))
        if self._has_binary_only:
            self._refuse_json(wanted)
        return wanted

    def _one_wanted(self, output: _Output) -> Wanted:
        index, spec = self._rules.output(output.name)
        parameters = output.parameters
        if parameters is None:
            return Wanted(index, spec, False)
        if parameters.shared_memory_region is not None:
            raise no_region(parameters.shared_memory_region)
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


def _parameters(given: dict[str, Any]) -> tuple[bool, float]:
    """`binary_data_output`, and `timeout` in seconds."""
    refuse_reserved(given)
    binary = given.get("binary_data_output", False)
    if not isinstance(binary, bool):
        raise InvalidRequest("Unable to parse 'binary_data_output': expected true or false")
    return binary, timeout_s(given.get("timeout", 0))


def _nesting(data: msgspec.Raw) -> int:
    """How deep the first element of a JSON value lies."""
    opening = _OPENING.match(memoryview(data))
    return opening.group().count(b"[") if opening else 0
