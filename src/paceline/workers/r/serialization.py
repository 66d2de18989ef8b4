"""How does R write values? Its own binary format (`serialize(x, NULL, xdr = FALSE, version = 2)`), both ways.

R reads and writes a whole data frame of it in one call, inside C: no loop over columns runs in R. The format is
described in "R Internals", section 1.8; version 2 has been the same since R 2.4.

Rules:
- Only data: vectors, lists and their names. What else R knows (functions, environments) is refused on both sides.
- `NA` is `None` here. R tells its `NA` of a number from other NaNs by the low 32 bits, and so does this file.
- Nothing that comes is trusted: whatever cannot be read is a `BadFrame`.
"""

from __future__ import annotations

import math
import struct
from array import array
from collections.abc import Sequence
from typing import Any, Final, Literal, NamedTuple, cast

from paceline.workers.frames import BadFrame

_HEAD: Final = b"B\n" + struct.pack("<iii", 2, 0x00040000, 0x00020300)
_NULL: Final = struct.pack("<i", 254)
_INT: Final = struct.Struct("<i")
_TWO: Final = struct.Struct("<ii")

_PAIRS, _CHARS, _SYMBOL = 2, 9, 1
_LOGICAL, _INTEGER, _DOUBLE, _STRINGS, _LIST = 10, 13, 14, 16, 19
_REFERENCE, _NIL = 255, 254
_IS_OBJECT, _HAS_ATTRIBUTES, _HAS_TAG = 0x100, 0x200, 0x400
_UTF8: Final = 8 << 12

MOST_INTEGER: Final = 2**31
_NA_INTEGER: Final = -MOST_INTEGER
_NA_LOW: Final = 1954
(_NA,) = struct.unpack("<d", struct.pack("<Q", 0x7FF8_0000_0000_0000 | _NA_LOW))
_NA_STRING: Final = _TWO.pack(_CHARS, -1)


class Value(NamedTuple):
    """A vector or a list of R; `NULL` has no kind.

    Attributes:
        kind: `logical`, `integer`, `double`, `character`, `list` or `NULL`.
        items: Python's own values, `None` for `NA`; of a list: more of this class.
    """

    kind: str
    items: list[Any]
    names: list[str] | None = None


# -- to R ---------------------------------------------------------------------------------------------------------


def dump(value: bytes) -> bytes:
    """A complete stream of one value, as the functions below write them."""
    return _HEAD + value


def null() -> bytes:
    """`NULL`."""
    return _NULL


def doubles(values: Sequence[float | None]) -> bytes:
    """A numeric vector."""
    try:
        data = array("d", cast("Sequence[float]", values))
    except TypeError:
        data = _with_na(values)
    return _TWO.pack(_DOUBLE, len(values)) + data.tobytes()


def integers(values: Sequence[int | None]) -> bytes:
    """An integer vector; below `MOST_INTEGER`."""
    return _TWO.pack(_INTEGER, len(values)) + _ints(values)


def logicals(values: Sequence[bool | None]) -> bytes:
    """A logical vector."""
    return _TWO.pack(_LOGICAL, len(values)) + _ints(values)


def times(values: Sequence[float | None]) -> bytes:
    """Times (`POSIXct`, in UTC), in seconds since 1970."""
    head = _TWO.pack(_DOUBLE | _IS_OBJECT | _HAS_ATTRIBUTES, len(values))
    return head + _with_na(values).tobytes() + _TIME_CLASS + _NULL


def strings(values: Sequence[str | None]) -> bytes:
    """A character vector."""
    pieces = [_TWO.pack(_STRINGS, len(values))]
    for value in values:
        if value is None:
            pieces.append(_NA_STRING)
        else:
            data = value.encode()
            pieces += (_TWO.pack(_CHARS | _UTF8, len(data)), data)
    return b"".join(pieces)


def items(values: Sequence[bytes], names: Sequence[str] | None = None) -> bytes:
    """A list of what has been written already."""
    flags = _LIST if names is None else _LIST | _HAS_ATTRIBUTES
    written = _TWO.pack(flags, len(values)) + b"".join(values)
    return written if names is None else b"".join((written, _NAMES, strings(names), _NULL))


def data_frame(columns: Sequence[bytes], names: Sequence[str], rows: int) -> bytes:
    """A data frame of columns that have been written already."""
    return b"".join(
        [
            _TWO.pack(_LIST | _IS_OBJECT | _HAS_ATTRIBUTES, len(columns)),
            *columns,
            _NAMES,
            strings(names),
            _FRAME_CLASS,
            _ROW_NAMES,
            _TWO.pack(_NA_INTEGER, -rows),
            _NULL,
        ]
    )


def _attribute(name: str, value: bytes = b"") -> bytes:
    data = name.encode()
    return _TWO.pack(_PAIRS | _HAS_TAG, _SYMBOL) + _TWO.pack(_CHARS | _UTF8, len(data)) + data + value


def _with_na(values: Sequence[float | None]) -> array[float]:
    return array("d", [_NA if value is None else value for value in values])


def _ints(values: Sequence[int | None]) -> bytes:
    return array("i", [_NA_INTEGER if value is None else value for value in values]).tobytes()


_NAMES: Final = _attribute("names")
_FRAME_CLASS: Final = _attribute("class", strings(["data.frame"]))
# Row names 1, 2, ... are kept as the integers NA and -rows, which follow.
_ROW_NAMES: Final = _attribute("row.names", _TWO.pack(_INTEGER, 2))
_TIME_CLASS: Final = _attribute("class", strings(["POSIXct", "POSIXt"])) + _attribute("tzone", strings(["UTC"]))


# -- from R -------------------------------------------------------------------------------------------------------


def load(data: bytes | memoryview) -> Value:
    """The one value of a stream.

    Raises:
        BadFrame: it is none, or holds what is not data.
    """
    try:
        return _Reader(memoryview(data)).value()
    except (struct.error, IndexError, ValueError, RecursionError) as error:
        raise BadFrame(f"R wrote what cannot be read: {error}") from None


class _Reader:
    def __init__(self, data: memoryview) -> None:
        if bytes(data[:2]) != b"B\n" or _INT.unpack_from(data, 2)[0] != 2:
            raise ValueError("not R's binary format, version 2")
        self._data = data
        self._at = 14
        self._symbols: list[str] = []

    def value(self) -> Value:
        if self._data[self._at] == _NIL:
            self._at += 4
            return Value("NULL", [])
        flags, count = _TWO.unpack_from(self._data, self._at)
        self._at += 8
        name, read = _KINDS.get(flags & 0xFF, ("", None))
        if read is None:
            raise ValueError(f"a value of type {flags & 0xFF}")
        if count < 0 or count > len(self._data):
            raise ValueError(f"a vector of {count} elements")
        values = read(self, count)
        return Value(name, values, self._names() if flags & _HAS_ATTRIBUTES else None)

    def logicals(self, count: int) -> list[bool | None]:
        return [None if value == _NA_INTEGER else value != 0 for value in self._numbers(count, "i", 4)]

    def integers(self, count: int) -> list[int | None]:
        values = self._numbers(count, "i", 4)
        if _NA_INTEGER in values:
            return [None if value == _NA_INTEGER else value for value in values]
        return values

    def doubles(self, count: int) -> list[float | None]:
        start = self._at
        values = self._numbers(count, "d", 8)
        # The sum of numbers is finite unless one of them is not, or they are huge.
        if math.isfinite(sum(values)):
            return values
        low = self._data[start : self._at].cast("I")[::2].tolist()
        return [None if value != value and bits == _NA_LOW else value for value, bits in zip(values, low, strict=True)]

    def strings(self, count: int) -> list[str | None]:
        return [self._string() for _ in range(count)]

    def lists(self, count: int) -> list[Value]:
        return [self.value() for _ in range(count)]

    def _int(self) -> int:
        (value,) = _INT.unpack_from(self._data, self._at)
        self._at += 4
        return int(value)

    def _numbers(self, count: int, code: Literal["i", "d"], size: int) -> list[Any]:
        end = self._at + count * size
        if end > len(self._data):
            raise ValueError("a vector that is cut off")
        values: list[Any] = self._data[self._at : end].cast(code).tolist()
        self._at = end
        return values

    def _string(self) -> str | None:
        flags, length = _TWO.unpack_from(self._data, self._at)
        self._at += 8
        if flags & 0xFF != _CHARS or length > len(self._data) - self._at:
            raise ValueError("a string that is none")
        if length < 0:
            return None
        data = self._data[self._at : self._at + length]
        self._at += length
        return str(data, "utf-8", "replace")

    def _names(self) -> list[str] | None:
        """Of the attributes, which are pairs of a symbol and a value; only names are of interest."""
        names = None
        while (flags := self._int()) & 0xFF != _NIL:
            if flags & 0xFF != _PAIRS or not flags & _HAS_TAG:
                raise ValueError("attributes that are none")
            symbol = self._symbol()
            value = self.value()
            if symbol == "names":
                if value.kind != "character":
                    raise ValueError("names that are none")
                names = [each or "" for each in value.items]
        return names

    def _symbol(self) -> str:
        flags = self._int()
        if flags & 0xFF == _REFERENCE:
            return self._symbols[(flags >> 8 or self._int()) - 1]
        if flags != _SYMBOL:
            raise ValueError("a symbol that is none")
        self._symbols.append(self._string() or "")
        return self._symbols[-1]


_KINDS: Final[dict[int, tuple[str, Any]]] = {
    _LOGICAL: ("logical", _Reader.logicals),
    _INTEGER: ("integer", _Reader.integers),
    _DOUBLE: ("double", _Reader.doubles),
    _STRINGS: ("character", _Reader.strings),
    _LIST: ("list", _Reader.lists),
}
