"""How are Protocol Buffers read of which little is wanted? Field by field, in place: what is skipped is never touched.

Source: the encoding's specification, protobuf.dev/programming-guides/encoding. Groups are not used by any format here.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from paceline.core.errors import ModelLoadError

_VARINT, _FIXED_64, _LENGTH, _FIXED_32 = 0, 1, 2, 5
_MOST_VARINT_BYTES: Final = 10
_MOST_TEXT: Final = 4096


class Malformed(Exception):
    """The bytes are no message, or a part of one."""


def mapped(path: Path) -> memoryview:
    """A file's bytes, without reading them.

    Raises:
        ModelLoadError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except ValueError:  # an empty file cannot be mapped
        return memoryview(b"")
    except OSError as error:
        raise ModelLoadError(f"{path}: {(error.strerror or 'cannot be read').lower()}") from error


def fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of each field of a message: a number, or a view of what has a length.

    Raises:
        Malformed: it is none.
    """
    at, end = 0, len(data)
    while at < end:
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == _VARINT:
            value, at = _varint(data, at)
            yield tag >> 3, value
            continue
        if kind == _LENGTH:
            size, at = _varint(data, at)
        elif kind in (_FIXED_32, _FIXED_64):
            size = 4 if kind == _FIXED_32 else 8
        else:
            raise Malformed(f"wire type {kind}")
        if size > end - at:
            raise Malformed("a field is longer than its message")
        part = data[at : at + size]
        yield tag >> 3, part if kind == _LENGTH else int.from_bytes(part, "little")
        at += size


def messages(data: memoryview, number: int) -> Iterator[memoryview]:
    """Every message, or other value with a length, in the field of that number."""
    for found, value in fields(data):
        if found == number and isinstance(value, memoryview):
            yield value


def first(data: memoryview, *path: int) -> memoryview:
    """The first value down the path of fields; empty where there is none."""
    for number in path:
        data = next(messages(data, number), memoryview(b""))
    return data


def number(data: memoryview, field: int, default: int = 0) -> int:
    """The last number in a field."""
    for found, value in fields(data):
        if found == field and isinstance(value, int):
            default = value
    return default


def numbers(value: int | memoryview) -> Iterator[int]:
    """The numbers of a repeated field, packed or not."""
    if isinstance(value, int):
        yield value
        return
    at = 0
    while at < len(value):
        each, at = _varint(value, at)
        yield each


def text(value: memoryview) -> str:
    """A string, cut where it is absurdly long."""
    return bytes(value[:_MOST_TEXT]).decode("utf-8", "replace")


def signed(value: int) -> int:
    """An `int64`, which is written as if it had no sign."""
    return value - (1 << 64) if value >= 1 << 63 else value


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 7 * _MOST_VARINT_BYTES, 7):
        if at >= len(data):
            break
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise Malformed("a number has no end")
