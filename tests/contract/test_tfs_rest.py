"""TensorFlow Serving's REST API: request -> exact answer, against real server processes."""

from __future__ import annotations

import base64
import json
import subprocess

import numpy as np
import pytest

from support.served import Answer, Served, ServedModels

HALF = "/v1/models/half_plus_two"


def predict(model: Served, body: object) -> Answer:
    return model.post(f"/v1/models/{model.name}:predict", body)


def refused(model: Served, body: object) -> str:
    """The message of the 400 that a body gets."""
    answer = predict(model, body)
    assert answer.status == 400, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert {"error", "code", "request_id"} <= answer.json.keys()
    return answer.error


def curl(*arguments: str) -> str:
    command = ["curl", "-sS", "--max-time", "20", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


# -- as the reference documents it ------------------------------------------------------------------------


def test_the_curl_of_the_documentation(half: Served) -> None:
    body = '{"instances": [1.0, 2.0, 5.0]}'  # curl -d calls this a form
    assert curl("-d", body, "-X", "POST", f"{half.server.url}{HALF}:predict") == '{"predictions":[2.5,3.0,4.5]}'


def test_the_curls_for_status_and_metadata(half: Served) -> None:
    assert json.loads(curl(half.server.url + HALF))["model_version_status"][0]["state"] == "AVAILABLE"
    signatures = json.loads(curl(half.server.url + HALF + "/metadata"))["metadata"]["signature_def"]
    assert list(signatures["signature_def"]) == ["serving_default"]


@pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded", "text/plain", "nonsense"])
def test_the_content_type_does_not_matter(half: Served, content_type: str) -> None:
    answer = half.post(HALF + ":predict", '{"inputs": [1.0]}', content_type)
    assert (answer.status, answer.text) == (200, '{"outputs":[2.5]}')


# -- answers ----------------------------------------------------------------------------------------------

GOLDEN = {
    "row": ("half_plus_two", '{"instances": [1.0, 2, 5e0]}', '{"predictions":[2.5,3.0,4.5]}'),
    "row of one": ("half_plus_two", '{"instances": [-4]}', '{"predictions":[0.0]}'),
    "row objects for one input": (
        "half_plus_two",
        '{"instances": [{"x": 1}, {"x": 2}]}',
        '{"predictions":[2.5,3.0]}',
    ),
    "columns": ("half_plus_two", '{"inputs": [1, 2]}', '{"outputs":[2.5,3.0]}'),
    "columns by name": ("half_plus_two", '{"inputs": {"x": [1, 2], "more": 0}}', '{"outputs":[2.5,3.0]}'),
    "no rows in columns": ("half_plus_two", '{"inputs": []}', '{"outputs":[]}'),
    "signature by name": (
        "half_plus_two",
        '{"signature_name": "serving_default", "instances": [0]}',
        '{"predictions":[2.0]}',
    ),
    "signature without name": (
        "half_plus_two",
        '{"signature_name": "", "instances": [0], "unknown": {}}',
        '{"predictions":[2.0]}',
    ),
    "shortest digits": ("half_plus_two", '{"instances": [0.2]}', '{"predictions":[2.1]}'),
    "two inputs in rows": (
        "two",
        '{"instances": [{"a": [1, 2.5], "b": [3, 4]}, {"b": [1, 0], "a": [0, 0]}]}',
        '{"predictions":[{"sum":[4.0,6.5],"doubled":[6,8]},{"sum":[1.0,0.0],"doubled":[2,0]}]}',
    ),
    "two inputs in columns": (
        "two",
        '{"inputs": {"b": [[3, 4]], "a": [[1, 2.5]]}}',
        '{"outputs":{"sum":[[4.0,6.5]],"doubled":[[6,8]]}}',
    ),
    "integers stay integers": (
        "whole",
        '{"instances": [[9007199254740993, -9223372036854775808]]}',
        '{"predictions":[[9007199254740993,-9223372036854775808]]}',
    ),
    "strings": (
        "words",
        '{"instances": ["", "gr\\u00fcn", "\\ud83d\\ude00"]}',
        '{"predictions":["","grün","😀"]}',
    ),
    "base64 in": ("words", '{"instances": [{"b64": "Z3LDvG4="}, "a"]}', '{"predictions":["grün","a"]}'),
    "base64 without padding": ("words", '{"inputs": [{"b64": "Z3LDvG4"}]}', '{"outputs":["grün"]}'),
    "base64 out": (
        "text",
        '{"instances": ["a"]}',
        '{"predictions":[{"shown":"a","raw_bytes":{"b64":"YQ=="}}]}',
    ),
    "base64 out in columns": (
        "text",
        '{"inputs": {"x": ["a", "b"]}}',
        '{"outputs":{"shown":["a","b"],"raw_bytes":[{"b64":"YQ=="},{"b64":"Yg=="}]}}',
    ),
    "no batch dimension": (
        "fixed",
        '{"inputs": [[1, 2, 3], [4, 5, 6.5]]}',
        '{"outputs":[[1.0,2.0,3.0],[4.0,5.0,6.5]]}',
    ),
}


@pytest.mark.parametrize("case", GOLDEN)
def test_golden_predictions(served: ServedModels, case: str) -> None:
    model, body, expected = GOLDEN[case]
    answer = predict(served[model], body)
    assert (answer.status, answer.text) == (200, expected)
    assert answer.headers["content-type"] == "application/json"


def test_many_rows_equal_onnxruntime(served: ServedModels) -> None:
    model = served["mlp"]
    x = np.random.default_rng(1).standard_normal((300, 8)).astype(np.float32)
    (expected,) = model.run(x=x)
    rows = predict(model, {"instances": x.tolist()}).json["predictions"]
    assert np.array_equal(np.array(rows, np.float32), expected)


def test_an_image_in_base64(served: ServedModels) -> None:
    picture = "grün".encode() * 1000
    answer = predict(served["text"], {"instances": [{"b64": base64.b64encode(picture).decode()}]})
    (row,) = answer.json["predictions"]
    assert base64.b64decode(row["raw_bytes"]["b64"]) == picture


def test_labels_are_columns_in_predict_and_names_in_classify(served: ServedModels) -> None:
    model = served["flowers"]
    x = np.array([[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]], np.float32)
    labels, maps = model.run(x=x)
    predictions = predict(model, {"instances": x.tolist()}).json["predictions"]
    (label_name, scores_name) = predictions[0]
    assert [row[label_name] for row in predictions] == labels.tolist()
    names = sorted(maps[0])
    scores = np.array([row[scores_name] for row in predictions], np.float32)
    assert np.array_equal(scores, np.array([[row[name] for name in names] for row in maps], np.float32))

    examples = {"context": {"x": x[0].tolist()}, "examples": [{}, {"x": x[1].tolist(), "ignored": 1}]}
    results = model.post("/v1/models/flowers:classify", examples).json["results"]
    assert [[name for name, _ in row] for row in results] == [names, names]
    assert np.array_equal(np.array([[score for _, score in row] for row in results], np.float32), scores)


def test_regress(half: Served) -> None:
    answer = half.post(HALF + ":regress", '{"context": {"x": 3}, "examples": [{"x": [1.0]}, {"x": 2}, {}]}')
    assert (answer.status, answer.text) == (200, '{"results":[2.5,3.0,3.5]}')


@pytest.mark.parametrize(
    ("model", "verb", "body", "message"),
    [
        ("half_plus_two", "classify", {"examples": [{"x": 1}]}, "has no classification signature"),
        ("mlp", "regress", {"examples": [{"x": [0] * 8}]}, "has no regression signature"),
        ("half_plus_two", "regress", {"instances": [1]}, "key 'examples' is expected and was not found"),
        ("half_plus_two", "regress", {"examples": []}, "No values in 'examples' array"),
        ("half_plus_two", "regress", {"examples": [1]}, "Example must be JSON object but got JSON Number: 1"),
        ("half_plus_two", "regress", {"examples": [{}]}, "Missing feature: x in element: 0"),
        ("half_plus_two", "regress", {"examples": [{"x": "a"}]}, "is not of expected type: float"),
    ],
)
def test_what_classify_and_regress_refuse(
    served: ServedModels, model: str, verb: str, body: object, message: str
) -> None:
    answer = served[model].post(f"/v1/models/{model}:{verb}", body)
    assert answer.status == 400
    assert message in answer.error


# -- routing ----------------------------------------------------------------------------------------------

AVAILABLE = {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}


@pytest.mark.parametrize("path", [HALF, HALF + "/versions/1", "/V1/Models/half_plus_two/VERSIONS/01"])
def test_status_is_merged_with_what_kserve_looks_for(half: Served, path: str) -> None:
    assert half.get(path).json == {
        "model_version_status": [AVAILABLE],
        "name": "half_plus_two",
        "ready": True,
    }


def test_metadata(served: ServedModels) -> None:
    def tensor(name: str, dtype: str) -> dict[str, object]:
        dims = [{"size": "-1", "name": ""}, {"size": "2", "name": ""}]
        return {"dtype": dtype, "tensor_shape": {"dim": dims, "unknown_rank": False}, "name": f"{name}:0"}

    signature = {
        "inputs": {"a": tensor("a", "DT_FLOAT"), "b": tensor("b", "DT_INT64")},
        "outputs": {"sum": tensor("sum", "DT_FLOAT"), "doubled": tensor("doubled", "DT_INT64")},
        "method_name": "tensorflow/serving/predict",
        "defaults": {},
    }
    assert served["two"].get("/v1/models/two/versions/1/metadata").json == {
        "model_spec": {"name": "two", "signature_name": "", "version": "1"},
        "metadata": {"signature_def": {"signature_def": {"serving_default": signature}}},
    }


def test_the_list_of_models_is_merged(half: Served) -> None:
    body = half.get("/v1/models").json
    assert (body["models"], body["object"]) == (["half_plus_two"], "list")
    assert [(each["id"], each["object"]) for each in body["data"]] == [("half_plus_two", "model")]


@pytest.mark.parametrize(
    "path", ["/V1/MODELS/half_plus_two:predict", HALF + "/versions/1:predict", HALF + "/Versions/001:predict"]
)
def test_words_of_the_path_in_any_case_and_versions(half: Served, path: str) -> None:
    assert half.post(path, '{"instances": [0]}').text == '{"predictions":[2.0]}'


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        ("/v1/models/none:predict", 404, "Servable not found for request: Latest(none)"),
        ("/v1/models/none/versions/3:predict", 404, "Servable not found for request: Specific(none, 3)"),
        (HALF + "/versions/2:regress", 404, "Servable not found for request: Specific(half_plus_two, 2)"),
        (HALF + "/labels/stable:predict", 400, "Unrecognized servable version label: stable"),
        (
            HALF + "/versions/9223372036854775808:predict",
            400,
            "Failed to convert version: 9223372036854775808 to numeric.",
        ),
    ],
)
def test_models_that_are_not_there(half: Served, path: str, status: int, message: str) -> None:
    answer = half.post(path, '{"instances": [0]}')
    assert (answer.status, answer.error) == (status, message)


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        ("/v1/models/none", 404, "Could not find any versions of model none"),
        (HALF + "/versions/2", 404, "Could not find version 2 of model half_plus_two"),
        (HALF + "/labels/stable", 400, "Unrecognized servable version label: stable"),
        ("/v1/models/none/metadata", 404, "Servable not found for request: Latest(none)"),
        (HALF + "/versions/2/metadata", 404, "Servable not found for request: Specific(half_plus_two, 2)"),
    ],
)
def test_status_of_models_that_are_not_there(half: Served, path: str, status: int, message: str) -> None:
    answer = half.get(path)
    assert (answer.status, answer.error) == (status, message)


def test_merged_leaves_other_paths_to_http(half: Served) -> None:
    assert half.post(HALF + ":explain", "{}").status == 404
    assert half.post(HALF + ":PREDICT", "{}").status == 404
    answer = half.get(HALF + ":predict")
    assert (answer.status, answer.headers["allow"]) == (405, "POST")


# -- the dialect of TensorFlow Serving alone --------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/models/log:explain"),
        ("POST", "/v1/models/log:PREDICT"),
        ("GET", "/v1/models/log:predict"),
        ("GET", "/v1/models/log/"),
        ("DELETE", "/v1/models/log"),
        ("PATCH", "/V1/anything"),
        ("POST", "/v1/models/log/versions/1/labels/x:predict"),
    ],
)
def test_strict_dialect_claims_everything_below_v1(served: ServedModels, method: str, path: str) -> None:
    answer = served["log"].get(path, method)
    assert (answer.status, answer.error) == (400, f"Malformed request: {method} {path}")


def test_strict_dialect_lists_and_describes_as_the_reference(served: ServedModels) -> None:
    log = served["log"]
    missing = log.get("/v1/models")
    assert (missing.status, missing.error) == (400, "Missing model name in request.")
    assert log.get("/v1/models/log").json == {"model_version_status": [AVAILABLE]}
    assert log.get("/elsewhere").status == 404


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ('{"instances": [[1, 0], [-1, 1]]}', '{"predictions":[[0.0,-Infinity],[NaN,0.0]]}'),
        ('{"inputs": [[Infinity, NaN]]}', '{"outputs":[[Infinity,NaN]]}'),
        ('{"inputs": {"x": [[Inf, 1]], "\\" NaN": "NaN"}}', '{"outputs":[[Infinity,0.0]]}'),
        ('{"instances": [[-Infinity, 1]]}', '{"predictions":[[NaN,0.0]]}'),
    ],
)
def test_strict_dialect_reads_and_writes_bare_nan_and_infinity(served: ServedModels, body: str, expected: str) -> None:
    answer = predict(served["log"], body)
    assert (answer.status, answer.text) == (200, expected)


def test_strict_dialect_of_v1_leaves_other_protocols_their_policy(served: ServedModels) -> None:
    answer = served["log"].post("/predict", [0, 1])
    assert (answer.status, answer.json["code"]) == (500, "nonfinite_output")


@pytest.mark.parametrize(
    "body",
    [
        '{"inputs": [[NaN, 1e999]]}',
        '{"inputs": [[NaN, 1e39]]}',
        '{"inputs": [[NaN, ]]}',
        '{"inputs": [[nan, 1]]}',
        '{"inputs": [["NaN", 1]]}',
    ],
)
def test_strict_dialect_is_strict_about_the_rest(served: ServedModels, body: str) -> None:
    refused(served["log"], body)
