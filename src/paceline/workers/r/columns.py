"""How do JSON items become data frames of R?

Rules:
- A row for each item, a column for each key. `null` and a missing key are `NA`. A column of nothing else is numeric,
  or what the script's `example` says.
- A number is a double, also where it has no fraction: JSON has one kind of number, and an integer column would change
  its type, and overflow or not, with what other clients send in the same batch. Text stays text, dates as well.
- Columns are never coerced for the same reason: items that differ in a column's type are predicted apart.
- A list in an item is a vector where its elements are of one type, an object is a named list.
- An item that is no object is the column `x`.
- What R cannot hold (an integer beyond 2^53, text with NUL in it) is an error of its item alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from types import NoneType
from typing import Any, Final

import msgspec

from paceline.workers.r import serialization as r

MOST_EXACT: Final = 2**53
BARE: Final = "x"

_KINDS: Final[dict[type, str]] = {
    NoneType: "",
    bool: "logical",
    int: "double",
    float: "double",
    str: "character",
    list: "list",
    dict: "list",
}
_MIXED: Final = "mixed"
_DEEPEST: Final = 100
_WRITERS: Final[dict[str, Callable[[Sequence[Any]], bytes]]] = {
    "": r.doubles,
    "double": r.doubles,
    "logical": r.logicals,
    "character": r.strings,
}

Row = dict[str, Any]
Table = tuple[Sequence[int], bytes]


class Unfit(Exception):
    """Some value cannot be held by R: `problem` finds which."""


def tables(items: Sequence[Any]) -> list[Table]:
    """Data frames, and which items their rows are.

    Raises:
        Unfit: `problem` is not None for some item.
    """
    if not items:
        return []
    rows = [item if type(item) is dict else {BARE: item} for item in items]
    names = _names(rows)
    columns = [[row.get(name) for row in rows] for name in names]
    kinds = [_kind(column) for column in columns]
    if _MIXED not in kinds:
        return [(range(len(rows)), _frame(names, columns, kinds, len(rows)))]
    return [(indices, _apart(names, [rows[index] for index in indices])) for indices in _alike(rows)]


def promoted(values: Sequence[Any]) -> bytes:
    """A column that one client sent: a mixed one is text.

    Raises:
        Unfit: as above.
    """
    kind = _kind(values)
    if kind != _MIXED:
        return _written(kind, values)
    return r.strings([value if value is None or isinstance(value, str) else _text(value) for value in values])


def nested(value: Any, depth: int = 1) -> bytes:
    """Any JSON value, as an element of a list.

    Raises:
        Unfit: as above.
    """
    if depth > _DEEPEST:
        raise Unfit
    if isinstance(value, dict):
        return r.items([nested(each, depth + 1) for each in value.values()], list(value))
    if not isinstance(value, list):
        return r.null() if value is None else _written(_KINDS[type(value)], [value])
    kind = _kind(value)
    if kind in ("", "list", _MIXED):
        return r.items([nested(each, depth + 1) for each in value])
    return _written(kind, value)


def problem(value: Any, path: str = "", depth: int = 0) -> str | None:
    """Why R cannot hold a value."""
    where = path or "the item"
    if isinstance(value, str) and "\0" in value:
        return f"{where}: text in R holds no NUL character (\\u0000)"
    if type(value) is int and abs(value) > MOST_EXACT:
        return f"{where}: numbers in R are exact up to 2^53, got {_shortened(str(value))}; send it as text"
    if depth == _DEEPEST and isinstance(value, (dict, list)):
        return f"{_shortened(where)}: nested more than {_DEEPEST} deep"
    if isinstance(value, dict):
        if any("\0" in key for key in value):
            return f"{where}: a key holds a NUL character (\\u0000)"
        parts = [(each, f"{path}.{key}".lstrip(".")) for key, each in value.items()]
    elif isinstance(value, list):
        parts = [(each, f"{path}[{index}]") for index, each in enumerate(value)]
    else:
        return None
    return next((found for each, where in parts if (found := problem(each, where, depth + 1))), None)


def _names(rows: Sequence[Row]) -> list[str]:
    """All keys, in the order in which they first occur."""
    first = rows[0].keys()
    if all(row.keys() == first for row in rows):
        return list(first)
    return list(dict.fromkeys(chain.from_iterable(rows)))


def _kind(values: Sequence[Any]) -> str:
    """The type that all have, `mixed`, or nothing where all are null."""
    kinds = {_KINDS[each] for each in set(map(type, values))} - {""}
    if not kinds:
        return ""
    return kinds.pop() if len(kinds) == 1 else _MIXED


def _alike(rows: Sequence[Row]) -> list[list[int]]:
    """The indices of rows that have the same types, in groups."""
    groups: dict[frozenset[tuple[str, str]], list[int]] = {}
    for index, row in enumerate(rows):
        kinds = frozenset((name, _KINDS[type(value)]) for name, value in row.items() if value is not None)
        groups.setdefault(kinds, []).append(index)
    return list(groups.values())


def _apart(names: Sequence[str], rows: Sequence[Row]) -> bytes:
    columns = [[row.get(name) for row in rows] for name in names]
    return _frame(names, columns, [_kind(column) for column in columns], len(rows))


def _frame(names: Sequence[str], columns: Sequence[Sequence[Any]], kinds: Sequence[str], rows: int) -> bytes:
    return r.data_frame([_written(kind, column) for kind, column in zip(kinds, columns, strict=True)], names, rows)


def _written(kind: str, values: Sequence[Any]) -> bytes:
    if kind == "list":
        return r.items([nested(value) for value in values])
    if kind == "double" and not _exact(values):
        raise Unfit
    return _WRITERS[kind](values)


def _exact(values: Sequence[Any]) -> bool:
    """False when an integer would be rounded."""
    try:
        if min(values) >= -MOST_EXACT and max(values) <= MOST_EXACT:
            return True
    except TypeError:  # some are null
        pass
    return not any(type(value) is int and abs(value) > MOST_EXACT for value in values)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    return msgspec.json.encode(value).decode()


def _shortened(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."
