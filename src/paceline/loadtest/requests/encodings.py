"""How do inputs become the body of a request, in each protocol?

    plain        ITEM, or [ITEM, ...] for several rows
    oip          {"inputs": [{"name", "shape", "datatype", "data"}, ...]}
    oip-binary   the same without data, which follows as bytes
    tfs          {"instances": [ITEM, ...]}; {"inputs": ITEM} for a model without rows
    oip-grpc     ModelInferRequest with raw_input_contents
    tfs-grpc     PredictRequest with tensor_content

Rules:
- Inputs are tensors in the order of the signature, [rows, ...]. Those of code that takes any JSON are one column of
  texts, which are sent as they are written.
- All bodies of a target have the same headers: the JSON before binary tensors is filled up to one length.
- Floats are written with the fewest digits that give the same number back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import quote

import numpy as np

from paceline.core.errors import ConfigError
from paceline.core.tensors import Array, DataType, Signature, Tensors, TensorSpec
from paceline.loadtest.requests.servers import DEFAULT_SIGNATURE, ITEMS, Model
from paceline.loadtest.target import Protocol, Wire
from paceline.server.json_tensors import dumps, to_json

_JSON: Final = ("content-type", "application/json")
_OCTETS: Final = ("content-type", "application/octet-stream")
_LENGTH: Final = "inference-header-content-length"
_TFS_TYPES: Final = {
    DataType.FP16: "HALF",
    DataType.BF16: "BFLOAT16",
    DataType.FP32: "FLOAT",
    DataType.FP64: "DOUBLE",
    DataType.BYTES: "STRING",
}


class Encoded(NamedTuple):
    """Requests.

    Attributes:
        path: of all, behind the server's prefix.
    """

    path: str
    bodies: tuple[bytes, ...]
    headers: tuple[tuple[str, str], ...] = ()
    wire: Wire = "http1"


def encode(protocol: Protocol, model: Model, inputs: Sequence[Tensors]) -> Encoded:
    """Requests with these inputs, one each.

    Raises:
        ConfigError: the protocol cannot carry them.
    """
    signature = model.signature or ITEMS
    refused = _NOT_IN.get(protocol, ())
    for spec in signature.inputs:
        if spec.datatype in refused:
            raise ConfigError(
                f"input '{spec.name}' is {spec.datatype.label}, which the protocol {protocol} cannot carry",
                hint="--protocol oip-binary, or oip-grpc",
            )
    return _ENCODERS[protocol](model, signature, inputs)


def carries(protocol: Protocol, signature: Signature | None) -> bool:
    """True when the protocol has all datatypes of the inputs."""
    refused = _NOT_IN.get(protocol, ())
    return signature is None or not any(spec.datatype in refused for spec in signature.inputs)


def route(protocol: Protocol, model: Model) -> Encoded:
    """Where requests of one row go; no bodies."""
    if protocol in ("plain", "raw"):
        return Encoded(model.path, ())
    return _ROUTES[protocol](model)


# -- plain JSON -----------------------------------------------------------------------------------------------


def _plain(model: Model, signature: Signature, inputs: Sequence[Tensors]) -> Encoded:
    several = model.takes_lists or (signature.batched and len(inputs[0][0]) != 1)
    path = model.lists_path if several else model.path
    written = [items(signature, each) for each in inputs]
    bodies = [b"[" + b",".join(each) + b"]" if several else each[0] for each in written]
    # A service that streams is to give all parts at once.
    return Encoded(path, tuple(bodies), (_JSON, ("accept", "application/json")))


def items(signature: Signature, inputs: Tensors) -> list[bytes]:
    """JSON of each row: a bare value where there is one input, else an object by name."""
    if signature.items:
        return list(inputs[0])
    if not signature.batched:
        return [_item(signature, inputs)]
    return [_item(signature, [array[row, ...] for array in inputs]) for row in range(len(inputs[0]))]


def _item(signature: Signature, values: Sequence[Array]) -> bytes:
    shown = [_shown(value, spec) for value, spec in zip(values, signature.inputs, strict=True)]
    if len(shown) == 1:
        return dumps(shown[0])
    return dumps({spec.name: each for spec, each in zip(signature.inputs, shown, strict=True)})


def _shown(value: Array, spec: TensorSpec) -> Any:
    # Half precision is written as single, or 0.1257 would become 0.12573242.
    return to_json(np.asarray(value, np.float32 if spec.datatype is DataType.FP16 else None))


# -- TensorFlow Serving ---------------------------------------------------------------------------------------


def _tfs(model: Model, signature: Signature, inputs: Sequence[Tensors]) -> Encoded:
    named = b"" if model.signature_name == DEFAULT_SIGNATURE else dumps(model.signature_name)
    head = b'{"signature_name":' + named + b"," if named else b"{"
    if signature.batched:
        bodies = [head + b'"instances":[' + b",".join(items(signature, each)) + b"]}" for each in inputs]
    else:
        bodies = [head + b'"inputs":' + items(signature, each)[0] + b"}" for each in inputs]
    return _tfs_route(model)._replace(bodies=tuple(bodies), headers=(_JSON,))


def _tfs_route(model: Model) -> Encoded:
    version = f"/versions/{quote(model.version, safe='')}" if model.version else ""
    return Encoded(f"/v1/models/{quote(model.name, safe='')}{version}:predict", ())


def _tfs_grpc(model: Model, signature: Signature, inputs: Sequence[Tensors]) -> Encoded:
    request = _message("tensorflow.serving.PredictRequest")
    spec: dict[str, Any] = {"name": model.name, "signature_name": model.signature_name}
    if model.version:
        spec["version"] = {"value": _number(model)}
    bodies = []
    for each in inputs:
        tensors = {tensor.name: _proto(array, tensor) for array, tensor in zip(each, signature.inputs, strict=True)}
        bodies.append(request(model_spec=spec, inputs=tensors).SerializeToString(deterministic=True))
    return _TFS_GRPC._replace(bodies=tuple(bodies))


def _proto(array: Array, spec: TensorSpec) -> Any:
    tensor = _message("tensorflow.TensorProto")
    word = f"DT_{_TFS_TYPES.get(spec.datatype, spec.datatype.label)}"
    number = tensor.DESCRIPTOR.fields_by_name["dtype"].enum_type.values_by_name[word].number
    shape = {"dim": [{"size": size} for size in array.shape]}
    if spec.datatype is DataType.BYTES:
        return tensor(dtype=number, tensor_shape=shape, string_val=_texts(array))
    return tensor(dtype=number, tensor_shape=shape, tensor_content=array.tobytes())


def _number(model: Model) -> int:
    if not model.version.isdecimal():
        raise ConfigError(f"version '{model.version}' of model '{model.name}': expected a number")
    return int(model.version)


# -- Open Inference -------------------------------------------------------------------------------------------


def _oip_route(model: Model) -> Encoded:
    version = f"/versions/{quote(model.version, safe='')}" if model.version else ""
    return Encoded(f"/v2/models/{quote(model.name, safe='')}{version}/infer", ())


def _oip(model: Model, signature: Signature, inputs: Sequence[Tensors]) -> Encoded:
    bodies = []
    for each in inputs:
        tensors = [
            {**_described(array, spec), "data": _flat(array)}
            for array, spec in zip(each, signature.inputs, strict=True)
        ]
        bodies.append(dumps({"inputs": tensors}))
    return _oip_route(model)._replace(bodies=tuple(bodies), headers=(_JSON,))


def _oip_binary(model: Model, signature: Signature, inputs: Sequence[Tensors]) -> Encoded:
    heads, tails = [], []
    for each in inputs:
        blobs = [_octets(array) for array in each]
        tensors = [
            {**_described(array, spec), "parameters": {"binary_data_size": len(blob)}}
            for array, spec, blob in zip(each, signature.inputs, blobs, strict=True)
        ]
        heads.append(dumps({"inputs": tensors, "parameters": {"binary_data_output": True}}))
        tails.append(b"".join(blobs))
    length = max(map(len, heads))
    bodies = [head.ljust(length) + tail for head, tail in zip(heads, tails, strict=True)]
    return _oip_route(model)._replace(bodies=tuple(bodies), headers=(_OCTETS, (_LENGTH, str(length))))


def _oip_grpc(model: Model, signature: Signature, inputs: Sequence[Tensors]) -> Encoded:
    request = _message("inference.ModelInferRequest")
    bodies = [
        request(
            model_name=model.name,
            model_version=model.version,
            inputs=[_described(array, spec) for array, spec in zip(each, signature.inputs, strict=True)],
            raw_input_contents=[_octets(array) for array in each],
        ).SerializeToString(deterministic=True)
        for each in inputs
    ]
    return _OIP_GRPC._replace(bodies=tuple(bodies))


def _described(array: Array, spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype.label, "shape": list(array.shape)}


def _flat(array: Array) -> Any:
    if array.dtype == object:
        return [text.decode() for text in _texts(array)]
    return to_json(np.ravel(array))


def _octets(array: Array) -> bytes:
    """A tensor as raw bytes; strings each behind its length in four bytes."""
    if array.dtype != object:
        return np.ascontiguousarray(array).tobytes()
    return b"".join([len(text).to_bytes(4, "little") + text for text in _texts(array)])


def _texts(array: Array) -> list[bytes]:
    return [text if isinstance(text, bytes) else str(text).encode() for text in array.ravel().tolist()]


def _message(name: str) -> Any:
    """A message's class; protobuf is loaded for whoever wants gRPC."""
    from paceline.server.messages import message

    return message(name)


_OIP_GRPC: Final = Encoded("/inference.GRPCInferenceService/ModelInfer", (), wire="grpc")
_TFS_GRPC: Final = Encoded("/tensorflow.serving.PredictionService/Predict", (), wire="grpc")
_ROUTES: Final[dict[Protocol, Callable[[Model], Encoded]]] = {
    "oip": _oip_route,
    "oip-binary": _oip_route,
    "tfs": _tfs_route,
    "oip-grpc": lambda _: _OIP_GRPC,
    "tfs-grpc": lambda _: _TFS_GRPC,
}
_HALVES: Final = (DataType.FP16, DataType.BF16)
_NOT_IN: Final[dict[Protocol, Sequence[DataType]]] = {
    "plain": (DataType.BF16,),
    "oip": _HALVES,
    "tfs": _HALVES,
}
_ENCODERS: Final[dict[Protocol, Callable[[Model, Signature, Sequence[Tensors]], Encoded]]] = {
    "plain": _plain,
    "oip": _oip,
    "oip-binary": _oip_binary,
    "tfs": _tfs,
    "oip-grpc": _oip_grpc,
    "tfs-grpc": _tfs_grpc,
}
