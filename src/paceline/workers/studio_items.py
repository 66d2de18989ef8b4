"""What is an item for a Studio module, in whatever language, and which form has its answer?

    {"dataframe1": TABLE, "dataframe2": TABLE, "parameters": {...}}     -> {"tables": [TABLE, ...]}
    {"dataframe1": [ROW, ...], ...}                                     -> {"output1": [ROW, ...], ...}
    [ROW, ...]                                                          -> [ROW, ...], of the first output
    ROW                                                                 -> ROW

ROW is an object of values by column. TABLE is `{"columns": ["age", "name"], "rows": [[41, "Ada"], [null, "Bo"]]}`, with
`"types": ["Double", "String"]` where they are known.

Rules:
- Each item is one call, for a module may compute over all of its rows.
- An object without a table in it is a row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from paceline.core.errors import InvalidRequest, ModelFailed

PORTS: Final = ("dataframe1", "dataframe2")
_KEYS: Final = frozenset((*PORTS, "parameters"))

Written = dict[str, Any]
"""A table that a module gave: columns, types and rows."""


class Table(msgspec.Struct, omit_defaults=True):
    """A table in JSON.

    Attributes:
        types: of the columns, out of `studio_types.TYPES`; None: as the values are.
        typed: False: the values are strings, whatever they mean.
    """

    columns: list[str]
    rows: list[list[Any]]
    types: list[str] | None = None
    typed: bool = True


class Call(NamedTuple):
    """A call of a module.

    Attributes:
        tables: by port.
        shape: the form of its answer; it raises ModelFailed where the outputs do not have it.
    """

    tables: dict[str, Table | None]
    parameters: dict[str, Any]
    shape: Callable[[Sequence[Written | None]], Any]


def read(item: Any) -> Call:
    """The call that an item is.

    Raises:
        InvalidRequest: it is none.
    """
    if isinstance(item, list):
        return _of_rows(item, _first_rows)
    if not isinstance(item, dict):
        raise InvalidRequest("expected a row (an object of values by column), a list of rows, or tables by name")
    if not (item.keys() <= _KEYS and item.keys() & set(PORTS)):
        return _of_rows([item], _only_row)
    parameters = item.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise InvalidRequest("parameters: expected an object")
    as_rows = any(isinstance(item.get(port), list) for port in PORTS)
    return Call({port: _table(item.get(port), port) for port in PORTS}, parameters, _all_rows if as_rows else _all)


def of_records(records: Sequence[Any], where: str) -> Table:
    """The table of a list of row objects: every key is a column, and what a row lacks is missing.

    Raises:
        InvalidRequest: one of them is no object.
    """
    columns: dict[str, None] = {}
    for index, record in enumerate(records):
        if not isinstance(record, dict):
            raise InvalidRequest(f"{where}[{index}]: expected an object of values by column, got {_kind(record)}")
        columns.update(dict.fromkeys(record))
    return Table(list(columns), [[record.get(name) for name in columns] for record in records])


def records_of(table: Written) -> list[dict[str, Any]]:
    """The row objects of a table."""
    return [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]


# -- what is asked ------------------------------------------------------------------------------------------------


def _of_rows(rows: list[Any], shape: Callable[[Sequence[Written | None]], Any]) -> Call:
    return Call({PORTS[0]: of_records(rows, "the item"), PORTS[1]: None}, {}, shape)


def _table(value: Any, port: str) -> Table | None:
    if value is None:
        return None
    if isinstance(value, list):
        return of_records(value, port)
    try:
        table = msgspec.convert(value, Table)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"{port}: {error}") from None
    _check(table, port)
    return table


def _check(table: Table, where: str) -> None:
    if len(set(table.columns)) < len(table.columns):
        twice = next(name for name in table.columns if table.columns.count(name) > 1)
        raise InvalidRequest(f"{where}.columns: {twice!r} is there twice")
    width = len(table.columns)
    for index, row in enumerate(table.rows):
        if len(row) != width:
            raise InvalidRequest(f"{where}.rows[{index}]: expected {width} values, got {len(row)}")
    if table.types is not None and len(table.types) != width:
        raise InvalidRequest(f"{where}.types: expected {width}, got {len(table.types)}")


def _kind(value: Any) -> str:
    names = {dict: "object", list: "array", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")


# -- the forms of an answer ---------------------------------------------------------------------------------------


def _all(outputs: Sequence[Written | None]) -> Any:
    return {"tables": outputs}


def _all_rows(outputs: Sequence[Written | None]) -> Any:
    return {f"output{number}": records_of(table) for number, table in enumerate(outputs, 1) if table is not None}


def _first_rows(outputs: Sequence[Written | None]) -> Any:
    return records_of(outputs[0]) if outputs and outputs[0] is not None else []


def _only_row(outputs: Sequence[Written | None]) -> Any:
    rows = _first_rows(outputs)
    if len(rows) == 1:
        return rows[0]
    text = f"the module returned {len(rows)} rows for one: send a list of rows to get as many as there are"
    raise ModelFailed(text, code="bad_model_output")
