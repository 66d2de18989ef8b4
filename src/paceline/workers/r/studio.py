"""How does a request to a Studio script in R become a call of it, and the table that it gives the answer?

An item is one call, and its answer has the same form:
    {"dataframe1": TABLE, "dataframe2": TABLE, "parameters": {...}}     -> {"tables": [TABLE]}
    {"dataframe1": [ROW, ...], ...}                                     -> {"output1": [ROW, ...]}
    [ROW, ...]                                                          -> [ROW, ...]
    ROW                                                                 -> ROW
where ROW is an object of values by column, and TABLE is `{"columns": [...], "rows": [[...], ...]}`. Its `types`, or
`"typed": false`, say what the strings of a Studio client mean (`studio_types.py`).

Rules:
- A column of whole numbers is an integer one only where its type says so: see `columns.py`.
- A mixed column is text. NaN in an answer is a missing value, as in any table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import msgspec
import orjson

from paceline.core.errors import InvalidRequest, ModelFailed, PacelineError
from paceline.workers import studio_types
from paceline.workers.frames import BadFrame
from paceline.workers.r import columns, predictions
from paceline.workers.r import serialization as r
from paceline.workers.r.columns import BARE, Unfit
from paceline.workers.r.serialization import Value

_PORTS: Final = ("dataframe1", "dataframe2")
_KEYS: Final = frozenset((*_PORTS, "parameters"))

Shape = Callable[[dict[str, Any]], Any]


class _Table(msgspec.Struct):
    columns: list[str]
    rows: list[list[Any]]
    types: list[str] | None = None
    typed: bool = True


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
        tables, parameters, shape = _read(item)
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
        return orjson.dumps(shape({"columns": value.names or [], "types": types.items, "rows": rows}))
    except ModelFailed as error:
        return error


# -- what is asked ------------------------------------------------------------------------------------------------


def _read(item: Any) -> tuple[dict[str, _Table | None], dict[str, Any], Shape]:
    """The tables and parameters of an item, and the form of its answer."""
    if isinstance(item, list):
        return {_PORTS[0]: _of_rows(item), _PORTS[1]: None}, {}, _as_rows
    if not isinstance(item, dict):
        raise InvalidRequest("expected a row (an object of values by column), a list of rows, or tables by name")
    if not (item.keys() <= _KEYS and item.keys() & set(_PORTS)):
        return {_PORTS[0]: _of_rows([item]), _PORTS[1]: None}, {}, _as_row
    parameters = item.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise InvalidRequest("parameters: expected an object")
    tables = {port: _table(item.get(port), port) for port in _PORTS}
    as_rows = any(isinstance(item.get(port), list) for port in _PORTS)
    return tables, parameters, _as_named_rows if as_rows else _as_tables


def _table(value: Any, port: str) -> _Table | None:
    if value is None:
        return None
    if isinstance(value, list):
        return _of_rows(value)
    try:
        table = msgspec.convert(value, _Table)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"{port}: {error}") from None
    width = len(table.columns)
    for index, row in enumerate(table.rows):
        if len(row) != width:
            raise InvalidRequest(f"{port}.rows[{index}]: expected {width} values, got {len(row)}")
    if table.types is not None and len(table.types) != width:
        raise InvalidRequest(f"{port}.types: expected {width}, got {len(table.types)}")
    return table


def _of_rows(rows: Sequence[Any]) -> _Table:
    named = [row if isinstance(row, dict) else {BARE: row} for row in rows]
    names = list(dict.fromkeys(name for row in named for name in row))
    return _Table(names, [[row.get(name) for name in names] for row in named])


# -- in R's terms -------------------------------------------------------------------------------------------------


def _frame(table: _Table, port: str) -> bytes:
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


# -- the forms of an answer ---------------------------------------------------------------------------------------


def _as_tables(table: dict[str, Any]) -> Any:
    return {"tables": [table]}


def _as_named_rows(table: dict[str, Any]) -> Any:
    return {"output1": _as_rows(table)}


def _as_rows(table: dict[str, Any]) -> Any:
    return [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]


def _as_row(table: dict[str, Any]) -> Any:
    rows = _as_rows(table)
    if len(rows) != 1:
        raise ModelFailed(
            f"the script gave {len(rows)} rows for one: send a list of rows to get as many as there are",
            code="bad_model_output",
        )
    return rows[0]
