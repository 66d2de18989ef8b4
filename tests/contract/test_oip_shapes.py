"""Models without a batch dimension, scalars, text, NaN, and the codec's corners that need no server."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import onnxruntime as ort
import pytest

from paceline.core.errors import InvalidRequest
from paceline.core.requests import InferRequest
from paceline.core.tensors import DataType, Signature, Tensors, TensorSpec
from paceline.server.protocols.oip_classes import classes, require_classes
from paceline.server.protocols.oip_infer import Asked, Codec
from paceline.testing import run_server
from support import models, oip, oip_models


@pytest.fixture(scope="module")
def scaled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[httpx.Client, Path]]:
    path = oip_models.scaled(tmp_path_factory.mktemp("oip") / "scaled.onnx")
    with run_server(path, ["--warmup-s", "0.05"]) as server, oip.connect(server.url) as client:
        yield client, path


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    path = models.log_of(tmp_path_factory.mktemp("oip") / "log.onnx")
    flags = ["--warmup-s", "0.05", "--nonfinite", "null"]
    with run_server(path, flags) as server, oip.connect(server.url) as client:
        yield client


def test_a_model_without_batch_dimension_and_scalars(scaled: tuple[httpx.Client, Path]) -> None:
    client, path = scaled
    x = np.array([[0.1, 2, 3], [4, 5, 6]], np.float32)
    y, total = ort.InferenceSession(str(path)).run(None, {"x": x, "s": np.array(1.5, "f4")})
    for scalar in ([1.5], 1.5, [[1.5]]):
        inputs = [
            {"name": "x", "shape": [2, 3], "datatype": "FP32", "data": x.tolist()},
            {"name": "s", "shape": [], "datatype": "FP32", "data": scalar},
        ]
        document, _ = oip.split(oip.infer(client, "scaled", {"inputs": inputs}))
        assert [output["shape"] for output in document["outputs"]] == [[2, 3], []]
        assert np.array_equal(np.array(document["outputs"][0]["data"], "f4").reshape(2, 3), y)
        assert np.float32(document["outputs"][1]["data"][0]) == total


def test_binary_scalars(scaled: tuple[httpx.Client, Path]) -> None:
    x, s = np.arange(6, dtype="<f4"), np.array([2], "<f4")
    inputs = [
        {"name": "s", "shape": [], "datatype": "FP32", "parameters": {"binary_data_size": 4}},
        {"name": "x", "shape": [2, 3], "datatype": "FP32", "parameters": {"binary_data_size": 24}},
    ]
    body = {"inputs": inputs, "parameters": {"binary_data_output": True}}
    _, blobs = oip.split(oip.infer(scaled[0], "scaled", body, s.tobytes(), x.tobytes()))
    assert blobs["y"] == (x * 2).tobytes()
    assert np.frombuffer(blobs["total"], "<f4") == [30]


def test_the_configuration_without_batch_dimension(scaled: tuple[httpx.Client, Path]) -> None:
    config = scaled[0].get("/v2/models/scaled/config").json()
    assert config["max_batch_size"] == 0
    assert [each["dims"] for each in config["input"]] == [[2, 3], []]
    assert "dynamic_batching" not in config
    assert scaled[0].get("/v2/models/scaled").json()["inputs"][0]["shape"] == [2, 3]


def test_nonfinite_outputs_are_null_in_json_and_bits_in_binary(log: httpx.Client) -> None:
    asked = {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [0, 1]}
    document, _ = oip.split(oip.infer(log, "log", {"inputs": [asked]}))
    assert document["outputs"][0]["data"] == [None, 0.0]
    body = {"inputs": [asked], "parameters": {"binary_data_output": True}}
    _, blobs = oip.split(oip.infer(log, "log", body))
    assert np.frombuffer(blobs["y"], "<f4").tolist() == [-math.inf, 0.0]


def test_nonfinite_inputs_pass_in_binary(log: httpx.Client) -> None:
    asked = {"name": "x", "shape": [1, 2], "datatype": "FP32", "parameters": {"binary_data_size": 8}}
    blob = np.array([math.nan, math.inf], "<f4").tobytes()
    document, _ = oip.split(oip.infer(log, "log", {"inputs": [asked]}, blob))
    assert document["outputs"][0]["data"] == [None, None]


# -- the codec alone -----------------------------------------------------------------------------------------


def codec(datatype: DataType, shape: tuple[int, ...], *, batched: bool = True, nonfinite: str = "error") -> Codec:
    signature = Signature((TensorSpec("x", datatype, shape),), (TensorSpec("y", datatype, shape),), batched)
    return Codec("m", "1", signature, nonfinite)


def written(codec: Codec, asked: Asked, *outputs: np.ndarray) -> tuple[list[bytes | memoryview], bytes]:
    request = InferRequest(asked.inputs, rows=1, deadline=0.0, on_done=lambda _: None)
    request.outputs = outputs
    body, kind, _ = codec.write(asked, request)
    return body if isinstance(body, list) else [body], kind


def test_binary_tensors_are_not_copied() -> None:
    json = b'{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","parameters":{"binary_data_size":16}}],'
    json += b'"parameters":{"binary_data_output":true}}'
    json = json.ljust(-(-len(json) // 8) * 8)
    body = bytearray(json + np.arange(4, dtype="<f4").tobytes())
    for given in (body, memoryview(body), bytes(body)):
        plain = codec(DataType.FP32, (-1, 4))
        asked = plain.read(given, b"%d" % len(json))
        (array,) = asked.inputs
        assert np.shares_memory(array, np.frombuffer(given, np.uint8))
        pieces, _ = written(plain, asked, array)
        assert np.shares_memory(array, np.frombuffer(pieces[1], np.uint8))


def test_a_tensor_off_its_alignment_is_copied() -> None:
    body = b'{"inputs":[{"name":"x","shape":[1,1],"datatype":"FP64","parameters":{"binary_data_size":8}}]}'
    for padding in range(8):
        text = body + b" " * padding
        blob = np.array([2.5], "<f8").tobytes()
        (array,) = codec(DataType.FP64, (-1, 1)).read(text + blob, b"%d" % len(text)).inputs
        assert array.flags.aligned
        assert array.flags.c_contiguous
        assert array == 2.5


@pytest.mark.parametrize(
    ("shape", "batched", "size", "expected"),
    [
        ((-1, 4), True, 8, (2, 4)),
        ((-1, -1), True, 4, (1, 4)),
        ((2, -1), False, 4, (2, 2)),
        ((2, 2), False, 4, (2, 2)),
        ((), False, 1, ()),
        ((-1,), True, 3, (3,)),
    ],
)
def test_the_shape_of_a_raw_binary_request(
    shape: tuple[int, ...], batched: bool, size: int, expected: tuple[int, ...]
) -> None:
    asked = codec(DataType.FP32, shape, batched=batched).read(bytes(4 * size), b"0")
    assert asked.inputs[0].shape == expected
    assert all(each.binary for each in asked.wanted)


@pytest.mark.parametrize(("shape", "size"), [((-1, -1, -1), 8), ((-1, 4), 6), ((-1, 0), 4), ((-1, -1, 3), 4)])
def test_a_raw_binary_request_whose_shape_is_unclear(shape: tuple[int, ...], size: int) -> None:
    with pytest.raises(InvalidRequest):
        codec(DataType.FP32, shape).read(bytes(4 * size), b"0")


def test_a_raw_string_has_no_length_before_it() -> None:
    asked = codec(DataType.BYTES, (-1, 1)).read(memoryview(b"\x05\x00\x00\x00abc"), b"0")
    assert asked.inputs[0].tolist() == [[b"\x05\x00\x00\x00abc"]]
    with pytest.raises(InvalidRequest, match=r"input shape \[1\]"):
        codec(DataType.BYTES, (-1, 2)).read(b"abc", b"0")


def test_nonfinite_strings() -> None:
    words = codec(DataType.FP32, (-1, 3), nonfinite="string")
    asked = words.read(b'{"inputs":[{"name":"x","shape":[1,3],"datatype":"FP32","data":[1,2,3]}]}', None)
    pieces, kind = written(words, asked, np.array([[math.nan, math.inf, -math.inf]], np.float32))
    assert kind == b"application/json"
    assert b'"data":["NaN","Infinity","-Infinity"]' in pieces[0]


def rank(scores: list[list[float]], dtype: str, top: int, labels: Tensors | tuple[str, ...] = ()) -> list:
    array = np.array(scores, dtype)
    spec = TensorSpec("y", DataType.FP32, (-1, array.shape[1]), labels)  # type: ignore[arg-type]
    return classes(array, spec, top, True).tolist()


def test_classes_are_ranked() -> None:
    assert rank([[0.1, 0.7, 0.2]], "f4", 2, ("cat", "dog", "eel")) == [["0.700000:1:dog", "0.200000:2:eel"]]
    assert rank([[3, 9, 9], [1, 0, 0]], "u1", 9) == [["9:1", "9:2", "3:0"], ["1:0", "0:1", "0:2"]]
    assert rank([[math.nan, 1, -1]], "f8", 3) == [["1.000000:1", "-1.000000:2", "nan:0"]]
    assert classes(np.zeros((0, 3), "f4"), TensorSpec("y", DataType.FP32, (-1, 3)), 2, True).shape == (0, 2)
    single = classes(np.array([1, 2], "f4"), TensorSpec("y", DataType.FP32, (2,)), 1, False)
    assert single.tolist() == ["2.000000:1"]
    with pytest.raises(InvalidRequest):
        require_classes(TensorSpec("y", DataType.BYTES, (-1, 3)))


def test_a_model_that_is_not_ready(tmp_path: Path) -> None:
    path = models.never_warm(tmp_path / "cold.onnx")
    with run_server(path, ready=False) as server, oip.connect(server.url) as client:
        ready = client.get("/v2/health/ready")
        assert (ready.status_code, ready.json()) == (503, {"ready": False})
        assert client.get("/v2/health/live").status_code == 200
        ready = client.get("/v2/models/cold/ready")
        assert (ready.status_code, ready.json()) == (503, {"name": "cold", "ready": False})
        for path in ("", "/config", "/stats"):
            assert "not ready" in oip.error(client.get(f"/v2/models/cold{path}"), 503)
        assert "not ready" in oip.error(oip.infer(client, "cold", {"inputs": []}), 503)
        assert client.get("/v2/models/stats").json() == {"model_stats": []}
