"""How are Protocol Buffers read of which little is wanted? Field by field, in place: what is skipped is never touched.

Rules:
- A file is looked at mapped into memory, or as a `Part`. Servers do the latter: who reads a mapped file that is being
  written anew, and cut off for that, is killed.
- A file may hold a field several times of which a message has one. What every reader of the format makes of it is made
  of it here: of numbers and texts the last counts; messages are merged, which is to read them one after the other.

Source: the encoding's specification, protobuf.dev/programming-guides/encoding. Groups are not used by any format here.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import BinaryIO, Final, TypeVar, overload

from paceline.core.errors import ModelLoadError

_VARINT, _FIXED_64, _LENGTH, _FIXED_32 = 0, 1, 2, 5
_MOST_VARINT_BYTES: Final = 10
_MOST_NUMBER: Final = (1 << 64) - 1
_MOST_TAG: Final = (1 << 32) - 1
_MOST_TEXT: Final = 4096
_MOST_JOINED_BYTES: Final = 1 << 20  # of a message in parts, which nobody writes
_BLOCK_BYTES: Final = 1 << 13


class Malformed(Exception):
    """The bytes are no message, or a part of one."""


class TooLong(Exception):
    """A name is absurdly long."""


class Part:
    """Bytes of a file, from `start` to `stop`, read when they are looked at. A slice is a part, too.

    Args:
        file: all of its parts share a block of it.
    """

    __slots__ = ("_file", "_start", "_stop")

    def __init__(self, file: _Blocks, start: int, stop: int) -> None:
        self._file = file
        self._start = start
        self._stop = stop

    def __len__(self) -> int:
        return self._stop - self._start

    def __bytes__(self) -> bytes:
        return self._file.read(self._start, self._stop)

    @overload
    def __getitem__(self, at: int) -> int: ...
    @overload
    def __getitem__(self, at: slice) -> Part: ...
    def __getitem__(self, at: int | slice) -> int | Part:
        if isinstance(at, int):
            return self._file.byte(self._start + at)
        start, stop, _ = at.indices(len(self))
        return Part(self._file, self._start + start, self._start + max(start, stop))


class _Blocks:
    """A file, with the block that was looked at last."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._at = 0
        self._block = b""

    def byte(self, at: int) -> int:
        if not self._at <= at < self._at + len(self._block):
            self._at, self._block = at, self.read(at, at + _BLOCK_BYTES)
        try:
            return self._block[at - self._at]
        except IndexError:
            raise Malformed("the file has become shorter") from None

    def read(self, start: int, stop: int) -> bytes:
        self._file.seek(start)
        return self._file.read(stop - start)


View = TypeVar("View", memoryview, Part)


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


def parts(file: BinaryIO) -> Part:
    """An open file's bytes, without reading them."""
    return Part(_Blocks(file), 0, os.fstat(file.fileno()).st_size)


def fields(data: View) -> Iterator[tuple[int, int | View]]:
    """Number and value of each field of a message: a number, or a view of what has a length.

    Numbers of a fixed size are left out: of what is read here, none is written so, and a field that is does not count.

    Raises:
        Malformed: it is none.
    """
    at, end = 0, len(data)
    while at < end:
        tag, at = _varint(data, at)
        if not 8 <= tag <= _MOST_TAG:
            raise Malformed("a field without a number")
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
        if kind == _LENGTH:
            yield tag >> 3, data[at : at + size]
        at += size


def messages(data: View, *path: int) -> Iterator[View]:
    """Every message, or other value with a length, down a path of fields.

    A reader of the format makes one of what a field holds several times; so all of it is found.
    """
    number, *rest = path
    for found, value in fields(data):
        if found == number and not isinstance(value, int):
            yield from messages(value, *rest) if rest else (value,)


def has(data: memoryview, *path: int) -> bool:
    """True when there is a message, or other value with a length, down a path of fields."""
    return any(True for _ in messages(data, *path))


def merged(data: memoryview, *path: int) -> memoryview:
    """The message down a path of fields of which each has one; empty where there is none."""
    for number in path:
        data = _joined(list(messages(data, number)))
    return data


def last(data: memoryview, *path: int) -> memoryview:
    """The text down a path of fields of which each has one; empty where there is none."""
    *outer, number = path
    value = data[:0]
    for value in messages(merged(data, *outer), number):  # noqa: B007 (the last is wanted)
        pass
    return value


def one_of(data: memoryview, lengths: Collection[int], numbers: Collection[int] = ()) -> tuple[int, memoryview]:
    """Of fields of which a message has only one: the one that was set last, and what is in it, if it is a message.

    Args:
        lengths: the fields whose values have a length.
        numbers: the others.

    Returns:
        The field's number, or 0; and the message, or nothing.
    """
    chosen, found = 0, list[memoryview]()
    for number, value in fields(data):
        if number not in (numbers if isinstance(value, int) else lengths):
            continue
        if number != chosen:
            chosen, found = number, []
        if not isinstance(value, int):
            found.append(value)
    return chosen, _joined(found)


def entries(data: memoryview, number: int) -> dict[str, memoryview]:
    """The messages of a map, by key; of those with the same the last."""
    return {name(last(each, 1)): merged(each, 2) for each in messages(data, number)}


def number(data: View, field: int, default: int = 0) -> int:
    """The last number in a field."""
    for found, value in fields(data):
        if found == field and isinstance(value, int):
            default = value
    return default


def numbers(value: int | View) -> Iterator[int]:
    """The numbers of a repeated field, packed or not."""
    if isinstance(value, int):
        yield value
        return
    at = 0
    while at < len(value):
        each, at = _varint(value, at)
        yield each


def text(value: View) -> str:
    """A string to be shown, cut where it is absurdly long."""
    return bytes(value[:_MOST_TEXT]).decode("utf-8", "replace")


def name(value: View) -> str:
    """A string that is compared with others, whole.

    Raises:
        TooLong: it would have to be cut.
        Malformed: it is none.
    """
    if len(value) > _MOST_TEXT:
        raise TooLong(f"a name of {len(value)} bytes")
    try:
        return bytes(value).decode()
    except UnicodeDecodeError:
        raise Malformed("a name that is no text") from None


def signed(value: int) -> int:
    """An `int64`, which is written as if it had no sign."""
    return value - (1 << 64) if value >= 1 << 63 else value


def _varint(data: View, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 7 * _MOST_VARINT_BYTES, 7):
        if at >= len(data):
            break
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & _MOST_NUMBER, at
    raise Malformed("a number has no end")


def _joined(found: list[memoryview]) -> memoryview:
    if len(found) == 1:
        return found[0]
    if sum(map(len, found)) > _MOST_JOINED_BYTES:
        raise Malformed("a message in several large parts")
    return memoryview(b"".join(found))
