"""Which arrays does a file hold? NumPy's formats, tables, and items of JSON.

Rules:
- Nothing is unpickled: an array of Python objects is refused.
- In a table an empty field of a column of numbers is NaN.
- A name of "" is that of an array that has none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from paceline.core.errors import ConfigError, InvalidRequest
from paceline.core.tensors import Array
from paceline.offline import rows as item_files
from paceline.offline import table_files

ENDINGS: Final = (".npz", ".npy", ".csv", ".parquet", ".pq", ".json", ".jsonl", ".ndjson")
_UNNAMED: Final = ""


@dataclass(frozen=True)
class Contents:
    """Arrays by name, in the file's order.

    Attributes:
        is_table: they are columns, of which several may be one input.
    """

    arrays: Mapping[str, Array]
    is_table: bool = False

    def without(self, name: str) -> Contents:
        """The others."""
        return Contents({each: array for each, array in self.arrays.items() if each != name}, self.is_table)


def read(path: Path, flag: str) -> Contents:
    """Everything in a file, in the format that its name says.

    Args:
        flag: that named it, for messages.

    Raises:
        ConfigError: it cannot be read.
        RuntimeUnavailable: the library for its format is not installed.
    """
    ending = path.suffix.lower()
    if ending not in ENDINGS:
        raise ConfigError(f"{flag} {path}: expected a file {', '.join(ENDINGS)}")
    if not path.is_file():
        raise ConfigError(f"{flag} {path}: there is no such file")
    if ending in (".npz", ".npy"):
        return _numpy(path)
    if ending in (".json", ".jsonl", ".ndjson"):
        return _json(path)
    table = table_files.read(str(path), flag)
    columns = zip(*table.rows, strict=True) if table.rows else [()] * len(table.columns)
    named = dict(zip(table.columns, columns, strict=True))
    return Contents({name: _array(values, f"{path}: {name!r}") for name, values in named.items()}, is_table=True)


def _numpy(path: Path) -> Contents:
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            if loaded.dtype.names:
                return Contents({name: _plain(loaded[name]) for name in loaded.dtype.names}, is_table=True)
            return Contents({_UNNAMED: _plain(loaded)})
        with loaded:
            return Contents({name: _plain(loaded[name]) for name in loaded.files})
    except (OSError, ValueError, EOFError) as error:
        if "allow_pickle" in str(error):
            # Not `.astype(str)`: a column of pandas stays one of objects.
            hint = "store np.asarray(values, dtype=str), or dtype=float where they are numbers"
            raise ConfigError(f"{path}: an array of Python objects is not read", hint=hint) from None
        raise ConfigError(f"{path}: {error}") from None


def _plain(array: Array) -> Array:
    if array.ndim == 0:
        raise ValueError("expected arrays of rows, got a single value")
    return np.char.decode(array, "utf-8") if array.dtype.kind == "S" else array


def _json(path: Path) -> Contents:
    if path.suffix.lower() == ".json":
        found = _document(path)
        if isinstance(found, dict):
            return Contents({name: _array(values, f"{path}: {name!r}") for name, values in found.items()})
        return _of_items(found, path)
    return _of_items(_lines(path), path)


def _document(path: Path) -> Any:
    try:
        found = msgspec.json.decode(path.read_bytes())
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from None
    if isinstance(found, dict) and isinstance(found.get("instances"), list):
        found = found["instances"]
    if not isinstance(found, list | dict):
        raise ConfigError(f"{path}: expected a list of items, or lists by name, got {type(found).__name__}")
    return found


def _lines(path: Path) -> list[Any]:
    items: list[Any] = []
    try:
        source = item_files.Rows(str(path), "jsonl")
        try:
            for block in source.blocks():
                items += [_item(row.text, f"{path}: row {row.number}") for row in block]
        finally:
            source.close()
    except InvalidRequest as error:
        raise ConfigError(error.message, hint=error.hint) from None
    return items


def _item(text: bytes, where: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ConfigError(f"{where}: {error}") from None


def _of_items(items: Sequence[Any], path: Path) -> Contents:
    """A column for each key of objects; else one array of all."""
    if not any(isinstance(item, dict) for item in items):
        return Contents({_UNNAMED: _array(items, str(path))})
    columns: dict[str, list[Any]] = {name: [] for name in items[0]} if isinstance(items[0], dict) else {}
    for number, item in enumerate(items, 1):
        if not isinstance(item, dict) or item.keys() != columns.keys():
            got = ", ".join(item) if isinstance(item, dict) else type(item).__name__
            raise ConfigError(f"{path}: row {number}: expected {', '.join(columns) or 'a list'}, got {got}")
        for name, values in columns.items():
            values.append(item[name])
    return Contents({name: _array(values, f"{path}: {name!r}") for name, values in columns.items()}, is_table=True)


def _array(values: Any, where: str) -> Array:
    """An array of numbers or text; where some are missing, numbers are floats with NaN.

    Raises:
        ConfigError: values are missing from text, mixed, or lists of different lengths.
    """
    if not isinstance(values, list | tuple):
        raise ConfigError(f"{where}: expected a list, got {type(values).__name__}")
    if any(value is None for value in values):
        if any(isinstance(value, str) for value in values):
            place = next(place for place, value in enumerate(values, 1) if value is None)
            raise ConfigError(f"{where}: a text is missing in row {place}")
        values = [np.nan if value is None else value for value in values]
    try:
        array = np.array(values)
    except ValueError:
        raise ConfigError(f"{where}: expected rows of one shape, got lists of different lengths") from None
    mixed = array.dtype.kind == "U" and not all(isinstance(value, str) for value in _leaves(values))
    if mixed or array.dtype.kind not in "biufU":
        raise ConfigError(f"{where}: expected numbers or text, got both, or something else")
    return array


def _leaves(values: Sequence[Any]) -> Sequence[Any]:
    while values and isinstance(values[0], list):
        values = [each for value in values for each in (value if isinstance(value, list) else [value])]
    return values
