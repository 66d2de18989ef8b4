"""The OpenAPI document: valid, and true. Every example is sent, and every answer is held against its schema."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator
from onnx import TensorProto as T
from openapi_spec_validator import validate

from paceline.testing import RunningServer, run_server
from support import models

pytestmark = pytest.mark.slow

MODELS: dict[str, Callable[[Path], Path]] = {
    "mlp": models.mlp,
    "two": models.two_in_two_out,
    "vector-of-rows": models.gather,
    "text": lambda path: models.identity(path, T.STRING),
    "half": lambda path: models.identity(path, T.FLOAT16),
    "unsigned": lambda path: models.identity(path, T.UINT64),
    "without-rows": lambda path: models.identity(path, shape=(2, 3)),
    "image": lambda path: models.identity(path, shape=("N", 3, 32, 32)),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_document_is_valid_and_true(name: str, tmp_path: Path):
    # One server a model: a start costs a second, the checks next to nothing.
    with run_server(MODELS[name](tmp_path / f"{name}.onnx"), ["--warmup-s", "0.05"]) as server:
        document = httpx.get(f"{server.url}/openapi.json").json()
        validate(document)
        every_protocol_is_described(document)
        every_example_is_accepted_and_answered_as_described(server, document)
        every_get_is_answered_as_described(server, document)
        errors_have_the_body_that_is_described(server, document)


CODE = """
def predict(batch: list):
    return [{"item": item, "among": len(batch)} for item in batch]
"""
EXAMPLE = """
def example():
    return {"words": ["a", "b"], "number": 1.5}
"""


@pytest.mark.parametrize("example", [EXAMPLE, ""], ids=["with an example", "without"])
def test_the_document_of_user_code_is_valid_and_true(example: str, tmp_path: Path):
    path = tmp_path / "code.py"
    path.write_text(CODE + example)
    with run_server(path, ["--warmup-s", "0.05"]) as server:
        document = httpx.get(f"{server.url}/openapi.json").json()
        validate(document)
        every_protocol_is_described(document)
        if example:
            every_example_is_accepted_and_answered_as_described(server, document)
        every_get_is_answered_as_described(server, document)
        errors_have_the_body_that_is_described(server, document)
    (model,) = document["x-models"]
    assert model["inputs"] == [{"name": "item", "datatype": "JSON", "shape": [-1]}]
    assert ("no_example" in model) is not bool(example)
    assert ("/example" in document["paths"]) is bool(example)


def every_protocol_is_described(document: dict[str, Any]) -> None:
    tags = {operation["tags"][0] for method in ("get", "post") for _, operation in operations(document, method)}
    assert tags == {"Plain JSON", "TensorFlow Serving", "Open Inference Protocol", "Operations"}


def every_example_is_accepted_and_answered_as_described(server: RunningServer, document: dict[str, Any]) -> None:
    sent = 0
    for path, operation in operations(document, "post"):
        content = operation["requestBody"]["content"]["application/json"]
        example = example_of(server, content)
        if example is None:
            continue  # JSON cannot carry these inputs in this protocol
        check(document, content["schema"], example)

        response = httpx.post(server.url + path, json=example, timeout=30)

        assert response.status_code == 200, f"{path}: {response.text}"
        check(document, operation["responses"]["200"]["content"]["application/json"]["schema"], response.json())
        sent += 1
    assert sent >= 2


def every_get_is_answered_as_described(server: RunningServer, document: dict[str, Any]) -> None:
    for path, operation in operations(document, "get"):
        response = httpx.get(server.url + path, timeout=30)
        assert response.status_code == 200, f"{path}: {response.text}"
        content = operation["responses"]["200"]["content"].get("application/json")
        if content is not None and response.headers["content-type"] == "application/json":
            check(document, content["schema"], response.json())


def errors_have_the_body_that_is_described(server: RunningServer, document: dict[str, Any]) -> None:
    response = httpx.post(f"{server.url}/predict", content=b"{", headers={"content-type": "application/json"})
    assert response.status_code == 400
    check(document, {"$ref": "#/components/schemas/Error"}, response.json())


def operations(document: dict[str, Any], method: str) -> list[tuple[str, dict[str, Any]]]:
    return [(path, methods[method]) for path, methods in document["paths"].items() if method in methods]


def example_of(server: RunningServer, content: dict[str, Any]) -> Any:
    if "examples" in content:
        return httpx.get(server.url + content["examples"]["valid"]["externalValue"], timeout=30).json()
    return content.get("example")


def check(document: dict[str, Any], schema: dict[str, Any], value: Any) -> None:
    Draft202012Validator({**schema, "components": document["components"]}).validate(value)
