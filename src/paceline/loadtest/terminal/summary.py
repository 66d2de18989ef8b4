"""What does somebody at a terminal read when a load test is over?

A line for each step, and below it what follows from them: capacity, gates, errors, warnings, and what to try next.

Rules:
- Into a pipe or a file goes every column; a terminal that is too narrow gets those that matter most.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, TextIO

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from paceline.loadtest.reporting import table
from paceline.loadtest.result import Result

_WIDE: Final = 300
_LEFT_OUT_FIRST: Final = ("p95", "p90", "queue p50", "infer p50", "client CPU", "p99.9", "batch", "SLO")
_LOADED: Final = 0.7
_SLO_OF_IDLE: Final = 5.0


def write(result: Result, file: TextIO | None = None) -> None:
    """Write it all to stdout, or to `file`."""
    file = file or sys.stdout
    console = Console(file=file, highlight=False, markup=False, width=None if file.isatty() else _WIDE)
    of_what = ", ".join(filter(None, (result.model, result.protocol, result.server)))
    _line(console, Text.assemble((result.url, "bold"), f"  {of_what}"))
    if result.steps:
        _line(console)
        console.print(_fitting(result, console))
    _line(console)
    for line in lines(result):
        _line(console, line)
    _line(console, Text(f"next: {next_step(result)}", "dim"))


def lines(result: Result) -> Iterator[Text]:
    """What follows from the steps."""
    for said in table.headline(result):
        yield Text(said, "bold")
    for gate in result.gates:
        verdict = ("passed", "green") if gate.ok else ("failed", "bold red")
        yield Text.assemble(verdict, f": {table.gate_text(gate)}")
    for step in result.steps:
        if step.errors:
            yield Text(f"errors: {step.label}: {table.error_text(step.errors)}", "red")
    for warning in [*result.warnings, *table.in_the_way(result)]:
        yield Text(f"warning: {warning}", "yellow")


def next_step(result: Result) -> str:
    """What would tell more, by what this test has told."""
    best = max(result.steps, key=lambda step: step.rate, default=None)
    if best is None or not best.rate:
        return "find out why nothing is answered: curl -i, and the server's log"
    if best.client.bottleneck:
        return "give the client a core, or a machine, of its own: its numbers are not the server's"
    if result.kind == "closed":
        rate, slo_ms = best.rate * _LOADED, (result.steps[0].latency.p99_ms or 1.0) * _SLO_OF_IDLE
        return (
            f"users wait while the server does; --rate {_plain(rate)}/s sends whatever it does, "
            f"and --find-capacity --slo p99={_plain(slo_ms)}ms looks for the most"
        )
    drawn = "--report report.html draws it"
    if result.gates:  # what keeps results is known
        return drawn
    return f"{drawn}; --output result.json keeps it, for --baseline and --fail-if later"


def _fitting(result: Result, console: Console) -> Table:
    """As many columns as there is room for."""
    columns, rows = table.columns(result), table.rows(result)
    left_out: list[str] = []
    while True:
        places = [place for place, column in enumerate(columns) if column not in left_out]
        drawn = as_table([columns[place] for place in places], [[row[place] for place in places] for row in rows])
        width = Measurement.get(console, console.options.update(max_width=_WIDE), drawn).maximum
        if width <= console.width or len(left_out) == len(_LEFT_OUT_FIRST):
            return drawn
        left_out.append(_LEFT_OUT_FIRST[len(left_out)])


def as_table(columns: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> Table:
    """For a terminal: words in the first column, numbers in the others."""
    made = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    for place, column in enumerate(columns):
        made.add_column(column, justify="right" if place else "left", no_wrap=True)
    for row in rows:
        made.add_row(*row)
    return made


def _line(console: Console, text: Text | None = None) -> None:
    """One that the terminal breaks, and not we: it can be copied."""
    console.print(text or "", soft_wrap=True)


def _plain(number: float) -> str:
    """Two digits, without an exponent."""
    return f"{float(f'{number:.2g}'):.10g}"
