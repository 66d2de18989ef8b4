"""How is an examination shown to people? In groups, the worst in color; what is well takes one line."""

from __future__ import annotations

from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from paceline.doctor.finding import Examination, Finding

_MARKS: Final = {"ok": ("ok", "green"), "note": ("note", "yellow"), "problem": ("problem", "bold red")}
_LABEL_WIDTH: Final = 26
_MARK_WIDTH: Final = 9


def show(found: Examination, console: Console) -> None:
    """Print it."""
    for group in found.groups:
        console.print(Text(group.title, "bold"))
        if console.is_terminal:
            console.print(_table(group.findings))
        else:  # whole lines, for whoever searches them
            for each in group.findings:
                indent = "\n" + " " * (2 + _MARK_WIDTH + _LABEL_WIDTH)
                text = str(_text(each)).replace("\n", indent)
                line = f"  {each.level:{_MARK_WIDTH}}{each.check:{_LABEL_WIDTH}}{text}"
                console.print(line, markup=False, highlight=False, soft_wrap=True)
        console.print()
    console.print(summary(found))


def summary(found: Examination) -> str:
    """Such as `1 problem, 3 notes`."""
    problems = f"{found.problems} problem{'s' * (found.problems != 1)}"
    return f"{problems}, {found.notes} note{'s' * (found.notes != 1)}"


def _table(findings: list[Finding]) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(width=2 + _MARK_WIDTH - 2)
    table.add_column(style="dim", max_width=_LABEL_WIDTH)
    table.add_column(overflow="fold")
    for each in findings:
        mark, color = _MARKS[each.level]
        table.add_row(Text(f"  {mark}", color), each.check, _text(each))
    return table


def _text(finding: Finding) -> Text:
    text = Text(finding.text)
    if finding.hint:
        text.append(f"\nhint: {finding.hint}", "dim")
    return text
