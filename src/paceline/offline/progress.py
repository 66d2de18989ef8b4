"""How far is it, how fast, and how long will it yet take? A bar on a terminal; elsewhere a line now and then."""

from __future__ import annotations

import os
import shutil
import sys
import time
from typing import Final

_REDRAW_S: Final = 0.1
_LINE_S: Final = 10.0
_BAR: Final = 24
# The rate is that of the last while, for the first rows may have waited for the model.
_MEMORY_S: Final = 10.0


class ProgressBar:
    """Progress on stderr.

    Args:
        rows: done before.
    """

    def __init__(self, rows: int = 0) -> None:
        self._terminal = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._shown = False
        now = time.monotonic()
        self._next = now + (0.0 if self._terminal else _LINE_S)
        self._marks: list[tuple[float, int, float]] = [(now, rows, 0.0)]

    def update(self, rows: int, failed: int, fraction: float | None) -> None:
        """So many rows are done.

        Args:
            fraction: of all that there is; None where that is not known.
        """
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + (_REDRAW_S if self._terminal else _LINE_S)
        self._marks.append((now, rows, fraction or 0.0))
        while len(self._marks) > 2 and now - self._marks[1][0] > _MEMORY_S:
            del self._marks[0]
        text = self._text(rows, failed, fraction)
        if self._terminal:
            self._draw(text, fraction)
        else:
            self._write(f"paceline: {text}\n")

    def say(self, text: str) -> None:
        """A line, above the bar."""
        self.clear()
        self._write(f"paceline: {text}\n")

    def clear(self) -> None:
        """Take the bar away."""
        if self._shown:
            self._shown = False
            self._write("\r\x1b[K")

    def _text(self, rows: int, failed: int, fraction: float | None) -> str:
        (began, rows_then, then), (now, _, _) = self._marks[0], self._marks[-1]
        seconds = max(now - began, 1e-9)
        parts = [rows_of(rows), f"{grouped(round((rows - rows_then) / seconds))}/s"]
        if failed:
            parts.append(f"{grouped(failed)} failed")
        if fraction is not None:
            parts.append(f"{fraction:.0%}")
            if fraction > then:
                parts.append(f"{clock((1 - fraction) * seconds / (fraction - then))} left")
        return ", ".join(parts)

    def _draw(self, text: str, fraction: float | None) -> None:
        width = shutil.get_terminal_size().columns
        line = text
        if fraction is not None and len(text) + _BAR + 3 < width:
            done = round(min(fraction, 1.0) * _BAR)
            line = f"[{'#' * done}{'.' * (_BAR - done)}] {text}"
        self._shown = True
        self._write(f"\r{line[: width - 1]}\x1b[K")

    def _write(self, text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()


def grouped(number: int) -> str:
    """A number with a space between thousands."""
    return f"{number:,}".replace(",", " ")


def rows_of(number: int) -> str:
    """Such as `1 row` or `20 000 rows`."""
    return f"{grouped(number)} row{'s' * (number != 1)}"


def clock(seconds: float) -> str:
    """Such as 0:07 or 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
