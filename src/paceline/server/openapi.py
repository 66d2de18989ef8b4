"""The OpenAPI 3.1 document of this server: its routes, typed by the signatures of its models.

Rules:
- A path is listed only when the server routes it, so the document cannot promise what is not there.
- Every POST has an example that the model accepts, if one is known. A large one is a link: `GET /example` gives it.
- `x-models` tells the try-it page what the standard has no place for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, Final
from urllib.parse import quote

import orjson

from paceline import __version__
from paceline.core.tensors import TensorSpec
from paceline.engine.engine import Engine, Entry
from paceline.engine.hosted import HostedModel
from paceline.server import schemas
from paceline.server.example_bodies import NO_EXAMPLE, ExampleBodies
from paceline.server.schemas import Schema

INLINE_BYTES: Final = 8 << 10
"""Larger examples are not in the document: it would be read for nothing by whoever wants the routes."""

PLAIN: Final = "Plain JSON"
TENSORFLOW: Final = "TensorFlow Serving"
OPEN_INFERENCE: Final = "Open Inference Protocol"
OPERATIONS: Final = "Operations"

_TAGS: Final = {
    PLAIN: "The shortest way to a prediction.",
    TENSORFLOW: "For clients of TensorFlow Serving, version 1 of its REST API.",
    OPEN_INFERENCE: "For clients of Triton and KServe: version 2 of the protocol.",
    OPERATIONS: "Health, metrics and this description.",
}
_ERRORS: Final = {
    "400": "The request is malformed, or does not fit the model's signature.",
    "413": "The body is larger than the server accepts.",
    "415": "The content type or encoding is not supported.",
    "500": "The model failed, or put out what is not finite.",
    "503": "Not ready, or too busy to answer in time: come back after `Retry-After`.",
    "504": "The deadline passed before the answer.",
}

Routed = Callable[[str, str], bool]


def document(engine: Engine, routed: Routed) -> dict[str, Any]:
    """The whole document.

    Args:
        routed: does the server answer this method and path?
    """
    entries = [engine.entry(name) for name in engine.names()]
    models = [_ModelPages(entry, is_only=len(entries) == 1) for entry in entries]
    paths: dict[str, dict[str, Any]] = {}
    for page in models:
        for path, method, operation in page.operations():
            if routed(method.upper(), path):
                paths.setdefault(path, {})[method] = operation
    for path, operation in _server_operations():
        if routed("GET", path):
            paths.setdefault(path, {})["get"] = operation
    return {
        "openapi": "3.1.0",
        "info": {
            "title": ", ".join(entry.name for entry in entries) or "Paceline",
            "version": __version__,
            "description": "Predictions over HTTP, served by Paceline.",
        },
        "tags": [{"name": name, "description": text} for name, text in _TAGS.items()],
        "paths": paths,
        "components": _components(models),
        "x-models": [page.summary() for page in models],
    }


class _ModelPages:
    """The operations of one model."""

    def __init__(self, entry: Entry, is_only: bool) -> None:
        self._entry = entry
        # Routes without a name mean the only model.
        self._plain = "" if is_only else f"/models/{quote(entry.name, safe='')}"
        self._name = quote(entry.name, safe="")
        self._key = re.sub(r"[^A-Za-z0-9._-]", "_", entry.name)
        served = entry.served
        self._bodies: ExampleBodies | None = None
        # It decides whether numbers can be null or text.
        self._nonfinite = "error"
        if served is not None:
            self._nonfinite = served.nonfinite
            self._bodies = ExampleBodies(entry.signature, served.prepared.example)

    def schemas(self) -> dict[str, Schema]:
        """The model's own components."""
        signature = self._entry.signature
        return {
            f"{self._key}.Item": schemas.item(signature),
            f"{self._key}.Prediction": schemas.prediction(signature, self._nonfinite),
        }

    def summary(self) -> dict[str, Any]:
        """What the try-it page shows above the routes."""
        entry = self._entry
        shown: dict[str, Any] = {
            "name": entry.name,
            "version": entry.version,
            "platform": entry.platform,
            "state": entry.phase.value,
            "reason": entry.reason,
            "batched": entry.signature.batched,
            "inputs": [_tensor(spec, entry.signature.items) for spec in entry.signature.inputs],
            "outputs": [_tensor(spec, entry.signature.items) for spec in entry.signature.outputs],
            "settings": [],
        }
        if self._has_no_example:
            shown["no_example"] = NO_EXAMPLE
        if entry.served is not None:
            prepared = entry.served.prepared
            values = {
                "instances": len(prepared.instances),
                "threads": prepared.threads,
                "max_batch_size": prepared.max_batch_rows,
            }
            shown["settings"] = [
                {"name": name, "value": value, "why": prepared.reasons.get(name, "")} for name, value in values.items()
            ]
        return shown

    @property
    def _has_no_example(self) -> bool:
        served = self._entry.served
        return served is not None and self._entry.signature.items and not served.prepared.example

    def operations(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """Path, method and operation, in the order in which they are read."""
        yield from self._plain_operations()
        yield from self._tensorflow_operations()
        yield from self._open_inference_operations()

    def _plain_operations(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        item, prediction = self._ref("Item"), self._ref("Prediction")
        predict = self._post(PLAIN, "predict", "Predict one item", item, prediction, self._body(ExampleBodies.predict))
        if isinstance(self._entry.served, HostedModel) and self._entry.served.about.streams:
            predict["responses"]["200"]["content"]["text/event-stream"] = {"schema": {"type": "string"}}
            predict["description"] = (
                "A server-sent event for each part of the prediction, then one that is called `end`. "
                "With `Accept: application/json`, a list of all parts."
            )
        yield f"{self._plain}/predict", "post", predict
        yield (
            f"{self._plain}/batch-predict",
            "post",
            self._post(
                PLAIN,
                "batch-predict",
                "Predict a list of items",
                schemas.list_of(item),
                schemas.list_of({"anyOf": [prediction, _ref("Error")]}),
                self._body(ExampleBodies.batch_predict),
                "The answers come in the order of the items. A bad item gets its own error, the others their "
                "predictions." + (" Equal items run once." if self._entry.signature.items else ""),
            ),
        )
        if not self._has_no_example:
            yield (
                f"{self._plain}/example",
                "get",
                _get(PLAIN, self._id("example"), "A body that /predict accepts", item),
            )

    def _tensorflow_operations(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        signature = self._entry.signature
        path = f"/v1/models/{self._name}"
        yield (
            f"{path}:predict",
            "post",
            self._post(
                TENSORFLOW,
                "v1",
                "Predict rows or columns",
                schemas.tensorflow_request(signature, self._ref("Item")),
                schemas.tensorflow_response(signature, self._nonfinite),
                self._body(ExampleBodies.tensorflow),
            ),
        )
        yield path, "get", _get(TENSORFLOW, self._id("v1_status"), "State of the model's versions")
        yield f"{path}/metadata", "get", _get(TENSORFLOW, self._id("v1_metadata"), "Signature of the model")

    def _open_inference_operations(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        signature = self._entry.signature
        path = f"/v2/models/{self._name}"
        yield (
            f"{path}/infer",
            "post",
            self._post(
                OPEN_INFERENCE,
                "v2",
                "Infer from tensors",
                schemas.open_inference_request(signature),
                schemas.open_inference_response(signature, self._nonfinite),
                self._body(ExampleBodies.open_inference),
                "With the header `Inference-Header-Content-Length`, tensors follow the JSON as raw bytes.",
            ),
        )
        ref = _ref("ModelMetadata")
        yield path, "get", _get(OPEN_INFERENCE, self._id("v2_metadata"), "Inputs and outputs of the model", ref)
        yield f"{path}/ready", "get", _get(OPEN_INFERENCE, self._id("v2_ready"), "Is the model ready?")
        yield f"{path}/config", "get", _get(OPEN_INFERENCE, self._id("v2_config"), "Configuration of the model")
        yield f"{path}/stats", "get", _get(OPEN_INFERENCE, self._id("v2_stats"), "Counters of the model")

    def _post(
        self,
        tag: str,
        kind: str,
        summary: str,
        request: Schema,
        response: Schema,
        example: bytes | None,
        description: str = "",
    ) -> dict[str, Any]:
        content: dict[str, Any] = {"schema": request}
        if example is not None and len(example) <= INLINE_BYTES:
            content["example"] = orjson.Fragment(example)
        elif example is not None:
            content["examples"] = {"valid": {"externalValue": f"{self._plain}/example?for={kind}"}}
        operation = {
            "tags": [tag],
            "operationId": self._id(kind),
            "summary": summary,
            "x-model": self._entry.name,
            "parameters": [{"$ref": f"#/components/parameters/{name}"} for name in _PARAMETERS],
            "requestBody": {"required": True, "content": {"application/json": content}},
            "responses": {
                "200": {
                    "description": "The answer.",
                    "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in _RESPONSE_HEADERS},
                    "content": {"application/json": {"schema": response}},
                },
                **{status: {"$ref": f"#/components/responses/{status}"} for status in _ERRORS},
            },
        }
        return {**operation, "description": description} if description else operation

    def _body(self, make: Callable[[ExampleBodies], bytes | None]) -> bytes | None:
        return None if self._bodies is None else make(self._bodies)

    def _ref(self, name: str) -> Schema:
        return _ref(f"{self._key}.{name}")

    def _id(self, kind: str) -> str:
        return f"{kind.replace('-', '_')}_{self._key}" if self._plain else kind.replace("-", "_")


_PARAMETERS: Final = {
    "X-Request-Timeout-Ms": {
        "name": "X-Request-Timeout-Ms",
        "in": "header",
        "description": "Milliseconds until the answer is worth nothing. A request that cannot make it is refused.",
        "schema": {"type": "number", "exclusiveMinimum": 0, "maximum": 86_400_000},
    },
    "X-Request-Id": {
        "name": "X-Request-Id",
        "in": "header",
        "description": "Names the request in the answer and in the access log.",
        "schema": {"type": "string", "maxLength": 100},
    },
}
_RESPONSE_HEADERS: Final = {
    "X-Request-Id": {"description": "The name of the request.", "schema": {"type": "string"}},
    "Server-Timing": {
        "description": "Milliseconds in the queue and in the model: `queue;dur=0.012, infer;dur=0.310`.",
        "schema": {"type": "string"},
    },
    "X-Batch-Size": {"description": "Rows that ran together.", "schema": {"type": "integer", "minimum": 0}},
    "X-Cache": {
        "description": "Where predictions are kept: `hit` when all of the answer was, and nothing ran.",
        "schema": {"enum": ["hit", "miss"]},
    },
    "Age": {
        "description": "With `X-Cache: hit`: seconds since the prediction was made, the oldest of several.",
        "schema": {"type": "integer", "minimum": 0},
    },
}


def _components(models: list[_ModelPages]) -> dict[str, Any]:
    own = {name: schema for page in models for name, schema in page.schemas().items()}
    error = {"application/json": {"schema": _ref("Error")}}
    return {
        "schemas": {**schemas.COMMON, **own},
        "parameters": _PARAMETERS,
        "headers": _RESPONSE_HEADERS,
        "responses": {status: {"description": text, "content": error} for status, text in _ERRORS.items()},
    }


def _server_operations() -> Iterator[tuple[str, dict[str, Any]]]:
    yield "/v1/models", _get(TENSORFLOW, "v1_models", "Names of the models")
    yield "/v2", _get(OPEN_INFERENCE, "v2_server", "Name, version and extensions of the server")
    yield "/v2/health/live", _get(OPEN_INFERENCE, "v2_live", "Is the server alive?")
    yield "/v2/health/ready", _get(OPEN_INFERENCE, "v2_server_ready", "Are all models ready?")
    yield "/livez", _get(OPERATIONS, "livez", "Does the process work?", media="text/plain")
    readyz = _get(OPERATIONS, "readyz", "Is every model ready?", media="text/plain")
    readyz["parameters"] = [
        {
            "name": "verbose",
            "in": "query",
            "description": "List the models, as JSON.",
            "allowEmptyValue": True,
            "schema": {"type": "string"},
        }
    ]
    readyz["responses"]["200"]["content"]["application/json"] = {"schema": _ref("Readiness")}
    readyz["responses"]["503"] = {"description": "Not ready, or draining."}
    yield "/readyz", readyz
    yield "/metrics", _get(OPERATIONS, "metrics", "Metrics for Prometheus", media="text/plain")
    yield "/openapi.json", _get(OPERATIONS, "openapi", "This description", {"type": "object"})
    yield "/docs", _get(OPERATIONS, "docs", "A page to try it on", media="text/html")


def _get(
    tag: str,
    operation_id: str,
    summary: str,
    schema: Schema | None = None,
    media: str = "application/json",
) -> dict[str, Any]:
    kind = {"type": "string"} if media != "application/json" else schema or {"type": "object"}
    return {
        "tags": [tag],
        "operationId": operation_id,
        "summary": summary,
        "responses": {"200": {"description": "The answer.", "content": {media: {"schema": kind}}}},
    }


def _tensor(spec: TensorSpec, is_json: bool) -> dict[str, Any]:
    shown = {"name": spec.name, "datatype": "JSON" if is_json else spec.datatype.label, "shape": list(spec.shape)}
    return {**shown, "labels": list(spec.labels)} if spec.labels else shown


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}
