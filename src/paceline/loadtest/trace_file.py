"""At which instants did requests arrive, according to a file?

Rules:
- One arrival a line: a number, an ISO 8601 time, a row of CSV under a header, or an object of JSON.
- Numbers are seconds, unless the column's name ends in `_ms`, `_us` or `_ns`. What they count from does not matter.
- A log is written as requests end, so instants may be out of order: they are sorted.
"""

from __future__ import annotations

import csv
import math
from array import array
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from paceline.core.errors import ConfigError

MOST_ARRIVALS: Final = 10_000_000
COLUMNS: Final = ("at", "time", "timestamp", "ts", "arrival", "arrived_at", "start", "start_time", "date", "datetime")
_UNITS: Final = {"_ms": 1e-3, "_us": 1e-6, "_ns": 1e-9}
_MOST_SECONDS: Final = 1e11  # the year 5138: a number beyond is in a smaller unit
Value = tuple[int, Any]
"""A line's number and what it says of the time."""


def read(path: Path) -> NDArray[np.float64]:
    """Instants in ascending order, in seconds from any origin, shape [n >= 2].

    Raises:
        ConfigError: the file cannot be read, a line says no time, or there are too few or too many.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            instants = _instants(path, file)
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{path}: cannot be read: {why}") from error
    if len(instants) < 2:
        raise ConfigError(f"{path}: expected two or more arrivals, got {len(instants)}")
    return np.sort(np.frombuffer(instants, np.float64))


def seconds(value: Any) -> float:
    """A number of seconds, or an ISO 8601 time as seconds since 1970; without a zone it is in UTC.

    Raises:
        ValueError: it is neither.
    """
    try:
        number = float(value)
    except (TypeError, ValueError):
        moment = datetime.fromisoformat(str(value).strip())
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    if isinstance(value, bool) or not math.isfinite(number):
        raise ValueError("is no time")
    return number


def _instants(path: Path, lines: Iterator[str]) -> array[float]:
    column, values = _opened(path, lines)
    unit = next((unit for suffix, unit in _UNITS.items() if column.endswith(suffix)), 1.0)
    instants = array("d")
    for number, value in values:
        try:
            at_s = seconds(value) * unit
        except ValueError:
            wanted = "seconds or an ISO 8601 time"
            raise ConfigError(f"{path}:{number}: expected {wanted}, got {str(value)[:40]!r}") from None
        if at_s > _MOST_SECONDS:
            hint = "numbers are seconds; name the column timestamp_ms, _us or _ns if they are not"
            raise ConfigError(f"{path}:{number}: {value} is too large for seconds", hint=hint)
        if len(instants) == MOST_ARRIVALS:
            raise ConfigError(f"{path}: more than {MOST_ARRIVALS} arrivals", hint="play a part of it")
        instants.append(at_s)
    return instants


def _opened(path: Path, lines: Iterator[str]) -> tuple[str, Iterator[Value]]:
    """The name of the column with the time, "" where there are no names, and its values by line."""
    counted = ((number, line) for number, line in enumerate(lines, 1) if line.strip() and not line.startswith("#"))
    number, first = next(counted, (1, ""))
    if not first:
        return "", iter(())
    if first.lstrip().startswith("{"):
        key = _column(path, list(_object(path, number, first)))
        return key, _of_json(path, _again(number, first, counted), key)
    names = [name.strip() for name in _cells(first)]
    if _is_time(names[0]):
        return "", _of_rows(path, _again(number, first, counted), 0)
    column = _column(path, names)
    return column, _of_rows(path, counted, names.index(column))


def _again(number: int, first: str, rest: Iterator[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    yield number, first
    yield from rest


def _of_rows(path: Path, lines: Iterator[tuple[int, str]], place: int) -> Iterator[Value]:
    for number, line in lines:
        row = _cells(line)
        if place >= len(row):
            raise ConfigError(f"{path}:{number}: expected {place + 1} or more columns, got {len(row)}")
        yield number, row[place]


def _cells(line: str) -> list[str]:
    line = line.rstrip("\r\n")
    return next(csv.reader([line])) if '"' in line else line.split(",")


def _of_json(path: Path, lines: Iterator[tuple[int, str]], column: str) -> Iterator[Value]:
    for number, line in lines:
        found = _object(path, number, line)
        if column not in found:
            raise ConfigError(f"{path}:{number}: expected the key {column!r}, got {', '.join(found) or 'none'}")
        yield number, found[column]


def _object(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(line, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise ConfigError(f"{path}:{number}: expected an object of JSON: {error}") from None


def _column(path: Path, names: list[str]) -> str:
    for name in names:
        bare = name.lower()
        for suffix in _UNITS:
            bare = bare.removesuffix(suffix)
        if bare in COLUMNS:
            return name
    known = ", ".join(COLUMNS)
    raise ConfigError(f"{path}: no column says the time; there are {', '.join(names)}", hint=f"call it one of {known}")


def _is_time(text: str) -> bool:
    try:
        seconds(text)
    except ValueError:
        return False
    return True
