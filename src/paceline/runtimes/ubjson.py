"""How is Universal Binary JSON read, the other form of XGBoost's models? Long arrays of numbers are stepped over.

Rules:
- A document is one object, whole, with nothing behind it: XGBoost 3.2 reads on forever where a file ends too early.
- Depth and the number of values have bounds. A text may be as long as the document: users keep notes in theirs.

Source: ubjson.org, draft 12, with the containers of one type and a known count. All numbers are big-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, Final

_DEEPEST: Final = 64
_MOST_ITEMS: Final = 10_000_000
_NUMBERS: Final = {"i": "b", "U": "B", "I": ">h", "l": ">i", "L": ">q", "d": ">f", "D": ">d"}
_SIZES: Final = {kind: struct.calcsize(form) for kind, form in _NUMBERS.items()}
_PLAIN: Final = {"Z": None, "T": True, "F": False, "N": None}


class NotUbjson(Exception):
    """The bytes are not in the format, or a part of a document."""


def decoded(data: bytes | memoryview) -> dict[str, Any]:
    """The document; an array of numbers of one type is an empty list.

    Raises:
        NotUbjson: it is none.
    """
    reader = _Reader(memoryview(data))
    try:
        document = reader.value(reader.mark(), 0)
    except (IndexError, struct.error, UnicodeDecodeError) as error:
        raise NotUbjson("it ends too early, or is damaged") from error
    if not isinstance(document, dict):
        raise NotUbjson("it is no object")
    if reader.left_bytes:
        raise NotUbjson(f"{reader.left_bytes} bytes behind it")
    return document


class _Reader:
    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._at = 0
        self._items = 0

    @property
    def left_bytes(self) -> int:
        """What has not been read yet."""
        return len(self._data) - self._at

    def mark(self) -> str:
        """The next mark of a type."""
        self._at += 1
        return chr(self._data[self._at - 1])

    def value(self, kind: str, depth: int) -> Any:
        """The value of a type that has been read."""
        if depth > _DEEPEST:
            raise NotUbjson(f"nested more than {_DEEPEST} deep")
        self._items += 1
        if self._items > _MOST_ITEMS:
            raise NotUbjson(f"it has more than {_MOST_ITEMS} values")
        if kind in _NUMBERS:
            return self._number(kind)
        if kind in _PLAIN:
            return _PLAIN[kind]
        if kind in ("S", "H"):
            return self._text()
        if kind == "C":
            return chr(self._take(1)[0])
        if kind == "[":
            return self._array(depth)
        if kind == "{":
            return {self._text(mark): self.value(each or self.mark(), depth + 1) for mark, each in self._entries("}")}
        raise NotUbjson(f"no type of the format: {kind!r}")

    def _array(self, depth: int) -> list[Any]:
        kind, count = self._head()
        if kind in _SIZES and count is not None:
            self._take(count * _SIZES[kind])
            return []
        if count is not None:
            return [self.value(kind or self.mark(), depth + 1) for _ in range(count)]
        items = []
        while (mark := self.mark()) != "]":
            items.append(self.value(mark, depth + 1))
        return items

    def _entries(self, end: str) -> Iterator[tuple[str, str | None]]:
        """For each entry of an object, the type of its key's length, and that of its value where all share one."""
        kind, count = self._head()
        if count is not None:
            for _ in range(count):
                yield self.mark(), kind
            return
        while (mark := self.mark()) != end:
            yield mark, kind

    def _head(self) -> tuple[str | None, int | None]:
        """The type that all values of a container have, and how many there are; None: not told."""
        kind = None
        if self._data[self._at] == ord("$"):
            self._at += 1
            kind = self.mark()
        if self._data[self._at] != ord("#"):
            if kind is not None:
                raise NotUbjson("a container with a type and no count")
            return None, None
        self._at += 1
        return kind, self._length(self.mark())

    def _number(self, kind: str) -> Any:
        return struct.unpack(_NUMBERS[kind], self._take(_SIZES[kind]))[0]

    def _length(self, kind: str) -> int:
        if kind not in "iUIlL":
            raise NotUbjson(f"a length of type {kind!r}")
        length = int(self._number(kind))
        # A value may take no bytes at all, so that a count is bounded by no size.
        if not 0 <= length <= len(self._data):
            raise NotUbjson(f"a length of {length}")
        return length

    def _text(self, mark: str | None = None) -> str:
        return bytes(self._take(self._length(mark or self.mark()))).decode()

    def _take(self, size: int) -> memoryview:
        if size > self.left_bytes:
            raise NotUbjson("it ends too early")
        self._at += size
        return self._data[self._at - size : self._at]
