"""Scoring scripts of Azure ML online endpoints: what their clients, and the scripts, find here."""

from __future__ import annotations

import base64
import http.client
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from typing import Any

import pytest
from openapi_spec_validator import validate

from support.served import Answer, Served
from support.services import serving, write

SCRIPTS = {
    "score": """
import json, os

def init():
    global model, inits
    inits = globals().get("inits", 0) + 1
    model = os.environ["AZUREML_MODEL_DIR"]

def run(data):
    assert isinstance(data, str)
    wanted = json.loads(data)["do"]
    if wanted == "text":
        return json.dumps({"a": 1})
    if wanted == "raise":
        raise ValueError("the script's own secret")
    if wanted == "nan":
        return [float("nan")]
    return {"inits": inits, "model": model, "data": data}
""",
    "raw": """
from azureml.contrib.services.aml_request import AMLRequest, rawhttp
from azureml.contrib.services.aml_response import AMLResponse

def init():
    pass

@rawhttp
def run(request):
    assert isinstance(request, AMLRequest)
    wanted = request.args.get("do")
    if wanted == "headers":
        return AMLResponse(b"x", 201, {"X-Own": "a, b", "Content-Type": "image/png", "Connection": "close"})
    if wanted == "inject":
        return AMLResponse(b"x", 200, {"X-Own": "a\\r\\nX-Evil: 1"})
    if wanted == "status":
        return AMLResponse("x", 99)
    if wanted == "json":
        return {"plain": request.get_json(force=True)}
    if wanted == "none":
        return AMLResponse(None, 503)
    if wanted == "number":
        return AMLResponse(5)
    if wanted in ("204", "304"):
        return AMLResponse("no body can follow", int(wanted))
    if wanted == "form":
        files = {name: [file.filename, file.content_type, list(file.read())] for name, file in request.files.items()}
        return [dict(request.form), files]
    told = [request.method, request.full_path, request.headers["X-Asked"], len(request.get_data(False))]
    return AMLResponse(told, 200, json_str=True)
""",
    "headers": """
import asyncio
from azureml_inference_server_http.api.aml_response import AMLResponse

async def init():
    global lock
    lock = asyncio.Lock()
    await lock.acquire()
    asyncio.get_running_loop().call_soon(lock.release)

async def run(data, request_headers):
    async with lock:  # of the loop of init
        asked = request_headers.get("x-asked")
        return AMLResponse(data, 418) if asked == "teapot" else [data, asked]
""",
    "schema": """
import numpy as np
from inference_schema.parameter_types.numpy_parameter_type import NumpyParameterType
from inference_schema.schema_decorators import input_schema

def init():
    pass

@input_schema("data", NumpyParameterType(np.array([[1.0, 2.0]])))
def run(data, scale=1):
    return (data.sum(axis=1) * scale).tolist()
""",
}


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Served]]:
    folder = tmp_path_factory.mktemp("scripts")
    with ExitStack() as stack, ThreadPoolExecutor() as threads:

        def start(name: str) -> Served:
            written = write(folder / name, **{f"{name}_py": SCRIPTS[name]})
            return stack.enter_context(serving(written / f"{name}.py"))

        yield dict(zip(SCRIPTS, threads.map(start, SCRIPTS), strict=True))


def ask(served: Served, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
    connection = http.client.HTTPConnection(served.server.host, served.server.port, timeout=20)
    try:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, named)
        response = connection.getresponse()
        return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())
    finally:
        connection.close()


pytestmark = pytest.mark.slow


# -- init and run -----------------------------------------------------------------------------------------


def test_init_once_and_the_body_as_it_came(scripts: dict[str, Served]) -> None:
    score = scripts["score"]
    for _ in range(3):
        answer = score.post("/score", '{"do":  "it"}')
        assert answer.status == 200
        assert answer.json == {"inits": 1, "model": str(score.path.parent), "data": '{"do":  "it"}'}
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["x-ms-run-function-failed"] == "False"


def test_predict_works_as_well(scripts: dict[str, Served]) -> None:
    score = scripts["score"]
    assert score.post("/predict", {"do": "it"}).json == score.post("/score", {"do": "it"}).json
    assert [each["inits"] for each in score.post("/batch-predict", [{"do": "it"}] * 3).json] == [1, 1, 1]


@pytest.mark.parametrize("status", ["204", "304"])
def test_an_answer_that_has_no_body_leaves_none_for_the_next_one(scripts: dict[str, Served], status: str) -> None:
    server = scripts["raw"].server
    with closing(http.client.HTTPConnection(server.host, server.port, timeout=20)) as connection:
        for path, expected in ((f"/score?do={status}", int(status)), ("/score?do=json", 200)) * 2:
            connection.request("POST", path, "{}")
            response = connection.getresponse()
            assert (response.status, response.read()) == (expected, b'{"plain":{}}' if expected == 200 else b"")


def test_files_of_a_form(scripts: dict[str, Served]) -> None:
    image = bytes(range(256)) + b"\r\n--not the end\r\n"
    form = (
        b'--b0\r\ncontent-disposition: form-data; name="title"\r\n\r\n\xc3\xbc\r\n'
        b'--b0\r\ncontent-disposition: form-data; name="image"; filename="a b.png"\r\ncontent-type: image/png\r\n\r\n'
        + image
        + b"\r\n--b0--\r\n"
    )
    answer = ask(scripts["raw"], "POST", "/score?do=form", form, content_type="multipart/form-data; boundary=b0")
    assert answer.json == [{"title": "ü"}, {"image": ["a b.png", "image/png", list(image)]}]
    for kind in ("multipart/form-data", "text/plain"):
        assert ask(scripts["raw"], "POST", "/score?do=form", form, content_type=kind).json == [{}, {}]


def test_a_response_that_is_no_text(scripts: dict[str, Served]) -> None:
    assert ask(scripts["raw"], "POST", "/score?do=number", b"{}").status == 500
    assert "AMLResponse: expected text or bytes, got int; or say json_str=True" in scripts["raw"].server.output


def test_the_model_may_be_named(scripts: dict[str, Served]) -> None:
    assert scripts["score"].post("/models/score/score", {"do": "it"}).status == 200
    missing = scripts["score"].post("/models/other/score", {"do": "it"})
    assert (missing.status, missing.headers["x-ms-run-function-failed"]) == (404, "False")
    assert "other" in missing.json["message"]


def test_a_string_that_run_returns_is_a_string_of_json(scripts: dict[str, Served]) -> None:
    assert scripts["score"].post("/score", {"do": "text"}).text == r'"{\"a\": 1}"'


def test_any_content_type(scripts: dict[str, Served]) -> None:
    assert scripts["score"].post("/score", '{"do": "it"}', "text/plain").status == 200


def test_a_script_that_raises(scripts: dict[str, Served]) -> None:
    answer = scripts["score"].post("/score", {"do": "raise"})
    assert (answer.status, answer.json["code"]) == (500, "model_failed")
    assert answer.json["message"] == answer.json["error"]
    assert answer.headers["x-ms-run-function-failed"] == "True"
    until = time.monotonic() + 20
    while "the script's own secret" not in scripts["score"].server.output:  # told of once a second at most
        assert time.monotonic() < until
        scripts["score"].post("/score", {"do": "raise"})
    assert "paceline/workers" not in scripts["score"].server.output


def test_fault_054_nan(scripts: dict[str, Served]) -> None:
    answer = scripts["score"].post("/score", {"do": "nan"})
    assert (answer.status, answer.json["code"]) == (500, "nonfinite_output")


@pytest.mark.parametrize("body", ["", "{", "{} {}"])
def test_fault_039_040_what_is_no_json(scripts: dict[str, Served], body: str) -> None:
    answer = scripts["score"].post("/score", body)
    assert answer.status == 400
    assert "byte" in answer.json["message"]
    assert answer.headers["x-ms-run-function-failed"] == "False"


def test_healthy(scripts: dict[str, Served]) -> None:
    answer = scripts["score"].get("/")
    assert (answer.status, answer.text) == (200, "Healthy")
    assert scripts["score"].get("/", "HEAD").status == 200


def test_only_post_without_rawhttp(scripts: dict[str, Served]) -> None:
    answer = scripts["score"].get("/score")
    assert (answer.status, answer.headers["allow"]) == (405, "POST")


def test_it_is_no_studio_module(scripts: dict[str, Served]) -> None:
    answer = scripts["score"].post("/execute", {})
    assert answer.status == 404
    assert "is no Studio module" in answer.error


@pytest.mark.parametrize("version", ["2", "3"])
def test_swagger(scripts: dict[str, Served], version: str) -> None:
    document = scripts["score"].get(f"/swagger.json?version={version}").json
    validate(document)
    assert document["paths"]["/score"]["post"]["operationId"] == "RunMLService"
    assert document["paths"]["/"]["get"]["operationId"] == "ServiceHealthCheck"
    assert scripts["score"].get("/swagger.json?version=1").status == 404


def test_what_was_recognised_is_said(scripts: dict[str, Served]) -> None:
    assert "Azure ML scoring script: init() once, run(data), /score" in scripts["score"].server.output


# -- rawhttp ----------------------------------------------------------------------------------------------


def test_rawhttp_gets_the_request(scripts: dict[str, Served]) -> None:
    body = bytes(range(256))
    for method in ("POST", "GET", "PUT"):
        answer = ask(scripts["raw"], method, "/score?a=%41&b", body, X_Asked="yes")
        assert answer.status == 200
        assert answer.json == [method, "/score?a=%41&b", "yes", 256]


def test_rawhttp_chooses_status_and_headers(scripts: dict[str, Served]) -> None:
    answer = ask(scripts["raw"], "POST", "/score?do=headers", b"")
    assert (answer.status, answer.body) == (201, b"x")
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["x-own"] == "a, b"
    assert answer.headers.get("connection") != "close"
    assert answer.headers["x-ms-run-function-failed"] == "False"


def test_rawhttp_may_return_plain_values(scripts: dict[str, Served]) -> None:
    answer = ask(scripts["raw"], "POST", "/score?do=json", b"[1]")
    assert (answer.status, answer.json) == (200, {"plain": [1]})


def test_an_empty_response_is_an_empty_object(scripts: dict[str, Served]) -> None:
    answer = ask(scripts["raw"], "POST", "/score?do=none", b"")
    assert (answer.status, answer.text) == (503, "{}")
    assert answer.headers["x-ms-run-function-failed"] == "True"


@pytest.mark.parametrize(("do", "what"), [("inject", "header 'x-own'"), ("status", "status 99")])
def test_fault_106_headers_that_cannot_be_sent(scripts: dict[str, Served], do: str, what: str) -> None:
    answer = ask(scripts["raw"], "POST", f"/score?do={do}", b"")
    assert (answer.status, answer.json["code"]) == (500, "bad_model_output")
    assert "x-evil" not in answer.headers


def test_predict_gives_rawhttp_a_body(scripts: dict[str, Served]) -> None:
    item = {"method": "POST", "path": "/p", "query": "", "headers": {"x-asked": "a"}, "body": "AAEC"}
    assert len(base64.b64decode(item["body"])) == 3
    whole = scripts["raw"].post("/predict", item)
    assert json.loads(base64.b64decode(whole.json["body"])) == ["POST", "/p?", "a", 3]


def test_request_headers(scripts: dict[str, Served]) -> None:
    headers = scripts["headers"]
    assert ask(headers, "POST", "/score", b"any text", X_Asked="yes").json == ["any text", "yes"]
    teapot = ask(headers, "POST", "/score", b"any text", X_Asked="teapot")
    assert (teapot.status, teapot.body) == (418, b"any text")
    assert ask(headers, "POST", "/score", b"\xff").status == 400


# -- input_schema -----------------------------------------------------------------------------------------


def test_input_schema_gives_arguments_by_name(scripts: dict[str, Served]) -> None:
    schema = scripts["schema"]
    assert schema.post("/score", {"data": [[1, 2], [3, 4]]}).json == [3.0, 7.0]
    assert schema.post("/score", {"data": [[1, 2]], "scale": 2}).json == [6.0]


@pytest.mark.parametrize(("body", "why"), [({}, "'data' is missing"), ([1], "expected an object")])
def test_input_schema_names_what_is_missing(scripts: dict[str, Served], body: Any, why: str) -> None:
    answer = scripts["schema"].post("/score", body)
    assert answer.status == 400
    assert why in answer.json["message"]
