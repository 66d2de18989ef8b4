"""Which rows does a file hold? JSON lines, a list in JSON, or CSV, as items of JSON.

Rules:
- Files larger than memory pass through in blocks of lines; a list in JSON is read whole.
- A block is what there is: rows that come through a pipe one by one are scored one by one.
- A row that cannot be read is a row nonetheless, with its problem; only what makes all that follows unreadable ends
  the reading.
- What is wrong with the header of a file shows at once.
- CSV: the first line names the columns; a field that is a number in JSON is that number, digit by digit, an empty one
  is null, and any other is text, such as 007.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from io import FileIO
from pathlib import Path
from typing import Final, Literal, NamedTuple, get_args

import msgspec

from paceline.core.errors import InvalidRequest
from paceline.offline.csv_records import MOST_RECORD_BYTES, CsvRecords

Format = Literal["jsonl", "json", "csv"]
FORMATS: Final[tuple[Format, ...]] = get_args(Format)

STDIN: Final = "-"
_BLOCK_BYTES: Final = 256 << 10
_MANY: Final = 1024
_ENDS_BYTES: Final = 64 << 10
_BOM: Final = b"\xef\xbb\xbf"
_NUMBER: Final = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_SUFFIXES: Final[dict[str, Format]] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
}


class Row(NamedTuple):
    """One item.

    Attributes:
        number: from 1.
        text: JSON.
        problem: why there is no item; empty when there is.
    """

    number: int
    text: bytes
    problem: str = ""


class Identity(NamedTuple):
    """What tells one input from another: its size, and a digest of its two ends."""

    size_bytes: int
    digest: str


def format_of(path: str, default: Format = "jsonl") -> Format:
    """The format that a file's name says."""
    return _SUFFIXES.get(Path(path).suffix.lower(), default)


class Rows:
    """The rows of a file, in blocks. Reading blocks.

    Args:
        path: `-` is the standard input.
        wants_lists: told the columns of a CSV file; True makes a row the list of its fields, not an object.

    Attributes:
        size_bytes: of the file; None when it has no size.
        read_bytes: how far it has been read.
        changed_s: when it was changed last, in seconds of the clock.

    Raises:
        InvalidRequest: the file cannot be read.
    """

    def __init__(self, path: str, form: Format, wants_lists: Callable[[list[str]], bool] = lambda _: False) -> None:
        self._path = path
        self._form = form
        self.wants_lists = wants_lists
        self.read_bytes = 0
        try:
            # Unbuffered: a thread that waits for a pipe must hold no lock that the interpreter's end wants.
            self._file = FileIO(os.dup(0) if path == STDIN else path)
            state = os.fstat(self._file.fileno())
        except OSError as error:
            raise InvalidRequest(f"{path}: {(error.strerror or str(error)).lower()}") from error
        self.changed_s = state.st_mtime
        self.size_bytes = state.st_size if stat.S_ISREG(state.st_mode) else None
        if form == "csv" and self.size_bytes is not None:
            try:
                self._look_at_header()
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def is_file(self, path: str) -> bool:
        """True when the rows come from the file of that name."""
        return self.size_bytes is not None and os.path.samestat(os.stat(path), os.fstat(self._file.fileno()))

    def identity(self) -> Identity | None:
        """What tells this file from others; None for what can be read only once."""
        if self.size_bytes is None or self._path == STDIN:
            return None
        descriptor = self._file.fileno()
        last = max(0, self.size_bytes - _ENDS_BYTES)
        ends = os.pread(descriptor, _ENDS_BYTES, 0) + os.pread(descriptor, _ENDS_BYTES, last)
        return Identity(self.size_bytes, hashlib.blake2b(ends, digest_size=16).hexdigest())

    def blocks(self, skip: int = 0) -> Iterator[list[Row]]:
        """Rows in blocks of what there is, without the first `skip`.

        Raises:
            InvalidRequest: the rest cannot be read.
        """
        read = {"jsonl": self._json_lines, "json": self._json_list, "csv": self._csv}[self._form]
        number = 0
        for block in read():
            rows = [Row(number + place, *each) for place, each in enumerate(block, 1)]
            number += len(rows)
            if number > skip:
                yield rows[max(0, len(rows) - (number - skip)) :]

    # -- formats ----------------------------------------------------------------------------------------------

    def _json_lines(self) -> Iterator[list[tuple[bytes, str]]]:
        for lines in self._lines():
            yield [(line, "") for line in lines if line.strip()]

    def _json_list(self) -> Iterator[list[tuple[bytes, str]]]:
        data = bytearray()
        while block := self._read():
            data += block
        try:
            raws = msgspec.json.decode(data.removeprefix(_BOM), type=list[msgspec.Raw])
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            hint = "a file with one item on each line is JSON lines: --input-format jsonl"
            raise InvalidRequest(f"{self._path}: expected a list in JSON: {error}", hint=hint) from error
        for start in range(0, len(raws), _MANY):
            yield [(bytes(raw), "") for raw in raws[start : start + _MANY]]

    def _csv(self) -> Iterator[list[tuple[bytes, str]]]:
        write: _Record | None = None
        for records in CsvRecords(self._path, self._lines()):
            if write is None:
                columns = self._columns(records.pop(0))
                write = _Record(columns, self.wants_lists(columns))
            yield [(b"", each) if isinstance(each, str) else write(each) for each in records]

    def _look_at_header(self) -> None:
        began = self._file.tell()
        for records in CsvRecords(self._path, self._lines()):
            self._columns(records[0])
            break
        self._file.seek(began)
        self.read_bytes = 0

    def _columns(self, header: list[str] | str) -> list[str]:
        if isinstance(header, str):
            hint = "lines end with a line feed, perhaps after a carriage return"
            raise InvalidRequest(f"{self._path}: {header}", hint=hint)
        if problem := header_problem(header):
            raise InvalidRequest(f"{self._path}: {problem}")
        return header

    # -- lines ------------------------------------------------------------------------------------------------

    def _lines(self) -> Iterator[list[bytes]]:
        """Whole lines, as many as there are."""
        pieces: list[bytes] = []
        while block := self._read():
            first, *lines = block.split(b"\n")
            pieces.append(first)
            if lines:
                yield [b"".join(pieces), *lines[:-1]]
                pieces = [lines[-1]]
            if sum(map(len, pieces)) > MOST_RECORD_BYTES:
                raise InvalidRequest(f"{self._path}: a line is larger than {MOST_RECORD_BYTES >> 20} MiB")
        if last := b"".join(pieces):
            yield [last]

    def _read(self) -> bytes:
        try:
            block = self._file.read(_BLOCK_BYTES)
        except OSError as error:
            raise InvalidRequest(f"{self._path}: {(error.strerror or str(error)).lower()}") from error
        if self.read_bytes == 0:
            block = block.removeprefix(_BOM)
        self.read_bytes += len(block)
        return block


class _Record:
    """Writes the fields of a CSV row as JSON."""

    def __init__(self, columns: Sequence[str], as_list: bool) -> None:
        self._count = len(columns)
        self._keys = [b"" if as_list else msgspec.json.encode(column) + b":" for column in columns]
        self._form = b"[%b]" if as_list else b"{%b}"

    def __call__(self, fields: Sequence[str]) -> tuple[bytes, str]:
        if len(fields) != self._count:
            return b"", f"expected {self._count} fields, got {len(fields)}"
        values = [key + _value(field) for key, field in zip(self._keys, fields, strict=True)]
        return self._form % b",".join(values), ""


def header_problem(header: Sequence[str]) -> str | None:
    """What is wrong with the names of the columns in a CSV file, if anything is."""
    if len(header) == 1 and (found := re.search(r"[;\t|]", header[0])):
        return f"fields are separated by commas, and the header has none, but {found[0]!r}"
    column, times = Counter(header).most_common(1)[0]
    if times > 1:
        return f"the column {column!r} is there {'twice' if times == 2 else f'{times} times'}"
    return None


def _value(field: str) -> bytes:
    if not field:
        return b"null"
    if _NUMBER.fullmatch(field):
        return field.encode()
    return msgspec.json.encode(field)


__all__ = ["FORMATS", "STDIN", "Format", "Identity", "Row", "Rows", "format_of", "header_problem"]
