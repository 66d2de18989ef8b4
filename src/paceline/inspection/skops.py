"""What is in a skops file? The types that it lists, and which model comes out, from the document in it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from paceline.inspection import estimators
from paceline.inspection.documents import NotJson, decoded, items, objects, word
from paceline.inspection.pickles import PLAIN, add_imports
from paceline.inspection.report import Report, by_count
from paceline.inspection.standins import MOST_KEPT, Made, Many, Name
from paceline.runtimes.archive import Archive

_MOST_SCHEMA_BYTES: Final = 256 << 20
_DEEPEST: Final = 50
_OBJECTS: Final = Made(Name("numpy", "dtype"), ("O",))


def read(path: Path, report: Report) -> None:
    """Fill in the report of a .skops file.

    Raises:
        ModelLoadError: it is no such file.
    """
    with Archive(path) as archive:
        try:
            schema = decoded(archive.read("schema.json", _MOST_SCHEMA_BYTES))
        except NotJson as error:
            raise archive.broken(f"schema.json: {error}") from error
    names: dict[tuple[str, str], bool] = {}
    made: dict[str, int] = {}
    for node in objects(schema):
        module, name = node.get("__module__"), node.get("__class__")
        if isinstance(module, str) and isinstance(name, str):
            # A function or a type is referred to; of any other node an object is made.
            called = node.get("__loader__") not in ("FunctionNode", "TypeNode")
            names[module, name] = names.get((module, name), False) or called
            full = f"{module}.{name}"
            if called and not full.startswith(PLAIN):
                made[full] = made.get(full, 0) + 1
    add_imports(names, report)
    report.operators = by_count(made)
    if isinstance(schema, dict):
        report.versions["skops"] = str(schema.get("_skops_version", "?"))[:64]
        model = _stand_in(schema, 0)
        if isinstance(model, Made):
            estimators.describe(model, report)


def _stand_in(node: Any, depth: int) -> Any:
    """What stands in for the object of a node, as for those of a pickle."""
    content = node.get("content") if isinstance(node, dict) else None
    if depth > _DEEPEST or content is None:
        return None
    loader = word(node, "__loader__")
    if loader == "JsonNode":
        return _plain(content)
    if loader == "DictNode":
        kept = list(content.items())[:MOST_KEPT] if isinstance(content, dict) else []
        return Many(by_key={key: _stand_in(value, depth + 1) for key, value in kept})
    if loader in ("ListNode", "SetNode", "TupleNode"):
        within = _within(node, depth)
        return tuple(within) if loader == "TupleNode" else Many(items=within)
    of = Name(word(node, "__module__")[:200], word(node, "__class__")[:200])
    if loader == "NdArrayNode":  # of objects: others lie in files of their own
        return Made(of, state=(1, (), _OBJECTS, False, Many(items=_within(node, depth))))
    return Made(of, state=_stand_in(content, depth + 1))


def _within(node: Mapping[str, Any], depth: int) -> list[Any]:
    return [_stand_in(each, depth + 1) for each in items(node, "content")[:MOST_KEPT]]


def _plain(content: Any) -> Any:
    """A number or a text."""
    try:
        return decoded(content[:1000].encode()) if isinstance(content, str) else None
    except NotJson:
        return None
