"""Inference in JSON, over a real server: golden vectors, and what must be refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from paceline.testing import run_server
from support import models, oip

GOLDEN = json.loads((Path(__file__).parent / "golden" / "oip" / "pair.json").read_text())


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    path = models.two_in_two_out(tmp_path_factory.mktemp("oip") / "pair.onnx")
    flags = ["--warmup-s", "0.05", "--server-name", "triton"]
    with run_server(path, flags) as server, oip.connect(server.url) as client:
        yield client


def body(data: Any = (1, 2), shape: Any = (1, 2), **more: Any) -> dict[str, Any]:
    """A request whose input `a` is as given."""
    return {
        "inputs": [
            {"name": "a", "shape": shape, "datatype": "FP32", "data": data},
            {"name": "b", "shape": [1, 2], "datatype": "INT64", "data": [1, 2]},
        ],
        **more,
    }


@pytest.mark.parametrize("case", GOLDEN, ids=[case["name"] for case in GOLDEN])
def test_golden_vector(client: httpx.Client, case: dict[str, Any]) -> None:
    response = oip.infer(client, "pair", case["request"].encode())
    assert response.headers["content-type"] == "application/json"
    assert response.status_code == case["status"]
    if "error" in case:
        assert response.json()["error"] == case["error"]
    else:
        assert response.text == case["response"]


def test_the_version_may_be_named(client: httpx.Client) -> None:
    response = client.post("/v2/models/pair/versions/1/infer", json=body())
    assert response.json()["model_version"] == "1"


def test_an_unknown_model_or_version_is_404(client: httpx.Client) -> None:
    assert oip.error(oip.infer(client, "no", body()), 404) == "Request for unknown model: 'no' is not found"
    response = client.post("/v2/models/pair/versions/9/infer", json=body())
    assert oip.error(response, 404) == "Request for unknown model: 'pair' version 9 is not found"
    assert oip.error(client.post("/v2/models/pair/versions/x/infer", json=body()), 404) == "Not Found"
    assert oip.error(client.get("/v2/models/pair/infer"), 405) == "Method Not Allowed"


def test_the_timeout_is_in_microseconds(client: httpx.Client) -> None:
    late = oip.infer(client, "pair", body(parameters={"timeout": 1}))
    assert late.status_code in (503, 504)
    for timeout in (0, 5_000_000, 10**30):
        oip.split(oip.infer(client, "pair", body(parameters={"timeout": timeout})))


def test_a_body_may_call_itself_octets_but_not_an_image(client: httpx.Client) -> None:
    oip.split(oip.infer(client, "pair", body(), **{"content-type": "application/octet-stream"}))
    oip.error(oip.infer(client, "pair", body(), **{"content-type": "image/png"}), 415)


def test_the_output_kind_is_by_output(client: httpx.Client) -> None:
    listed = [{"name": "sum"}, {"name": "doubled", "parameters": {"binary_data": True}}]
    everything = {"binary_data_output": True}
    document, blobs = oip.split(oip.infer(client, "pair", body(outputs=listed, parameters=everything)))
    assert document["outputs"][0]["data"] == [2.0, 4.0]
    assert list(blobs) == ["doubled"]
    document, blobs = oip.split(oip.infer(client, "pair", body(parameters=everything)))
    assert list(blobs) == ["sum", "doubled"]
    assert all("data" not in output for output in document["outputs"])


def test_metadata_of_the_server(client: httpx.Client) -> None:
    for path in ("/v2", "/v2/"):
        document = client.get(path).json()
        assert document["name"] == "triton"
        assert document["extensions"] == [
            "binary_tensor_data",
            "classification",
            "model_configuration",
            "statistics",
        ]


def test_health_has_json_bodies(client: httpx.Client) -> None:
    assert client.get("/v2/health/live").text == '{"live":true}'
    assert client.get("/v2/health/ready").text == '{"ready":true}'
    for path in ("/v2/models/pair/ready", "/v2/models/pair/versions/1/ready"):
        assert client.get(path).text == '{"name":"pair","ready":true}'
    oip.error(client.get("/v2/models/no/ready"), 404)
    assert client.get("/v2/health/live").headers["content-type"] == "application/json"


def test_metadata_of_the_model_has_the_batch_dimension(client: httpx.Client) -> None:
    assert client.get("/v2/models/pair").json() == {
        "name": "pair",
        "versions": ["1"],
        "platform": "onnxruntime_onnx",
        "inputs": [
            {"name": "a", "datatype": "FP32", "shape": [-1, 2]},
            {"name": "b", "datatype": "INT64", "shape": [-1, 2]},
        ],
        "outputs": [
            {"name": "sum", "datatype": "FP32", "shape": [-1, 2]},
            {"name": "doubled", "datatype": "INT64", "shape": [-1, 2]},
        ],
    }


def test_the_configuration_lacks_the_batch_dimension(client: httpx.Client) -> None:
    config = client.get("/v2/models/pair/config").json()
    assert config["max_batch_size"] >= 1
    assert config["input"][1] == {"name": "b", "data_type": "TYPE_INT64", "dims": [2], "optional": False}
    assert config["output"][0] == {"name": "sum", "data_type": "TYPE_FP32", "dims": [2]}
    assert config["dynamic_batching"]["max_queue_delay_microseconds"] == 0
    assert config["model_transaction_policy"] == {"decoupled": False}


def test_statistics_count_requests_rows_and_batches(client: httpx.Client) -> None:
    (before,) = client.get("/v2/models/pair/stats").json()["model_stats"]
    for _ in range(5):
        two = {"name": "b", "shape": [2, 2], "datatype": "INT64", "data": [1, 2, 3, 4]}
        asked = body(data=[1, 2, 3, 4], shape=[2, 2])
        oip.split(oip.infer(client, "pair", {"inputs": [asked["inputs"][0], two]}))
    (after,) = client.get("/v2/models/stats").json()["model_stats"]
    assert (after["name"], after["version"]) == ("pair", "1")
    assert after["inference_count"] - before["inference_count"] == 10
    assert after["execution_count"] - before["execution_count"] == 5
    names = ("success", "queue", "compute_input", "compute_infer", "compute_output")
    assert [_grown(before, after, name) for name in names] == [5] * 5
    assert [_grown(before, after, name) for name in ("fail", "cache_hit", "cache_miss")] == [0] * 3
    assert after["inference_stats"]["compute_infer"]["ns"] > before["inference_stats"]["compute_infer"]["ns"]
    assert after["last_inference"] > 1.7e12
    assert {each["batch_size"]: each["compute_infer"]["count"] for each in after["batch_stats"]}[2] >= 5


def _grown(before: dict[str, Any], after: dict[str, Any], name: str) -> int:
    count: int = after["inference_stats"][name]["count"] - before["inference_stats"][name]["count"]
    return count


@pytest.mark.parametrize("path", ["index", "models/pair/load", "models/pair/unload"])
def test_models_do_not_come_and_go_by_request(client: httpx.Client, path: str) -> None:
    message = oip.error(client.post(f"/v2/repository/{path}", json={}), 503)
    assert message == "explicit model load / unload is not allowed if polling is enabled"


def test_errors_say_where(client: httpx.Client) -> None:
    classes = {"name": "sum", "parameters": {"classification": -1}}
    for asked, path in (
        (body(shape=[1, "2"]), "inputs[0].shape[1]"),
        (body(outputs=[classes]), "outputs[0].parameters.classification"),
        (body([1, "2"]), "inputs[0].data[1]"),
    ):
        response = oip.infer(client, "pair", asked)
        assert path in oip.error(response)
        assert response.json()["details"][0]["path"] == path


# -- faults --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [b"", b"{", b"{}", b"[]", b'{"inputs":[{"name":"a","shape":[1'])
def test_fault_039_040_a_body_that_is_not_a_request(client: httpx.Client, text: bytes) -> None:
    oip.error(oip.infer(client, "pair", text))


def test_fault_040_invalid_utf8_in_data(client: httpx.Client) -> None:
    text = b'{"inputs":[{"name":"a","shape":[1,2],"datatype":"FP32","data":["\xff",2]}]}'
    oip.error(oip.infer(client, "pair", text))


def test_fault_041_depth(client: httpx.Client) -> None:
    for depth in (80, 120, 100_000):
        deep = b"[" * depth + b"1,2" + b"]" * depth
        text = b'{"inputs":[{"name":"a","shape":[1,2],"datatype":"FP32","data":%s}]}' % deep
        oip.error(oip.infer(client, "pair", text))


@pytest.mark.parametrize("value", [b"NaN", b"Infinity", b"1e999", b"1e39", b"-1e39"])
def test_fault_042_043_numbers_that_json_or_the_type_lacks(client: httpx.Client, value: bytes) -> None:
    text = json.dumps(body(data=[7, 2])).encode().replace(b"7", value, 1)
    oip.error(oip.infer(client, "pair", text))


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, 10**40, 1.5, "1", True])
def test_fault_044_an_integer_past_its_type_never_wraps(client: httpx.Client, value: object) -> None:
    asked = body()
    asked["inputs"][1]["data"] = [1, value]
    assert "inputs[1].data" in oip.error(oip.infer(client, "pair", asked))


@pytest.mark.parametrize("data", [[[1, 2], [3]], [[1], 2], [1, [2]], [[1, 2, 3], [4]]])
def test_fault_047_ragged_rows(client: httpx.Client, data: list[Any]) -> None:
    assert "inputs[0].data[1]" in oip.error(oip.infer(client, "pair", body(data, [2, 2])))


@pytest.mark.parametrize("value", [None, "1", True, [], {}])
def test_fault_049_050_null_string_or_bool_for_a_float(client: httpx.Client, value: object) -> None:
    assert "inputs[0].data[1]" in oip.error(oip.infer(client, "pair", body([1, value])))
    assert "inputs[0].data[0][1]" in oip.error(oip.infer(client, "pair", body([[1, value]])))


def test_fault_050_data_that_is_no_list(client: httpx.Client) -> None:
    for data in (None, 1, "x", {}):
        assert "inputs[0].data" in oip.error(oip.infer(client, "pair", body(data)))


@pytest.mark.parametrize("shape", [[-1, 2], [1, -2], [-1, -2]])
def test_fault_063_negative_dimensions(client: httpx.Client, shape: list[int]) -> None:
    message = oip.error(oip.infer(client, "pair", body(shape=shape)))
    assert message == "Unable to parse 'shape': attempt to access JSON non-unsigned-integer as unsigned-integer"


@pytest.mark.parametrize(
    "shape",
    [[2**62, 4], [2**33, 2**33], [2**64, 1], [10**300], [2**32, 2**32, 0, 2**32], [1] * 70 + [2], [2**62] * 200_000],
)
def test_fault_063_a_shape_whose_product_overflows(client: httpx.Client, shape: list[int]) -> None:
    data = [] if 0 in shape else [1, 2]
    assert "shape" in oip.error(oip.infer(client, "pair", body(data, shape)))


def test_fault_064_an_unknown_requested_output(client: httpx.Client) -> None:
    message = oip.error(oip.infer(client, "pair", body(outputs=[{"name": "no"}])))
    assert message.startswith("unexpected inference output 'no' for model 'pair'")
