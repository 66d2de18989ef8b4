"""Where does a record of CSV end? Lines to records, in blocks of what there is.

Rules:
- The reader of the standard library decides: a field in quotes may hold ends of lines, and one without may hold quotes.
- A record that it cannot read is one nonetheless, with what is wrong. A quote that is never closed, or bytes that are
  no text, make all that follows unreadable, and end it.
"""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterator
from typing import Final

from paceline.core.errors import InvalidRequest

MOST_RECORD_BYTES: Final = 64 << 20

Record = list[str] | str
"""Fields, or what is wrong."""


class CsvRecords:
    """Iterates over blocks of records, of which none is empty. Blank lines are no records.

    Args:
        path: for messages.
        blocks: of lines, without their line feeds.

    Raises:
        InvalidRequest: while iterating: the rest cannot be read.
    """

    def __init__(self, path: str, blocks: Iterator[list[bytes]]) -> None:
        self._path = path
        self._lines = _Lines(path, blocks)
        csv.field_size_limit(MOST_RECORD_BYTES)
        self._reader = csv.reader(self._lines)

    def __iter__(self) -> Iterator[list[Record]]:
        lines, block = self._lines, list[Record]()
        while True:
            lines.begin()
            try:
                fields: Record = next(self._reader)
            except StopIteration:
                break
            except csv.Error as error:
                fields = f"line {lines.began}: {str(error).partition(' - ')[0]}"
            if lines.ended:
                if block:
                    yield block
                raise InvalidRequest(f"{self._path}: line {lines.began}: a quote is opened and never closed")
            if fields:
                block.append(fields)
            if block and not lines.more:
                yield block
                block = []
        if block:
            yield block


class _Lines:
    """Gives the reader a line at a time.

    Attributes:
        began: number of the line in which the record began.
        more: there are lines that need not be waited for.
        ended: a line was asked for, and there was none.
    """

    def __init__(self, path: str, blocks: Iterator[list[bytes]]) -> None:
        self._path = path
        self._blocks = blocks
        self._held: deque[bytes] = deque()
        self._number = 0
        self._record_bytes = 0
        self.began = 0
        self.ended = False

    @property
    def more(self) -> bool:
        return bool(self._held)

    def begin(self) -> None:
        """A record begins with the next line."""
        self.began = self._number + 1
        self._record_bytes = 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        while not self._held:
            block = next(self._blocks, None)
            if block is None:
                self.ended = True
                raise StopIteration
            self._held.extend(block)
        line = self._held.popleft()
        self._number += 1
        self._record_bytes += len(line) + 1  # never less than the reader counts, whose limit would make rows of it
        if self._record_bytes > MOST_RECORD_BYTES:
            what = f"a record is larger than {MOST_RECORD_BYTES >> 20} MiB, or a quote is never closed"
            raise InvalidRequest(f"{self._path}: line {self.began}: {what}")
        try:
            return line.decode() + "\n"
        except UnicodeDecodeError as error:
            hint = "a file of Windows becomes one with: iconv -f windows-1252 -t utf-8"
            raise InvalidRequest(f"{self._path}: line {self._number}: not UTF-8: {error.reason}", hint=hint) from error
