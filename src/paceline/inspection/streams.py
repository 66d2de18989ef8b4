"""How is a file read that may be compressed, and may unpack to more than anybody can hold?

Rules:
- Bytes come in order, in pieces; what is skipped is thrown away piece by piece.
- What has unpacked to too much, in bytes or beside what it took, is a bomb, and reading ends.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from paceline.core.errors import ModelLoadError
from paceline.runtimes.archive import MOST_RATIO, RATIO_FREE_BYTES

_PIECE_BYTES: Final = 1 << 18
_MOST_LINE_BYTES: Final = 1 << 20
_MOST_BYTES: Final = 8 << 30
_LZMA_MEMORY_BYTES: Final = 256 << 20  # a file says itself how much it wants

_ZLIB: Final = tuple(bytes((0x78, second)) for second in (0x01, 0x5E, 0x9C, 0xDA))
_MARKS: Final = {
    "gzip": (b"\x1f\x8b",),
    "zlib": _ZLIB,
    "bz2": (b"BZ",),
    "lzma": (b"\x5d\x00",),
    "xz": (b"\xfd7zXZ",),
    "lz4": (b"\x04\x22\x4d\x18",),
}


class Stream:
    """Bytes in order, as `pickletools` reads them.

    Args:
        pieces: of what is read; the end of them is the end of the file.
    """

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._buffer = b""
        self._at = 0
        self._before = 0

    def tell(self) -> int:
        """How many bytes have been read."""
        return self._before + self._at

    def read(self, size: int) -> bytes:
        """So many bytes, or fewer at the end."""
        end = self._at + size
        if end > len(self._buffer):
            return self._collect(size)
        part = self._buffer[self._at : end]
        self._at = end
        return part

    def readline(self) -> bytes:
        """Up to the end of the line; an absurdly long line ends before."""
        searched = self._at
        while (end := self._buffer.find(b"\n", searched)) < 0:
            left = len(self._buffer) - self._at
            if left > _MOST_LINE_BYTES or not self._refill():
                return self.read(left)
            searched = left  # what was left begins the buffer now
        return self.read(end + 1 - self._at)

    def skip(self, size: int) -> int:
        """Go on by so many bytes, or fewer at the end; how many it was."""
        left = size
        while left > 0:
            taken = min(left, len(self._buffer) - self._at)
            self._at += taken
            left -= taken
            if left and not self._refill():
                break
        return size - left

    def _collect(self, size: int) -> bytes:
        parts, left = [], size
        while left > 0:
            part = self._buffer[self._at : self._at + left]
            self._at += len(part)
            left -= len(part)
            parts.append(part)
            if left and not self._refill():
                break
        return b"".join(parts)

    def _refill(self) -> bool:
        """Have the next piece behind what has not been read yet; False at the end."""
        piece = next(self._pieces, b"")
        self._before += self._at
        self._buffer, self._at = self._buffer[self._at :] + piece, 0
        return bool(piece)


def opened(path: Path) -> tuple[Stream, str | None]:
    """A file's bytes, unpacked, and the name of the compression; None: it has none.

    Raises:
        ModelLoadError: it cannot be read, now or later, or is a bomb.
    """
    try:
        with path.open("rb") as file:
            head = file.read(8)
    except OSError as error:
        raise ModelLoadError(f"{path}: {(error.strerror or 'cannot be read').lower()}") from error
    kind = next((name for name, marks in _MARKS.items() if head.startswith(marks)), None)
    return Stream(_plain(path) if kind is None else _unpacked(path, kind)), kind


def _plain(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from iter(lambda: file.read(_PIECE_BYTES), b"")


def _unpacked(path: Path, kind: str) -> Iterator[bytes]:
    if kind == "lz4":
        raise ModelLoadError(
            f"{path}: compressed with lz4, which is not read here", hint="dump it with compress='gzip'"
        )
    total = 0
    try:
        with path.open("rb") as file:
            for piece in _pieces(file, kind):
                total += len(piece)
                if total > _MOST_BYTES or (total > RATIO_FREE_BYTES and total > MOST_RATIO * file.tell()):
                    raise ModelLoadError(f"{path}: {file.tell()} bytes unpack to more than {total}: a bomb")
                yield piece
    except (zlib.error, lzma.LZMAError, EOFError, OSError) as error:
        raise ModelLoadError(f"{path}: cannot be read as {kind}: {error}") from error


def _pieces(file: BinaryIO, kind: str) -> Iterator[bytes]:
    if kind in ("gzip", "zlib"):
        yield from _inflated(file)
        return
    unpack = bz2.BZ2Decompressor() if kind == "bz2" else lzma.LZMADecompressor(memlimit=_LZMA_MEMORY_BYTES)
    while not unpack.eof:
        data = file.read(_PIECE_BYTES) if unpack.needs_input else b""
        piece = unpack.decompress(data, _PIECE_BYTES)
        if not piece and not data and unpack.needs_input:
            raise EOFError("it ends too early")
        if piece:
            yield piece


def _inflated(file: BinaryIO) -> Iterator[bytes]:
    unpack = zlib.decompressobj(zlib.MAX_WBITS | 32)  # 32: the head says whether it is gzip or zlib
    while not unpack.eof:
        data = unpack.unconsumed_tail or file.read(_PIECE_BYTES)
        piece = unpack.decompress(data, _PIECE_BYTES)
        if not data and not piece:
            raise EOFError("it ends too early")
        if piece:
            yield piece
