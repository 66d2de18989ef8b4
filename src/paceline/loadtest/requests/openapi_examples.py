"""Which bodies does an OpenAPI document give as examples? FastAPI, LitServe and BentoML write one.

An example stands with the media type, or in its schema, or in those of the properties.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

_JSON: Final = "application/json"
_DEEPEST: Final = 16
_UNKNOWN: Final = object()


def of(document: Mapping[str, Any]) -> dict[str, bytes]:
    """JSON of an example for each path that takes JSON by POST and has one."""
    found = {}
    for path, operations in _mapping(document.get("paths")).items():
        content = _mapping(_mapping(_mapping(operations).get("post")).get("requestBody")).get("content")
        value = _of_media(document, _mapping(_mapping(content).get(_JSON)))
        if value is not _UNKNOWN:
            found[path] = msgspec.json.encode(value)
    return found


def _of_media(document: Mapping[str, Any], media: Mapping[str, Any]) -> Any:
    if "example" in media:
        return media["example"]
    for named in _mapping(media.get("examples")).values():
        if "value" in _mapping(named):
            return named["value"]
    return _of_schema(document, media.get("schema"), _DEEPEST)


def _of_schema(document: Mapping[str, Any], schema: Any, deep: int) -> Any:
    schema = _mapping(schema)
    if "$ref" in schema:
        return _of_schema(document, _resolved(document, str(schema["$ref"])), deep - 1) if deep else _UNKNOWN
    if "example" in schema:
        return schema["example"]
    if isinstance(schema.get("examples"), list) and schema["examples"]:
        return schema["examples"][0]
    if "default" in schema:
        return schema["default"]
    properties = _mapping(schema.get("properties"))
    if not properties or not deep:
        return _UNKNOWN
    values = {name: _of_schema(document, each, deep - 1) for name, each in properties.items()}
    wanted = schema.get("required", list(properties))
    if any(values.get(name, _UNKNOWN) is _UNKNOWN for name in wanted):
        return _UNKNOWN
    return {name: value for name, value in values.items() if value is not _UNKNOWN}


def _resolved(document: Mapping[str, Any], reference: str) -> Any:
    """What `#/components/schemas/NAME` means; references to other documents mean nothing."""
    found: Any = document
    for key in reference.removeprefix("#/").split("/"):
        found = _mapping(found).get(key.replace("~1", "/").replace("~0", "~"))
    return found


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
