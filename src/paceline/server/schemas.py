"""JSON Schemas of what a model takes and returns, in each protocol, from its signature."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from paceline.core.tensors import DataType, Signature, TensorSpec

Schema = dict[str, Any]

_FORMATS = {DataType.FP32: "float", DataType.FP64: "double"}
_STATES = ["LOADING", "AVAILABLE", "UNLOADING", "END"]


def element(datatype: DataType, nonfinite: str = "error") -> Schema:
    """One element of a tensor; `nonfinite` as in the settings, for what the server writes."""
    if datatype is DataType.BOOL:
        return {"type": "boolean"}
    if datatype is DataType.BYTES:
        return {"type": "string"}
    if datatype.is_integer:
        bounds = np.iinfo(datatype.dtype)
        return {"type": "integer", "minimum": int(bounds.min), "maximum": int(bounds.max)}
    number: Schema = {"type": "number"}
    if datatype in _FORMATS:
        number["format"] = _FORMATS[datatype]
    if nonfinite == "null":
        number["type"] = ["number", "null"]
    elif nonfinite == "string":
        return {"anyOf": [number, {"enum": ["NaN", "Infinity", "-Infinity"]}]}
    return number


def nested(spec: TensorSpec, shape: Sequence[int], nonfinite: str = "error") -> Schema:
    """Nested arrays of that shape; -1 allows any length."""
    schema = element(spec.datatype, nonfinite)
    for size in reversed(shape):
        schema = {"type": "array", "items": schema}
        if size >= 0:
            schema |= {"minItems": size, "maxItems": size}
    return schema


def item(signature: Signature) -> Schema:
    """What `/predict` takes: the bare value of a single input, else an object by name; any JSON for user code."""
    if signature.items:
        return {"description": "Any JSON that the code takes."}
    return _by_name([(spec.name, nested(spec, _inner(spec, signature))) for spec in signature.inputs])


def prediction(signature: Signature, nonfinite: str) -> Schema:
    """What `/predict` answers."""
    if signature.items:
        return {"description": "The JSON that the code returns for an item."}
    return _by_name([(spec.name, _shown(spec, _inner(spec, signature), nonfinite)) for spec in signature.outputs])


def list_of(schema: Schema) -> Schema:
    """A list of that."""
    return {"type": "array", "items": schema}


def tensorflow_request(signature: Signature, item_ref: Schema) -> Schema:
    """TensorFlow Serving's body: rows in `instances`, or columns in `inputs`; items in either."""
    name = {"type": "string", "description": "`serving_default` where it is not given."}
    if signature.items:
        return {"oneOf": [_items_under("instances", name, item_ref), _items_under("inputs", name, item_ref)]}
    columns = _by_name([(spec.name, nested(spec, spec.shape)) for spec in signature.inputs])
    columnar = {
        "title": "columnar format",
        "type": "object",
        "required": ["inputs"],
        "properties": {"signature_name": name, "inputs": columns},
        "not": {"required": ["instances"]},
    }
    if not signature.batched:
        return columnar
    rows = {
        "title": "row format",
        "type": "object",
        "required": ["instances"],
        "properties": {
            "signature_name": name,
            "instances": {**list_of(item_ref), "minItems": 1},
        },
        "not": {"required": ["inputs"]},
    }
    return {"oneOf": [rows, columnar]}


def _items_under(key: str, name: Schema, item_ref: Schema) -> Schema:
    return {"type": "object", "required": [key], "properties": {"signature_name": name, key: list_of(item_ref)}}


def tensorflow_response(signature: Signature, nonfinite: str) -> Schema:
    """TensorFlow Serving's answer: `predictions` for rows, `outputs` for columns."""
    if signature.items:
        every = list_of(prediction(signature, nonfinite))
        return {
            "oneOf": [
                {"type": "object", "required": [key], "properties": {key: every}} for key in ("predictions", "outputs")
            ]
        }
    rows = _by_name([(spec.name, nested(spec, _inner(spec, signature), nonfinite)) for spec in signature.outputs])
    columns = _by_name([(spec.name, nested(spec, spec.shape, nonfinite)) for spec in signature.outputs])
    return {
        "oneOf": [
            {"type": "object", "required": ["predictions"], "properties": {"predictions": list_of(rows)}},
            {"type": "object", "required": ["outputs"], "properties": {"outputs": columns}},
        ]
    }


def open_inference_request(signature: Signature) -> Schema:
    """The Open Inference Protocol's body, with the model's inputs."""
    wanted = {
        "type": "object",
        "required": ["name"],
        "properties": {
            "name": {"enum": [spec.name for spec in signature.outputs]},
            "parameters": {"$ref": "#/components/schemas/Parameters"},
        },
    }
    return {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {"type": "string", "description": "Comes back in the answer."},
            "parameters": {"$ref": "#/components/schemas/Parameters"},
            "inputs": {
                "type": "array",
                "minItems": len(signature.inputs),
                "maxItems": len(signature.inputs),
                "items": {"oneOf": [_oip_tensor(spec) for spec in signature.inputs]},
            },
            "outputs": {
                **list_of(wanted),
                "description": "Which outputs to return, in this order; all where it is not given.",
            },
        },
    }


def open_inference_response(signature: Signature, nonfinite: str) -> Schema:
    """The Open Inference Protocol's answer."""
    return {
        "type": "object",
        "required": ["model_name", "outputs"],
        "properties": {
            "model_name": {"type": "string"},
            "model_version": {"type": "string"},
            "id": {"type": "string"},
            "outputs": list_of({"oneOf": [_oip_tensor(spec, nonfinite) for spec in signature.outputs]}),
        },
    }


COMMON: dict[str, Schema] = {
    "Error": {
        "type": "object",
        "required": ["error", "code", "request_id"],
        "properties": {
            "error": {"type": "string", "description": "What is wrong, for people."},
            "code": {"type": "string", "description": "What is wrong, for programs: it does not change."},
            "request_id": {"type": "string", "description": "The same as in the header X-Request-Id."},
            "retry_after_ms": {"type": "integer", "minimum": 1, "description": "When to come back."},
            "details": {
                "type": "array",
                "description": "Where in the request it is wrong.",
                "items": {
                    "type": "object",
                    "required": ["path", "message"],
                    "properties": {"path": {"type": "string"}, "message": {"type": "string"}},
                },
            },
        },
    },
    "Parameters": {
        "type": "object",
        "description": "Unknown ones are ignored.",
        "additionalProperties": {"type": ["string", "number", "boolean"]},
    },
    "Tensor": {
        "type": "object",
        "required": ["name", "datatype", "shape"],
        "properties": {
            "name": {"type": "string"},
            "datatype": {"enum": [datatype.label for datatype in DataType]},
            "shape": list_of({"type": "integer", "minimum": -1, "description": "-1 means any size."}),
        },
    },
    "ModelMetadata": {
        "type": "object",
        "required": ["name", "versions", "platform", "inputs", "outputs"],
        "properties": {
            "name": {"type": "string"},
            "versions": list_of({"type": "string"}),
            "platform": {"type": "string"},
            "inputs": list_of({"$ref": "#/components/schemas/Tensor"}),
            "outputs": list_of({"$ref": "#/components/schemas/Tensor"}),
        },
    },
    "Readiness": {
        "type": "object",
        "required": ["ready", "draining", "models"],
        "properties": {
            "ready": {"type": "boolean"},
            "draining": {"type": "boolean"},
            "models": list_of(
                {
                    "type": "object",
                    "required": ["model", "version", "state", "reason"],
                    "properties": {
                        "model": {"type": "string"},
                        "version": {"type": "string"},
                        "state": {"enum": _STATES},
                        "reason": {"type": "string"},
                    },
                }
            ),
        },
    },
}
"""Schemas that do not depend on a model, by their name in the components."""


def _inner(spec: TensorSpec, signature: Signature) -> tuple[int, ...]:
    return spec.shape[1:] if signature.batched else spec.shape


def _by_name(fields: list[tuple[str, Schema]]) -> Schema:
    if len(fields) == 1:
        return fields[0][1]
    return {
        "type": "object",
        "required": [name for name, _ in fields],
        "properties": dict(fields),
        "additionalProperties": False,
    }


def _shown(spec: TensorSpec, shape: tuple[int, ...], nonfinite: str) -> Schema:
    if spec.labels and len(shape) == 1:
        value = element(spec.datatype, nonfinite)
        return _by_labels(spec.labels, value)
    return nested(spec, shape, nonfinite)


def _by_labels(labels: tuple[str, ...], value: Schema) -> Schema:
    return {
        "type": "object",
        "required": list(labels),
        "properties": dict.fromkeys(labels, value),
        "additionalProperties": False,
    }


def _oip_tensor(spec: TensorSpec, nonfinite: str = "error") -> Schema:
    return {
        "type": "object",
        "required": ["name", "shape", "datatype"],
        "properties": {
            "name": {"const": spec.name},
            "datatype": {"const": spec.datatype.label},
            "shape": {
                "type": "array",
                "minItems": len(spec.shape),
                "maxItems": len(spec.shape),
                "prefixItems": [_size(size) for size in spec.shape],
            },
            "parameters": {"$ref": "#/components/schemas/Parameters"},
            "data": {
                "type": "array",
                "description": "Flat or nested, in row-major order.",
                "items": {"anyOf": [element(spec.datatype, nonfinite), {"type": "array"}]},
            },
        },
    }


def _size(size: int) -> Schema:
    return {"type": "integer", "minimum": 0} if size < 0 else {"const": size}
