"""How is a report shown to people?

Rules:
- Names come from the file: what is not printable in them is escaped, so that no file writes to the terminal.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from paceline.inspection.report import Finding, Import, Report, Tensor, listed
from paceline.reports.units import BYTES

_MOST_OPERATORS: Final = 12
_MOST_IMPORTS: Final = 20
_MOST_TENSORS: Final = 30
_COLORS: Final = {"unsafe": "bold red", "unknown": "yellow", "odd": "yellow", "note": "cyan", "dangerous": "bold red",
                  "known": "green", "safe": "bold green"}  # fmt: skip
_SAFETY: Final = {
    "safe": "nothing in it runs code of its own",
    "unknown": "it runs code that is not known to be harmless, or was not read",
    "unsafe": "do not load it",
}


_Row = tuple[str | Text, Text]


def show(report: Report, console: Console) -> None:
    """Print the report, and those of the models in it."""
    _print(list(_rows(report)), console)
    for inner in report.contains:
        console.print()
        _print(list(_rows(inner)), console)


def printable(text: str) -> str:
    """The text with everything escaped that is no printable character."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def _print(rows: list[_Row], console: Console) -> None:
    width = max(len(label) for label, _ in rows) + 2
    if not console.is_terminal:  # whole lines, for whoever searches them
        for label, text in rows:
            lines = f"{label!s:{width}}{text}".replace("\n", f"\n{'':{width}}")
            console.print(lines, markup=False, highlight=False, soft_wrap=True)
        return
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for label, text in rows:
        table.add_row(label, text)
    console.print(table)


def _rows(report: Report) -> Iterator[_Row]:
    yield "file", Text(printable(report.path), "bold")
    yield _row("format", report.title + (f", {BYTES.plain(report.size_bytes)}" if report.size_bytes else ""))
    if report.made_by:
        yield _row("made by", report.made_by)
    if report.versions:
        yield _row("versions", ", ".join(f"{name} {version}" for name, version in report.versions.items()))
    for label, tensors in (("inputs", report.inputs), ("outputs", report.outputs)):
        if tensors is not None:
            yield from _several(label, [_tensor(each) for each in tensors], _MOST_TENSORS)
        elif report.serve and not report.contains:
            yield _row(label, "only loading it tells")
    if report.operators:
        label = "imports" if report.format in ("python", "r") else "operators"
        yield _row(label, listed((f"{name} {count}" for name, count in report.operators.items()), _MOST_OPERATORS))
    if report.parameters is not None or report.weight_bytes:
        yield _row("weights", _weights(report))
    for name, value in report.about.items():
        yield _row(printable(name[:40]), str(value))
    yield from _verdicts(report)


def _verdicts(report: Report) -> Iterator[_Row]:
    yield from _names(report.imports)
    for finding in report.findings:
        yield Text(finding.level, _COLORS[finding.level]), _finding(finding)
    yield "safety", Text.assemble((report.safety, _COLORS[report.safety]), f": {_SAFETY[report.safety]}")
    yield _row("serve", report.serve or "it cannot be served as it is")
    if report.extra:
        yield _row("needs", f"pip install 'paceline[{report.extra}]'")
    if report.optimize:
        yield _row("optimize", report.optimize)


def _row(label: str, text: str) -> _Row:
    return label, Text(printable(text))


def _several(label: str, lines: list[str], most: int) -> Iterator[_Row]:
    shown = lines[:most] + ([f"and {len(lines) - most} more"] if len(lines) > most else [])
    for index, line in enumerate(shown):
        yield _row("" if index else label, line)


def _names(imports: list[Import]) -> Iterator[_Row]:
    """What a pickle looks up, the worst first; of what is harmless, only how much."""
    told = [each for each in imports if each.verdict != "known"]
    told.sort(key=lambda each: each.verdict)
    for index, each in enumerate(told[:_MOST_IMPORTS]):
        said = f": {each.why}{', called while it is loaded' if each.called else ''}"
        yield "" if index else "names", Text.assemble((printable(each.name), _COLORS[each.verdict]), printable(said))
    if len(told) > _MOST_IMPORTS:
        yield _row("", f"and {len(told) - _MOST_IMPORTS} more")
    harmless = len(imports) - len(told)
    if harmless:
        yield _row("" if told else "names", f"{harmless} {'that are ' if told else ''}known to be harmless")


def _finding(finding: Finding) -> Text:
    text = Text(printable(finding.text))
    if finding.hint:
        text.append(f"\nhint: {printable(finding.hint)}", "dim")
    return text


def _tensor(tensor: Tensor) -> str:
    shape = "" if tensor.shape is None else f" [{', '.join(map(str, tensor.shape))}]"
    return f"{tensor.name}{f' {tensor.datatype}' if tensor.datatype else ''}{shape}"


def _weights(report: Report) -> str:
    parameters = "" if report.parameters is None else f"{report.parameters:,} parameters"
    size = BYTES.plain(report.weight_bytes) if report.weight_bytes else ""
    return ", ".join(filter(None, (parameters, size)))
