"""What does somebody at a terminal read when a study is over?

A line for each candidate, below it what was chosen, why, and what to type next.

Rules:
- Into a pipe or a file goes every column; a terminal that is too narrow gets those that matter most.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from io import StringIO
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from paceline.optimize.reporting import words
from paceline.optimize.result import Study

_WIDE: Final = 300
_LEFT_OUT_FIRST: Final = ("most rows", "size", "cost per million", "gain (95 %)")
_STYLES: Final = {"accepted": "green", "baseline": "", "rejected": "yellow", "failed": "red", "skipped": "dim"}


def summary(study: Study, out: Path) -> str:
    """All of it, ending with a newline; with colors where stdout is a terminal.

    Args:
        out: the bundle's folder.
    """
    colored = sys.stdout.isatty()
    file = StringIO()
    console = Console(
        file=file, highlight=False, markup=False, force_terminal=colored, width=None if colored else _WIDE
    )
    _line(console, Text.assemble((str(study.source.get("file", "")), "bold"), f"  {_about(study)}"))
    _line(console)
    console.print(_fitting(study, console))
    _line(console)
    for each in words.refused(study):
        _line(
            console,
            Text.assemble((f"{each.status}: ", _STYLES[each.status]), each.candidate.name, ": ", words.why(each)),
        )
    _line(console, Text(words.headline(study), "bold"))
    for sentence in words.sentences(study):
        _line(console, Text(sentence))
    for warning in study.warnings:
        _line(console, Text(f"warning: {warning}", "yellow"))
    _line(console, Text(f"next: {words.next_step(study, out)}", "dim"))
    return file.getvalue()


def _about(study: Study) -> str:
    data = study.data
    labels = "with labels" if data.get("labels") else "without labels"
    judged = data.get("evaluation_rows", data.get("rows"))
    return (
        f"{study.source.get('format', '')}, judged on {judged} rows {labels}, times at {words.rows_text(study.batch)}"
    )


def _fitting(study: Study, console: Console) -> Table:
    """As many columns as there is room for."""
    columns, rows = words.columns(study), words.rows(study, words.tried(study))
    others = [words.rows_text(batch) for batch in words.batches(study)[1:]]
    left_out: list[str] = []
    for heading in [None, *_LEFT_OUT_FIRST[:2], *reversed(others), *_LEFT_OUT_FIRST[2:]]:
        left_out += [heading] if heading else []
        places = [place for place, column in enumerate(columns) if column not in left_out]
        drawn = _table([columns[place] for place in places], [[row[place] for place in places] for row in rows])
        if Measurement.get(console, console.options.update(max_width=_WIDE), drawn).maximum <= console.width:
            break
    return drawn


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    made = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    for place, column in enumerate(columns):
        made.add_column(column, justify="right" if place > 1 else "left", no_wrap=True)
    for row in rows:
        is_chosen = row[0].endswith(words.CHOSEN)
        cells = [Text(row[0], "bold" if is_chosen else ""), Text(row[1], _STYLES.get(row[1], "")), *map(Text, row[2:])]
        made.add_row(*cells)
    return made


def _line(console: Console, text: Text | None = None) -> None:
    """One that the terminal breaks, and not we: it can be copied."""
    console.print(text or "", soft_wrap=True)
