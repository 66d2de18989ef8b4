"""How does a request to a Studio script in R become a call of it, and the table that it gives the answer?

Rules:
- Each item is one call: see `studio_items.py`. `studio_types.py` says what the strings of a Studio client mean.
- A column of whole numbers is an integer one only where its type says so: see `columns.py`.
- A mixed column is text. NaN in an answer is a missing value, as in any table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import orjson

from paceline.core.errors import InvalidRequest, ModelFailed, PacelineError
from paceline.workers import studio_items, studio_types
from paceline.workers.frames import BadFrame
from paceline.workers.r import columns, predictions
from paceline.workers.r import serialization as r
from paceline.workers.r.columns import Unfit
from paceline.workers.r.serialization import Value
from paceline.workers.studio_items import Table, Written

Shape = Callable[[Sequence[Written | None]], Any]


class Call(NamedTuple):
    """A call of a script.

    Attributes:
        written: list(table or NULL, table or NULL, parameters), for R.
        shape: the form of its answer.
    """

    written: bytes
    shape: Shape


def call(item: Any) -> Call:
    """The call that an item is.

    Raises:
        InvalidRequest: it is none.
    """
    try:
        tables, parameters, shape = studio_items.read(item)
        written = [r.null() if each is None else _frame(each, name) for name, each in tables.items()]
        return Call(r.items([*written, columns.nested(parameters)]), shape)
    except (Unfit, RecursionError):
        raise InvalidRequest(columns.problem(item) or "the item cannot be held by R") from None


def answer(result: Value, shape: Shape) -> bytes | PacelineError:
    """The answer that a result of the host is.

    Raises:
        BadFrame: it is none.
    """
    try:
        layout, value, types = result.items
        if layout.items != [predictions.TABLE]:
            raise BadFrame("R answered a Studio script with no table")
        values = [predictions.elements(column) for column in value.items]
        rows = [list(row) for row in zip(*values, strict=True)]
    except (ValueError, IndexError, TypeError, AttributeError) as error:
        raise BadFrame(f"R answered what is no result: {error}") from None
    try:
        return orjson.dumps(shape([{"columns": value.names or [], "types": types.items, "rows": rows}]))
    except ModelFailed as error:
        return error


# -- in R's terms -------------------------------------------------------------------------------------------------


def _frame(table: Table, port: str) -> bytes:
    values: list[Sequence[Any]] = [[row[index] for row in table.rows] for index in range(len(table.columns))]
    if table.types is not None:
        named = zip(table.columns, table.types, values, strict=True)
        written = [_typed(column, kind, f"{port}.{name}") for name, kind, column in named]
    elif not table.typed and studio_types.are_texts(values):
        written = [_whole_or_any(studio_types.read(column)) for column in values]
    else:
        written = [columns.promoted(column) for column in values]
    return r.data_frame(written, table.columns, len(table.rows))


def _typed(column: Sequence[Any], kind: str, where: str) -> bytes:
    values = studio_types.cast(column, kind, where)
    if kind == "DateTime":
        return r.times([None if value is None else _seconds(value, where) for value in values])
    return _whole_or_any(values)


def _whole_or_any(values: Sequence[Any]) -> bytes:
    """An integer column where all of it are integers of R."""
    kinds = set(map(type, values)) - {type(None)}
    if kinds == {int} and all(value is None or abs(value) < r.MOST_INTEGER for value in values):
        return r.integers(values)
    return columns.promoted(values)


def _seconds(text: str, where: str) -> float:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidRequest(f"{where}: expected DateTime, got {text[:40]!r}") from None
    return (time if time.tzinfo is not None else time.replace(tzinfo=UTC)).timestamp()
