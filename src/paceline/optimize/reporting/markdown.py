"""What does a study look like in a comment on a change?"""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from typing import Final

from paceline.optimize.reporting import words
from paceline.optimize.result import Study

_SPECIAL: Final = str.maketrans({character: f"\\{character}" for character in "\\`*_[]<>|#"})


def summary(study: Study) -> str:
    """A heading, what was chosen, the table of candidates, reasons, warnings, the command; ends with a newline."""
    parts = [
        f"### Optimization of {_escaped(str(study.source.get('file', '')))}",
        f"**{_escaped(words.headline(study))}**",
        "\n".join(f"- {_escaped(sentence)}" for sentence in words.sentences(study)),
        _table(study),
        _reasons(study),
        "\n".join(f"> Warning: {_escaped(text)}  " for text in study.warnings),
        _origin(study),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(study: Study) -> str:
    columns = words.columns(study)
    rules = ["---", "---", *["---:"] * (len(columns) - 2)]
    return "\n".join([_row(columns), f"|{'|'.join(rules)}|", *map(_row, words.rows(study, words.tried(study)))])


def _reasons(study: Study) -> str:
    return "\n".join(
        f"- {each.status}: {_escaped(each.candidate.name)}: {_escaped(words.why(each))}"
        for each in words.refused(study)
    )


def _origin(study: Study) -> str:
    command = " ".join(shlex.join(study.command).split())
    fence = "`" * (2 if "`" in command else 1)
    space = " " if "`" in command else ""
    machine = ", ".join(f"{name} {value}" for name, value in study.machine.items())
    return f"{fence}{space}{command}{space}{fence}  \n<sub>{_escaped(f'{study.created}; {machine}')}</sub>"


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(_escaped(cell) for cell in cells)} |"


def _escaped(text: str) -> str:
    return " ".join(text.translate(_SPECIAL).split("\n"))
