"""How is JSON from a file looked through, whatever it holds? Without recursion, and without believing its types."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec


class NotJson(Exception):
    """The bytes are no JSON, or nested too deeply."""


def decoded(data: bytes) -> Any:
    """The document.

    Raises:
        NotJson: it is none.
    """
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise NotJson(str(error) or "nested too deeply") from error


def objects(document: Any) -> Iterator[Mapping[str, Any]]:
    """Every object of a document, those outside first."""
    waiting = [document]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            yield each
            waiting.extend(each.values())
        elif isinstance(each, list):
            waiting.extend(each)


def at(document: Any, *keys: str) -> Any:
    """What stands under a path of keys; None where there is nothing."""
    for key in keys:
        document = document.get(key) if isinstance(document, dict) else None
    return document


def items(document: Any, *keys: str) -> list[Any]:
    """The list under a path of keys; empty where there is none."""
    found = at(document, *keys)
    return found if isinstance(found, list) else []


def word(document: Any, *keys: str) -> str:
    """The text under a path of keys, cut where it is absurdly long; "" where there is none."""
    found = at(document, *keys)
    return found[:1000] if isinstance(found, str) else ""
