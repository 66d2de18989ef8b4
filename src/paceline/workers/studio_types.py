"""What do the values of a Studio client mean, who sends every one of them as a string?

Rules:
- A request may name the types of its columns, as .NET calls them. Where it does not, and each value of a table is a
  string, a column is read as that of a CSV file is: integers, else floats, else booleans, else text.
- A number is what JSON calls one: 007 is text, and a postcode stays whole. So is a column with a number that 64 bits
  cannot hold: an account number keeps its digits.
- A table with any value that is no string has been typed by its client, and is left as it is.
- An empty string is a missing value, except in a column of text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Final

from paceline.core.errors import InvalidRequest

_INTEGERS: Final = {
    "Byte": (0, 2**8),
    "SByte": (-(2**7), 2**7),
    "Int16": (-(2**15), 2**15),
    "UInt16": (0, 2**16),
    "Int32": (-(2**31), 2**31),
    "UInt32": (0, 2**32),
    "Int64": (-(2**63), 2**63),
    "UInt64": (0, 2**64),
}
_FLOATS: Final = ("Single", "Double", "Decimal")
TYPES: Final = (*_INTEGERS, *_FLOATS, "Boolean", "DateTime", "String")
"""Types that a column may have."""

_MOST_DIGITS: Final = 20  # of an integer of 64 bits, its sign included
_WHOLE: Final = re.compile(r"-?(0|[1-9][0-9]*)")
_NUMBER: Final = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_WORDS: Final = {"true": True, "false": False}
_BOOLEAN: Final = re.compile("true|false", re.IGNORECASE)


def are_texts(columns: Sequence[Sequence[Any]]) -> bool:
    """True when no value has a type yet."""
    return all(value is None or isinstance(value, str) for column in columns for value in column)


def read(column: Sequence[str | None]) -> list[Any]:
    """The values of a column of strings, as in a CSV file."""
    filled = [value for value in column if value]
    if not filled:
        return list(column)
    for pattern, reader in ((_WHOLE, int), (_NUMBER, float), (_BOOLEAN, _boolean)):
        if all(pattern.fullmatch(value) for value in filled):
            found = _held(filled, reader)
            return list(column) if found is None else [next(found) if value else None for value in column]
    return list(column)


def _held(texts: Sequence[str], reader: Callable[[str], Any]) -> Iterator[Any] | None:
    """What the texts mean; None where a column of numbers could not hold it."""
    if reader is int and max(map(len, texts)) > _MOST_DIGITS:
        return None
    values = [reader(text) for text in texts]
    if reader is int and not any(least <= min(values) and max(values) < end for least, end in _INTEGERS.values()):
        return None
    return iter(values) if all(map(math.isfinite, values)) else None


def cast(column: Sequence[Any], kind: str, where: str) -> list[Any]:
    """The values of a column, as its type says; a date stays a string.

    Args:
        where: what the column is called, for messages.

    Raises:
        InvalidRequest: the type is unknown, or a value has another.
    """
    reader = _reader(kind, where)
    empty = kind != "String"
    values = []
    for index, value in enumerate(column):
        try:
            values.append(None if value is None or (empty and value == "") else reader(value))
        except (ValueError, TypeError, OverflowError):
            raise InvalidRequest(f"{where}[{index}]: expected {kind}, got {str(value)[:40]!r}") from None
    return values


def _reader(kind: str, where: str) -> Callable[[Any], Any]:
    if kind in _INTEGERS:
        return partial(_whole, bounds=_INTEGERS[kind])
    if kind in _FLOATS:
        return _float
    if kind == "Boolean":
        return _boolean
    if kind in ("DateTime", "String"):
        return str
    raise InvalidRequest(f"{where}: its type is unknown: expected one of {', '.join(TYPES)}, got {kind[:40]!r}")


def _whole(value: Any, bounds: tuple[int, int]) -> int:
    number = int(value)
    if (isinstance(value, float) and number != value) or not bounds[0] <= number < bounds[1]:
        raise ValueError(value)
    return number


def _float(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(value)
    return number


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if str(value).lower() not in _WORDS:
        raise ValueError(value)
    return _WORDS[str(value).lower()]
