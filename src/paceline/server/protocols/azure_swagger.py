"""What does `/swagger.json` say of scoring scripts and Studio modules?

Rules:
- The operations have the names that Azure gives them: clients are generated from those.
- What a script takes, only its author knows: any JSON.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from paceline import __version__
from paceline.engine.hosted import HostedModel

VERSIONS: Final = ("2", "3")

_STRINGS: Final = {"type": "array", "items": {"type": "string"}}
_TABLE: Final = {
    "type": "object",
    "required": ["ColumnNames", "Values"],
    "properties": {
        "ColumnNames": _STRINGS,
        "ColumnTypes": _STRINGS,
        "Values": {"type": "array", "items": {"type": "array", "items": {}}},
    },
}
_SCHEMAS: Final[dict[str, Any]] = {
    "ServiceInput": {},
    "ServiceOutput": {},
    "ErrorResponse": {"type": "object", "properties": {"message": {"type": "string"}}},
    "ExecutionRequest": {
        "type": "object",
        "properties": {
            "Inputs": {"type": "object", "additionalProperties": _TABLE},
            "GlobalParameters": {"type": "object"},
        },
    },
    "ExecutionResponse": {
        "type": "object",
        "properties": {"Results": {"type": "object", "additionalProperties": {"type": "object"}}},
    },
}


def document(hosted: Sequence[HostedModel], version: str) -> dict[str, Any] | None:
    """The description in one version of Swagger; None: there is no such version."""
    if version.removesuffix(".0") not in VERSIONS:
        return None
    modern = version.startswith("3")
    paths: dict[str, Any] = {}
    for model in hosted:
        prefix = "" if len(hosted) == 1 else f"/models/{model.name}"
        if "score" in model.about.routes:
            paths["/"] = {"get": _health(modern)}
            paths[f"{prefix}/score"] = {"post": _operation("RunMLService", "ServiceInput", "ServiceOutput", modern)}
        if "execute" in model.about.routes:
            operation = _operation("execute", "ExecutionRequest", "ExecutionResponse", modern)
            paths[f"{prefix}/execute"] = {"post": operation}
    info = {"title": ", ".join(model.name for model in hosted), "version": hosted[0].version}
    about = {"info": {**info, "description": f"Served by Paceline {__version__}"}, "paths": paths}
    if modern:
        return {"openapi": "3.0.3", **about, "components": {"schemas": _SCHEMAS}}
    kinds = {"consumes": ["application/json"], "produces": ["application/json"]}
    return {"swagger": "2.0", **about, **kinds, "definitions": _SCHEMAS}


def _health(modern: bool) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    content = {"content": {"text/plain": {"schema": schema}}} if modern else {"schema": schema}
    return {"operationId": "ServiceHealthCheck", "responses": {"200": {"description": "Healthy", **content}}}


def _operation(name: str, takes: str, gives: str, modern: bool) -> dict[str, Any]:
    responses = {
        "200": _answer("The prediction", gives, modern),
        "default": _answer("An error", "ErrorResponse", modern),
    }
    if modern:
        return {"operationId": name, "requestBody": {"content": _content(takes)}, "responses": responses}
    body = {"name": "serviceInputPayload", "in": "body", "schema": _reference(takes, modern)}
    return {"operationId": name, "parameters": [body], "responses": responses}


def _answer(description: str, schema: str, modern: bool) -> dict[str, Any]:
    if modern:
        return {"description": description, "content": _content(schema)}
    return {"description": description, "schema": _reference(schema, modern)}


def _content(schema: str) -> dict[str, Any]:
    return {"application/json": {"schema": _reference(schema, True)}}


def _reference(schema: str, modern: bool) -> dict[str, Any]:
    return {"$ref": f"#/{'components/schemas' if modern else 'definitions'}/{schema}"}
