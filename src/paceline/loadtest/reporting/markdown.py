"""What does a load test look like in a comment on a change?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from paceline.loadtest.reporting import table
from paceline.loadtest.result import Result

_SPECIAL = str.maketrans({character: f"\\{character}" for character in "\\`*_[]<>|#"})


def summary(result: Result) -> str:
    """A heading, what was found, the table of steps, the gates, the warnings and the command; ends with a newline."""
    parts = [
        f"### Load test of {_escaped(result.model or result.url)}",
        "\n".join(f"**{_escaped(line)}**  " for line in table.headline(result)),
        _table(table.columns(result), table.rows(result)),
        _gates(result),
        _warnings(result),
        _origin(result),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return "No step was finished."
    rules = ["---", *["---:"] * (len(columns) - 1)]
    return "\n".join([_row(columns), f"|{'|'.join(rules)}|", *map(_row, rows)])


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(_escaped(cell) for cell in cells)} |"


def _gates(result: Result) -> str:
    lines = [f"- {'passed' if gate.ok else '**failed**'}: {_escaped(table.gate_text(gate))}" for gate in result.gates]
    return "\n".join(lines)


def _warnings(result: Result) -> str:
    return "\n".join(f"> Warning: {_escaped(text)}  " for text in [*result.warnings, *table.in_the_way(result)])


def _origin(result: Result) -> str:
    """On one line of code each, whatever the command holds."""
    machine = ", ".join(f"{name} {value}" for name, value in result.machine.items())
    command = " ".join(result.command.split())
    fence = "`" * (2 if "`" in command else 1)
    space = " " if "`" in command else ""
    measured = f"{result.created}, {result.protocol}, {result.engine} {result.paceline}"
    return f"{fence}{space}{command}{space}{fence}  \n<sub>{_escaped(f'{measured}; {machine}')}</sub>"


def _escaped(text: str) -> str:
    return " ".join(text.translate(_SPECIAL).split("\n"))
