"""How does a table travel between JSON and a DataFrame?

Rules:
- Values keep the type that they have in JSON. `types` (the names of .NET, as Studio writes them) say otherwise, and so
  does `"typed": false`, which marks a table of a Studio client: see `studio_types.py`.
- A missing value is null; in a DataFrame NaN, None or NaT. So NaN in a table is a missing value, and no error.
- A date is an ISO 8601 string.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from paceline.core.errors import BAD_OUTPUT, InvalidRequest, ModelFailed, RuntimeUnavailable
from paceline.workers import studio_types
from paceline.workers.studio_items import Table

if TYPE_CHECKING:
    import pandas as pd

# The widest of each kind: what a module multiplies does not wrap around.
_DTYPES: Final = {"UInt64": "uint64", "Single": "float64", "Double": "float64", "Decimal": "float64", "Boolean": "bool"}


def pandas() -> Any:
    """The library, imported when the first module needs it.

    Raises:
        RuntimeUnavailable: it is not installed.
    """
    try:
        import pandas
    except ImportError as error:
        raise RuntimeUnavailable(
            f"Studio modules take and return DataFrames: {error}", hint="pip install 'paceline[studio]'"
        ) from None
    return pandas


def to_frame(table: Table, where: str) -> pd.DataFrame:
    """The DataFrame of a table.

    Args:
        where: what the table is called, for messages.

    Raises:
        InvalidRequest: a value does not fit the type of its column.
    """
    width = len(table.columns)
    values: list[Any] = list(zip(*table.rows, strict=True)) if table.rows else [()] * width
    if table.types is not None:
        values = [
            _typed(column, kind, f"{where}.{name}")
            for name, kind, column in zip(table.columns, table.types, values, strict=True)
        ]
    elif not table.typed and studio_types.are_texts(values):
        values = [studio_types.read(column) for column in values]
    series = {index: _series(column) for index, column in enumerate(values)}
    frame: pd.DataFrame = pandas().DataFrame(series, index=range(len(table.rows)))
    frame.columns = table.columns
    return frame


def to_table(frame: pd.DataFrame) -> dict[str, Any]:
    """What a DataFrame is in JSON: columns, types and rows.

    Raises:
        ModelFailed: two columns have one name.
    """
    columns = [str(name) for name in frame.columns]
    if len(set(columns)) < len(columns):
        twice = next(name for name in columns if columns.count(name) > 1)
        raise ModelFailed(f"the DataFrame has two columns {twice!r}", code=BAD_OUTPUT)
    described = [_described(frame.iloc[:, index]) for index in range(len(columns))]
    values = [column for _, column in described]
    rows = [list(row) for row in zip(*values, strict=True)] if columns else [[] for _ in range(len(frame))]
    return {"columns": columns, "types": [kind for kind, _ in described], "rows": rows}


def _typed(column: Sequence[Any], kind: str, where: str) -> Any:
    """A column as its type says.

    Raises:
        InvalidRequest: a value does not fit.
    """
    values = studio_types.cast(column, kind, where)
    if kind == "DateTime":
        return _dates(values, where)
    if values or kind == "String":
        return values
    return pandas().Series(values, dtype=_DTYPES.get(kind, "int64"))  # of no values, pandas knows no type


def _dates(values: list[str | None], where: str) -> Any:
    """Dates as ISO 8601 has them, else as pandas understands them.

    Times of several zones, as those of summer and winter are, become UTC.
    """
    series = pandas().Series(values, dtype=object)
    for how in ({"format": "ISO8601"}, {"format": "ISO8601", "utc": True}):
        with suppress(ValueError):
            return pandas().to_datetime(series, **how)
    try:
        return pandas().to_datetime(series)
    except ValueError:
        unread = pandas().to_datetime(series, errors="coerce", utc=True).isna()
        bad = next((index for index, value in enumerate(values) if value is not None and unread[index]), 0)
        raise InvalidRequest(f"{where}[{bad}]: expected DateTime, got {str(values[bad])[:40]!r}") from None


def _series(values: Any) -> Any:
    if hasattr(values, "dtype"):
        return values
    # Without it, a list of nothing would be floats and a list of lists might become an array.
    kind = object if not values or any(isinstance(value, (list, dict)) for value in values) else None
    return pandas().Series(list(values), dtype=kind)


def _described(series: Any) -> tuple[str, list[Any]]:
    """The type and the JSON values of a column."""
    kind = series.dtype.kind if hasattr(series.dtype, "kind") else "O"
    missing = series.isna()
    if kind == "M":
        return "DateTime", [None if gone else each.isoformat() for each, gone in zip(series, missing, strict=True)]
    if kind == "b":
        return "Boolean", _values(series, missing)
    if kind in "iu":
        return f"{'U' * (kind == 'u')}Int{series.dtype.itemsize * 8}".replace("UInt8", "Byte"), _values(series, missing)
    if kind == "f":
        if series.dtype.itemsize > 4:
            return "Double", _values(series, missing)
        # By way of text: 0.1 of 32 bits is 0.1, and no 0.10000000149011612.
        return "Single", _values(series.astype(str).astype(float), missing)
    values = [_plain(each) for each in _values(series, missing)]
    return _type_of(values), values


def _values(series: Any, missing: Any) -> list[Any]:
    if not missing.any():
        values: list[Any] = series.tolist()
        return values
    return [None if gone else each for each, gone in zip(series.tolist(), missing, strict=True)]


def _plain(value: Any) -> Any:
    if hasattr(value, "isoformat"):
        return value.isoformat()
    return str(value) if type(value).__name__ == "Timedelta" else value


def _type_of(values: Iterable[Any]) -> str:
    """The type of a column of Python objects: that of all values, if they have one."""
    kinds = {type(value) for value in values if value is not None}
    if kinds == {bool}:
        return "Boolean"
    if kinds == {int}:
        return "Int64"
    return "Double" if kinds and kinds <= {int, float} else "String"
