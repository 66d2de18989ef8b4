"""Calls TensorFlow Serving's gRPC methods by hand: messages of the server's own descriptors over a real channel."""

from __future__ import annotations

from typing import Any

import grpc
import numpy as np

from paceline.server.messages import message

TENSOR = message("tensorflow.TensorProto")
TYPES = TENSOR.DESCRIPTOR.fields_by_name["dtype"].enum_type.values_by_name
KINDS = {
    "Predict": "PredictionService",
    "Classify": "PredictionService",
    "Regress": "PredictionService",
    "GetModelMetadata": "PredictionService",
    "GetModelStatus": "ModelService",
    "HandleReloadConfigRequest": "ModelService",
}
MESSAGES = {"Classify": "Classification", "Regress": "Regression", "HandleReloadConfigRequest": "ReloadConfig"}
# numpy's name of a type -> TensorFlow's, and the field of its values
FIELDS = {
    "float32": ("DT_FLOAT", "float_val"),
    "float64": ("DT_DOUBLE", "double_val"),
    "int8": ("DT_INT8", "int_val"),
    "int16": ("DT_INT16", "int_val"),
    "int32": ("DT_INT32", "int_val"),
    "int64": ("DT_INT64", "int64_val"),
    "uint8": ("DT_UINT8", "int_val"),
    "uint16": ("DT_UINT16", "int_val"),
    "uint32": ("DT_UINT32", "uint32_val"),
    "uint64": ("DT_UINT64", "uint64_val"),
    "bool": ("DT_BOOL", "bool_val"),
    "object": ("DT_STRING", "string_val"),
}


def ask(channel: grpc.Channel, method: str, /, *, timeout: float = 20, **fields: Any) -> Any:
    """Call a method: the fields of its request, its response."""
    name = MESSAGES.get(method, method)
    request, response = message(f"tensorflow.serving.{name}Request"), message(f"tensorflow.serving.{name}Response")
    path = f"/tensorflow.serving.{KINDS[method]}/{method}"
    call = channel.unary_unary(path, request.SerializeToString, response.FromString)
    return call(request(**fields), timeout=timeout)


def refused(channel: grpc.Channel, method: str, /, code: str = "INVALID_ARGUMENT", **fields: Any) -> str:
    """The message of a call that must be an error."""
    try:
        ask(channel, method, **fields)
    except grpc.RpcError as error:
        assert error.code().name == code, error
        return str(error.details())
    raise AssertionError("it was answered")


def tensor(dtype: str, shape: tuple[int, ...] | list[int], **values: Any) -> Any:
    """A tensor of a type and a shape, with these fields."""
    return TENSOR(dtype=TYPES[dtype].number, tensor_shape={"dim": [{"size": size} for size in shape]}, **values)


def typed(array: np.ndarray) -> Any:
    """An array as typed values."""
    dtype, field = FIELDS[array.dtype.name]
    items = [item.encode() if isinstance(item, str) else item for item in array.ravel().tolist()]
    return tensor(dtype, array.shape, **{field: items})


def raw(array: np.ndarray) -> Any:
    """An array as its bytes; strings, which have none, as values."""
    if array.dtype == object:
        return typed(array)
    return tensor(FIELDS[array.dtype.name][0], array.shape, tensor_content=array.tobytes())


def array_of(output: Any) -> np.ndarray:
    """What a response holds: typed values, all of them."""
    assert not output.tensor_content
    shape = [dim.size for dim in output.tensor_shape.dim]
    name = TENSOR.DESCRIPTOR.fields_by_name["dtype"].enum_type.values_by_number[output.dtype].name
    if name == "DT_BFLOAT16":
        return (np.array(output.half_val, np.uint32) << 16).view(np.float32).reshape(shape)
    if name == "DT_HALF":
        return np.array(output.half_val, np.uint16).view(np.float16).reshape(shape)
    kind, field = next((kind, field) for kind, (dtype, field) in FIELDS.items() if dtype == name)
    items = [item.decode() if kind == "object" else item for item in getattr(output, field)]
    return np.array(items, kind).reshape(shape)


def examples(*rows: dict[str, Any], context: dict[str, Any] | None = None) -> dict[str, Any]:
    """An Input: floats, integers and strings by feature name."""
    found = [{"features": {"feature": {name: _feature(each) for name, each in row.items()}}} for row in rows]
    if context is None:
        return {"example_list": {"examples": found}}
    shared = {"features": {"feature": {name: _feature(each) for name, each in context.items()}}}
    return {"example_list_with_context": {"examples": found, "context": shared}}


def _feature(values: list[Any]) -> dict[str, Any]:
    kinds = {float: "float_list", int: "int64_list", bytes: "bytes_list"}
    return {kinds[type(values[0])]: {"value": values}}
