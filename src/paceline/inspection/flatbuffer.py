"""How is a FlatBuffer read, the form of CatBoost's models? By places in tables; nothing is copied.

Source: flatbuffers.dev/internals. A table begins with the distance back to its vtable; the vtable has its own size, the
table's, and for each field where it lies in the table, or 0. Vectors, texts and tables are referred to by distance.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

_MOST_ENTRIES: Final = 10_000
_MOST_TEXT: Final = 1 << 20


class Damaged(Exception):
    """A place lies outside of the buffer."""


class Table:
    """A table at a place of a buffer."""

    def __init__(self, data: memoryview, at: int) -> None:
        self._data = data
        self._at = at
        self._vtable = at - self._unpack("<i", at)
        self._vtable_bytes = self._unpack("<H", self._vtable)

    @classmethod
    def root(cls, data: memoryview) -> Table:
        """The outermost table."""
        if len(data) < 8:
            raise Damaged("it is cut off")
        return cls(data, int(struct.unpack_from("<I", data, 0)[0]))

    def number(self, field: int, default: int = 0) -> int:
        """A 32-bit number."""
        place = self._place(field)
        return default if place is None else self._unpack("<i", place)

    def length(self, field: int) -> int:
        """How many entries a vector has."""
        place = self._target(field)
        return 0 if place is None else self._unpack("<I", place)

    def text(self, field: int) -> str:
        """A text, cut where it is absurdly long; "" where there is none."""
        place = self._target(field)
        if place is None:
            return ""
        size = min(self._unpack("<I", place), _MOST_TEXT)
        return bytes(self._data[place + 4 : place + 4 + size]).decode("utf-8", "replace")

    def table(self, field: int) -> Table:
        """Another table."""
        place = self._target(field)
        if place is None:
            raise Damaged("a part is missing")
        return Table(self._data, place)

    def tables(self, field: int) -> Iterator[Table]:
        """The tables of a vector."""
        place = self._target(field)
        if place is None:
            return
        for index in range(min(self._unpack("<I", place), _MOST_ENTRIES)):
            at = place + 4 + 4 * index
            yield Table(self._data, at + self._unpack("<I", at))

    def _place(self, field: int) -> int | None:
        entry = 4 + 2 * field
        distance = self._unpack("<H", self._vtable + entry) if entry < self._vtable_bytes else 0
        return self._at + distance if distance else None

    def _target(self, field: int) -> int | None:
        place = self._place(field)
        return None if place is None else place + self._unpack("<I", place)

    def _unpack(self, form: str, at: int) -> int:
        if not 0 <= at <= len(self._data) - struct.calcsize(form):
            raise Damaged("a place lies outside of it")
        return int(struct.unpack_from(form, self._data, at)[0])
