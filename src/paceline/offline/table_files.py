"""Which table does a file hold, and how is one written? CSV or Parquet, as the file is called.

Rules:
- In CSV the first line names the columns. A column is integers, floats, booleans or text, as all of its fields say;
  an empty field is a missing value. So a table has the types here that it has when a Studio client sends it as strings.
- A file is complete or not there: it is written under another name, and renamed. So the output may be the input.
"""

from __future__ import annotations

import csv
import io
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from paceline.core.errors import ConfigError, RuntimeUnavailable
from paceline.offline.rows import header_problem
from paceline.workers import studio_types
from paceline.workers.studio_items import Table

PIPE: Final = "-"
_PARQUET: Final = (".parquet", ".pq")
_CSV: Final = (".csv", ".txt")
_MOST_FIELD: Final = 64 << 20


def check_target(path: str, flag: str) -> None:
    """Find out before the work that its result could not be written.

    Raises:
        ConfigError: its name says no format, its folder is not there, or nothing can be written to it.
        RuntimeUnavailable: the library for its format is not installed.
    """
    _check_format(path, flag)
    if path == PIPE:
        return
    folder = Path(path).resolve().parent
    if Path(path).is_dir():
        raise ConfigError(f"{flag}: {path}: is a directory")
    if not folder.is_dir():
        raise ConfigError(f"{flag}: {path}: there is no folder {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(f"{flag}: {path}: nothing can be written to the folder {folder}")


def read(path: str, flag: str) -> Table:
    """The table in a file.

    Raises:
        ConfigError: it cannot be read.
        RuntimeUnavailable: the library for its format is not installed.
    """
    _check_format(path, flag)
    try:
        if Path(path).suffix.lower() in _PARQUET:
            return _read_parquet(path)
        if path == PIPE:
            return _read_csv(sys.stdin.buffer.read())
        return _read_csv(Path(path).read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{flag}: {path}: {_why(error)}") from None


def write(table: Table, path: str, flag: str) -> None:
    """Write a table.

    Raises:
        ConfigError: it cannot be written.
    """
    try:
        if path == PIPE:
            with open(sys.stdout.fileno(), "wb", closefd=False) as out:
                out.write(_csv_text(table).encode())
        else:
            _write_file(table, Path(path).resolve())
    except BrokenPipeError:
        raise
    except (OSError, ValueError) as error:
        raise ConfigError(f"{flag}: {path}: {_why(error)}") from None


def _write_file(table: Table, path: Path) -> None:
    # Two runs may write the same file: the last one wins, whole.
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        if path.suffix.lower() in _PARQUET:
            _write_parquet(table, part)
        else:
            part.write_text(_csv_text(table), encoding="utf-8", newline="")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _why(error: Exception) -> str:
    return error.strerror.lower() if isinstance(error, OSError) and error.strerror else str(error)


def _check_format(path: str, flag: str) -> None:
    if path == PIPE or Path(path).suffix.lower() in _CSV:
        return
    if Path(path).suffix.lower() not in _PARQUET:
        raise ConfigError(f"{flag}: {path}: expected a file .csv or .parquet")
    _pyarrow()


def _read_csv(data: bytes) -> Table:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"line {line}: is not UTF-8; save the file in that encoding") from None
    csv.field_size_limit(_MOST_FIELD)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        names, *rows = _lines(reader)
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num}: {error}") from None
    columns = [studio_types.read(column) for column in zip(*rows, strict=True)]
    return Table(names, [list(row) for row in zip(*columns, strict=True)])


def _lines(reader: Any) -> Iterator[list[str]]:
    """The header and the rows.

    Raises:
        ValueError: there is no header, or a row does not fit it.
    """
    names = next(reader, None)
    if not names:
        raise ValueError("the first line is empty: it has to name the columns")
    if problem := header_problem(names):
        raise ValueError(problem)
    yield names
    for row in reader:
        if row and len(row) != len(names):
            raise ValueError(f"line {reader.line_num}: expected {len(names)} fields, got {len(row)}")
        if row:
            yield row


def _csv_text(table: Table) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table.columns)
    writer.writerows([[_field(value) for value in row] for row in table.rows])
    return text.getvalue()


def _field(value: Any) -> Any:
    return msgspec.json.encode(value).decode() if isinstance(value, (list, dict)) else value


def _pyarrow() -> Any:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise RuntimeUnavailable(f"Parquet files: {error}", hint="pip install 'paceline[studio]'") from None
    return pyarrow


def _read_parquet(path: str) -> Table:
    found = _pyarrow().parquet.read_table(path)
    columns = [[_plain(value) for value in column.to_pylist()] for column in found.columns]
    rows = [list(row) for row in zip(*columns, strict=True)] if columns else []
    types = [_type_of(field.type) for field in found.schema]
    known = types if all(types) else None
    return Table(list(found.column_names), rows, known)


def _write_parquet(table: Table, path: Path) -> None:
    pyarrow = _pyarrow()
    columns: list[Sequence[Any]] = list(zip(*table.rows, strict=True)) if table.rows else [()] * len(table.columns)
    types: Sequence[str | None] = table.types or [None] * len(table.columns)
    arrays = [_array(column, kind) for column, kind in zip(columns, types, strict=True)]
    pyarrow.parquet.write_table(pyarrow.Table.from_arrays(arrays, table.columns), path)


_ARROW: Final = {
    "Byte": "uint8",
    "SByte": "int8",
    "Int16": "int16",
    "UInt16": "uint16",
    "Int32": "int32",
    "UInt32": "uint32",
    "Int64": "int64",
    "UInt64": "uint64",
    "Single": "float32",
    "Double": "float64",
    "Boolean": "bool_",
}


def _type_of(arrow: Any) -> str:
    """The name that Studio has for a type; empty: none, and the values are typed as they are."""
    types = _pyarrow().types
    if types.is_temporal(arrow) and not types.is_duration(arrow):
        return "DateTime"
    if types.is_string(arrow) or types.is_large_string(arrow) or types.is_dictionary(arrow):
        return "String"
    return next((name for name, kind in _ARROW.items() if str(arrow) == kind.rstrip("_")), _BY_WORD.get(str(arrow), ""))


_BY_WORD: Final = {"float": "Single", "double": "Double"}


def _array(column: Sequence[Any], kind: str | None) -> Any:
    pyarrow = _pyarrow()
    if kind is None:
        with suppress(ValueError, TypeError, OverflowError):  # of mixed types: text
            return pyarrow.array(column)
    if kind == "DateTime":
        values = [None if value is None else datetime.fromisoformat(value) for value in column]
        return pyarrow.array(values) if any(values) else pyarrow.array(values, pyarrow.timestamp("us"))
    if kind in _ARROW:
        return pyarrow.array(column, getattr(pyarrow, _ARROW[kind])())
    texts = [None if value is None else value if isinstance(value, str) else str(_field(value)) for value in column]
    return pyarrow.array(texts, pyarrow.string())


def _plain(value: Any) -> Any:
    return value.isoformat() if hasattr(value, "isoformat") else value
