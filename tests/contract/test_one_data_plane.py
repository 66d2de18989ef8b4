"""Whatever the protocol, the same inputs give the same numbers: onnxruntime's in this process, exactly."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from support import grpcs, tfs_grpcs
from support.served import Answer, Served, ServedModels

Named = dict[str, np.ndarray]
LENGTH = "Inference-Header-Content-Length"
DATATYPES = {"float32": "FP32", "int64": "INT64", "object": "BYTES"}
TYPED = {"float32": "fp32_contents", "int64": "int64_contents", "object": "bytes_contents"}

RANDOM = np.random.default_rng(7)
INPUTS: dict[str, Named] = {
    "mlp": {"x": RANDOM.standard_normal((5, 8)).astype(np.float32)},
    "two": {
        "a": RANDOM.standard_normal((4, 2)).astype(np.float32),
        "b": np.array([[1, -2], [3, 4], [0, 1 << 40], [7, 7]], np.int64),
    },
    "words": {"x": np.array(["", "grün", '😀 a\u0000b\n"', "x" * 300], object)},
    "text": {"x": np.array(["", "grün"], object)},
    "whole": {"x": np.array([[2**53 + 1, -(2**63)], [2**63 - 1, 0]], np.int64)},
    "half_plus_two": {"x": np.array([0.1, -1e-30, 3.4e38, 5.0], np.float32)},
    "fixed": {"x": np.array([[0.1, -0.0, 1e-45], [16777216.0, 1 / 3, 3e38]], np.float32)},
    "flowers": {"x": np.array([[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3], [6, 2.9, 4.5, 1.5]], np.float32)},
    "digits": {"x": np.array([[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3], [6, 2.9, 4.5, 1.5]], np.float32)},
    "shortened": {"x": np.array([[1.5, -0.0], [0.15625, 3.140625], [2.0**127, -(2.0**-126)]], np.float32)},
}
UNBATCHED = {"fixed"}
# BF16, which onnxruntime gives to no numpy: these inputs need no more digits than it has.
SHORT = {"shortened"}


def reference(model: Served, inputs: Named) -> Named:
    """What onnxruntime answers; maps of scores as a matrix."""
    if model.name in SHORT:
        return {"y": inputs["x"]}
    names = [node.name for node in model.session.get_outputs()]
    return {name: matrix(output) for name, output in zip(names, model.run(**inputs), strict=True)}


def matrix(output: Any) -> np.ndarray:
    if isinstance(output, list):
        return np.array([[row[label] for label in sorted(row)] for row in output], np.float32)
    return np.asarray(output)


# -- protocols: inputs to what was answered, by output name -----------------------------------------------


def plain_one(model: Served, inputs: Named) -> list[dict[str, Any]]:
    rows = [inputs] if model.name in UNBATCHED else rows_of(inputs)
    return [by_name(model, unlabelled(good(model.post("/predict", json.dumps(bare(row)))))) for row in rows]


def plain_many(model: Served, inputs: Named) -> list[dict[str, Any]]:
    rows = [inputs] if model.name in UNBATCHED else rows_of(inputs)
    items = good(model.post("/batch-predict", [bare(row) for row in rows]))
    return [by_name(model, unlabelled(item)) for item in items]


def tfs_rows(model: Served, inputs: Named) -> list[dict[str, Any]]:
    if model.name in UNBATCHED:
        pytest.skip("row format needs a batch dimension")
    body = {"instances": [bare(row) for row in rows_of(inputs)]}
    answer = good(model.post(f"/v1/models/{model.name}:predict", body))
    return [by_name(model, item) for item in answer["predictions"]]


def tfs_columns(model: Served, inputs: Named) -> dict[str, Any]:
    answer = good(model.post(f"/v1/models/{model.name}:predict", {"inputs": bare(inputs)}))
    return by_name(model, answer["outputs"])


def oip_json(model: Served, inputs: Named) -> dict[str, Any]:
    if model.name in SHORT:
        pytest.skip("BF16 travels in binary only")
    tensors = [{**described(name, array), "data": array.ravel().tolist()} for name, array in inputs.items()]
    answer = good(model.post(f"/v2/models/{model.name}/infer", {"inputs": tensors}))
    return {each["name"]: np.array(each["data"]).reshape(each["shape"]) for each in answer["outputs"]}


def oip_binary(model: Served, inputs: Named) -> dict[str, Any]:
    blobs = [packed(array) for array in inputs.values()]
    tensors = [
        {**described(name, array), "parameters": {"binary_data_size": len(blob)}}
        for (name, array), blob in zip(inputs.items(), blobs, strict=True)
    ]
    head = json.dumps({"inputs": tensors, "parameters": {"binary_data_output": True}}).encode()
    answer = model.post(
        f"/v2/models/{model.name}/infer",
        head + b"".join(blobs),
        "application/octet-stream",
        {LENGTH: str(len(head))},
    )
    assert answer.status == 200, answer.text
    return unpacked_outputs(answer)


def oip_grpc_raw(model: Served, inputs: Named) -> dict[str, Any]:
    tensors = [described(name, array) for name, array in inputs.items()]
    return asked_by_grpc(model, inputs=tensors, raw_input_contents=[packed(array) for array in inputs.values()])


def oip_grpc_typed(model: Served, inputs: Named) -> dict[str, Any]:
    tensors = []
    for name, array in inputs.items():
        items = [item.encode() if isinstance(item, str) else item for item in array.ravel().tolist()]
        tensors.append({**described(name, array), "contents": {TYPED[array.dtype.name]: items}})
    return asked_by_grpc(model, inputs=tensors)


def asked_by_grpc(model: Served, **fields: Any) -> dict[str, Any]:
    with grpcs.connect(model.server) as channel:
        answer = grpcs.ask(channel, "ModelInfer", model_name=model.name, **fields)
    return {
        each.name: unpacked(raw, each.datatype).reshape(each.shape)
        for each, raw in zip(answer.outputs, answer.raw_output_contents, strict=True)
    }


def tfs_grpc_content(model: Served, inputs: Named) -> dict[str, Any]:
    return predicted_by_grpc(model, {name: tfs_grpcs.raw(array) for name, array in inputs.items()})


def tfs_grpc_typed(model: Served, inputs: Named) -> dict[str, Any]:
    return predicted_by_grpc(model, {name: tfs_grpcs.typed(array) for name, array in inputs.items()})


def predicted_by_grpc(model: Served, tensors: dict[str, Any]) -> dict[str, Any]:
    with grpcs.connect(model.server) as channel:
        outputs = tfs_grpcs.ask(channel, "Predict", model_spec={"name": model.name}, inputs=tensors).outputs
    names = [node.name for node in model.session.get_outputs()]
    assert set(names) == set(outputs)  # a map has no order
    return {name: tfs_grpcs.array_of(outputs[name]) for name in names}


PROTOCOLS: dict[str, Callable[[Served, Named], Any]] = {
    "plain predict": plain_one,
    "plain batch-predict": plain_many,
    "TensorFlow Serving rows": tfs_rows,
    "TensorFlow Serving columns": tfs_columns,
    "Open Inference JSON": oip_json,
    "Open Inference binary": oip_binary,
    "Open Inference gRPC, raw": oip_grpc_raw,
    "Open Inference gRPC, typed": oip_grpc_typed,
    "TensorFlow Serving gRPC, content": tfs_grpc_content,
    "TensorFlow Serving gRPC, typed": tfs_grpc_typed,
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", INPUTS)
def test_the_same_inputs_give_the_same_numbers(served: ServedModels, name: str, protocol: str) -> None:
    model, inputs = served[name], INPUTS[name]
    got = PROTOCOLS[protocol](model, inputs)
    if isinstance(got, dict):
        same(got, reference(model, inputs))
    elif name in UNBATCHED:
        (only,) = got
        same(only, reference(model, inputs))
    elif protocol == "plain predict":  # each row ran alone
        for one, row in zip(got, rows_of(inputs), strict=True):
            alone = reference(model, {key: value[None] for key, value in row.items()})
            same(one, {key: value[0] for key, value in alone.items()})
    else:
        together = reference(model, inputs)
        same({key: [row[key] for row in got] for key in together}, together)


def same(got: dict[str, Any], expected: Named) -> None:
    assert list(got) == list(expected)
    for name, wanted in expected.items():
        wanted = np.asarray(wanted)
        array = np.array(got[name], wanted.dtype)
        assert array.shape == wanted.shape
        if wanted.dtype.kind == "f":  # bit by bit: -0.0 is not 0.0
            assert array.tobytes() == wanted.tobytes()
        else:
            assert array.tolist() == wanted.tolist()


# -- how protocols write things ---------------------------------------------------------------------------


def good(answer: Answer) -> Any:
    assert answer.status == 200, answer.text
    return answer.json


def rows_of(inputs: Named) -> list[dict[str, Any]]:
    count = len(next(iter(inputs.values())))
    return [{name: np.asarray(array[row], array.dtype) for name, array in inputs.items()} for row in range(count)]


def bare(inputs: Named) -> Any:
    """One input stands alone, several in an object."""
    values = {name: array.tolist() for name, array in inputs.items()}
    return values if len(values) > 1 else next(iter(values.values()))


def by_name(model: Served, answer: Any) -> dict[str, Any]:
    """One output stands alone, several are an object; `..._bytes` is base64 in TensorFlow Serving."""
    names = [node.name for node in model.session.get_outputs()]
    named = answer if len(names) > 1 else {names[0]: answer}
    return {name: without_base64(value) for name, value in named.items()}


def without_base64(value: Any) -> Any:
    if isinstance(value, list):
        return [without_base64(item) for item in value]
    if isinstance(value, dict) and list(value) == ["b64"]:
        return base64.b64decode(value["b64"]).decode()
    return value


def unlabelled(answer: Any) -> Any:
    """Scores by label as a list, in the order of the labels."""
    if not isinstance(answer, dict):
        return answer
    return {
        name: [value[label] for label in sorted(value)] if isinstance(value, dict) else value
        for name, value in answer.items()
    }


def described(name: str, array: np.ndarray) -> dict[str, Any]:
    return {"name": name, "shape": list(array.shape), "datatype": DATATYPES[array.dtype.name]}


def packed(array: np.ndarray) -> bytes:
    if array.dtype != object:
        return array.tobytes()
    return b"".join(struct.pack("<I", len(raw)) + raw for raw in (item.encode() for item in array.ravel()))


def unpacked_outputs(answer: Answer) -> dict[str, Any]:
    headers = {name.lower(): value for name, value in answer.headers.items()}
    length = int(headers[LENGTH.lower()])
    rest, outputs = answer.body[length:], {}
    for each in json.loads(answer.body[:length])["outputs"]:
        size = each["parameters"]["binary_data_size"]
        outputs[each["name"]] = unpacked(rest[:size], each["datatype"]).reshape(each["shape"])
        rest = rest[size:]
    assert rest == b""
    return outputs


def unpacked(raw: bytes, datatype: str) -> np.ndarray:
    if datatype == "BF16":
        return (np.frombuffer(raw, "<u2").astype("<u4") << 16).view(np.float32)
    if datatype != "BYTES":
        return np.frombuffer(raw, next(key for key, value in DATATYPES.items() if value == datatype))
    items = []
    while raw:
        (size,) = struct.unpack_from("<I", raw)
        items.append(raw[4 : 4 + size].decode())
        raw = raw[4 + size :]
    return np.array(items, object)
