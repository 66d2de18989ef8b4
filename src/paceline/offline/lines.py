"""What became of rows, as the lines of a file: JSON lines, or CSV.

Rules:
- A row is a line of its own; one that failed holds `error` in place of a prediction.
- In CSV the first prediction names the columns. What failed before it is held back until then; when too much does, or
  no prediction comes, there is one column for all.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any, Final, Protocol

import msgspec

_MOST_HELD: Final = 10_000


class Scored(msgspec.Struct):
    """What became of a row.

    Attributes:
        number: of the row, from 1.
        text: JSON: the prediction, or an object with `error` and `code`.
    """

    number: int
    text: bytes
    failed: bool = False


class Lines(Protocol):
    """A format.

    Attributes:
        columns: those that there are; None where there are none, and as long as none are known.
        held: rows that have been given and are not yet lines.
    """

    columns: list[str] | None
    held: list[Scored]

    def write(self, scored: Sequence[Scored]) -> bytes:
        """The lines of the next rows."""

    def end(self) -> bytes:
        """The lines of what is held."""


class JsonLines:
    """One JSON document on each line."""

    columns: list[str] | None = None

    def __init__(self) -> None:
        self.held: list[Scored] = []

    def write(self, scored: Sequence[Scored]) -> bytes:
        # Ends of lines within a document stand between its values: in strings they are escaped.
        return b"".join([each.text.replace(b"\n", b" ") + b"\n" for each in scored])

    def end(self) -> bytes:
        return b""


class CsvLines:
    """A column for each key of the predictions, and one for errors.

    Args:
        columns: where they are known already.
    """

    def __init__(self, columns: list[str] | None = None) -> None:
        self.columns = columns
        self.held: list[Scored] = []

    def write(self, scored: Sequence[Scored]) -> bytes:
        if self.columns is not None:
            return self._rows(scored)
        self.held += scored
        good = next((each for each in self.held if not each.failed), None)
        if good is None and len(self.held) < _MOST_HELD:
            return b""
        return self._begin(good)

    def end(self) -> bytes:
        return self._begin(None) if self.held else b""

    def _begin(self, good: Scored | None) -> bytes:
        value = None if good is None else msgspec.json.decode(good.text)
        self.columns = [*(value if isinstance(value, dict) else ["prediction"]), "error"]
        held, self.held = self.held, []
        return _csv([self.columns]) + self._rows(held)

    def _rows(self, scored: Sequence[Scored]) -> bytes:
        return _csv([self._fields(each) for each in scored])

    def _fields(self, each: Scored) -> list[str]:
        assert self.columns is not None
        names = self.columns[:-1]
        value = msgspec.json.decode(each.text)
        if each.failed:
            return [*[""] * len(names), value["error"]]
        if not isinstance(value, dict):
            value = {"prediction": value}
        if unknown := value.keys() - set(names):
            each.failed = True
            error = f"the prediction has {min(unknown)!r}, which the first one had not: it had {', '.join(names)}"
            return [*[""] * len(names), error]
        return [*[_field(value.get(name)) for name in names], ""]


def _csv(rows: Sequence[Sequence[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def _field(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
