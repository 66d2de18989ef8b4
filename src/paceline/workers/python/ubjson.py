"""Is a UBJSON document whole? XGBoost 3.2 reads on forever where a file of it ends too early.

Rules:
- Nothing is made of what is read: values are stepped over.
- Known is what XGBoost writes: objects, arrays (also of one type and a count), texts and numbers.

Source: the Universal Binary JSON specification, draft 12.
"""

from __future__ import annotations

import struct
from typing import Final

_SIZES: Final = {
    b"i": 1, b"U": 1, b"C": 1, b"I": 2, b"l": 4, b"d": 4, b"L": 8, b"D": 8, b"T": 0, b"F": 0, b"Z": 0, b"N": 0,
}  # fmt: skip
_LENGTHS: Final = {b"i": ">b", b"U": ">B", b"I": ">h", b"l": ">i", b"L": ">q"}
_OBJECT, _ARRAY = -1, -2
_CLOSERS: Final = {_OBJECT: b"}", _ARRAY: b"]"}


def is_whole(document: bytes) -> bool:
    """True when the bytes are one object, and nothing else."""
    if not document.startswith(b"{"):
        return False
    try:
        return _end(document) == len(document)
    except (IndexError, KeyError, struct.error):
        return False


def _end(document: bytes) -> int:
    """Where the value at the beginning ends."""
    place = 1
    inside = [_OBJECT]  # of each value that is not at its end: how many values it still has, or what it is
    while inside:
        kind = document[place : place + 1]
        if kind == _CLOSERS.get(inside[-1]) or inside[-1] == 0:
            place += inside.pop() != 0
            continue
        if inside[-1] == _OBJECT:  # a name, which is a text without its `S`
            place = _behind_text(document, place)
            kind = document[place : place + 1]
        elif inside[-1] > 0:
            inside[-1] -= 1
        place = _entered(document, kind, place + 1, inside)
        if place > len(document):
            raise IndexError(place)
    return place


def _entered(document: bytes, kind: bytes, place: int, inside: list[int]) -> int:
    """Step over a value; into it, where it holds others."""
    following = document[place : place + 1]
    if kind == b"{":
        inside.append(_OBJECT)
    elif kind == b"S":
        return _behind_text(document, place)
    elif kind != b"[":
        return place + _SIZES[kind]
    elif following == b"$":
        return _behind_numbers(document, place)
    elif following == b"#":
        count, place = _length(document, place + 1)
        inside.append(count)
    else:
        inside.append(_ARRAY)
    return place


def _behind_text(document: bytes, place: int) -> int:
    length, place = _length(document, place)
    return place + length


def _behind_numbers(document: bytes, place: int) -> int:
    """Of an array `[$d#...` of numbers of one type."""
    size = _SIZES[document[place + 1 : place + 2]]
    if document[place + 2 : place + 3] != b"#":
        raise KeyError(place)
    count, place = _length(document, place + 3)
    return place + size * count


def _length(document: bytes, place: int) -> tuple[int, int]:
    form = _LENGTHS[document[place : place + 1]]
    (length,) = struct.unpack_from(form, document, place + 1)
    if length < 0:
        raise IndexError(length)
    return length, place + 1 + struct.calcsize(form)
