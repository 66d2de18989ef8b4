"""What does `paceline optimize` show while it works, and how does it end?

Rules:
- On a terminal a bar with the candidate's name; elsewhere a line for each candidate. All of it goes to stderr.
- Ctrl-C and SIGTERM end it at once; what was found out is kept, and it is said how to go on.
- The bundle is written before the reports: a page that cannot be written costs the page.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from types import FrameType
from typing import Final

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from paceline.cli.documents import print_document
from paceline.core.errors import ConfigError
from paceline.optimize.reporting import html, markdown, terminal, words
from paceline.optimize.result import Study, Tried
from paceline.optimize.search.pareto import speed_at
from paceline.optimize.studying import study as studies
from paceline.optimize.wanted import Progress as Told
from paceline.optimize.wanted import Wanted
from paceline.reports.units import MILLISECONDS

_NOT_FAST_ENOUGH: Final = 1
_PAGE: Final = "report.html"
_SUMMARY: Final = "report.md"
_DOCUMENT: Final = "report.json"


def optimize(wanted: Wanted, require: float | None, *, as_json: bool) -> int:
    """Study, write, tell; the exit code."""
    number = 0
    try:
        with _interrupts(), _shown(wanted.budget_s) as progress:
            study = studies.run(wanted, progress)
            _write(study, wanted)
    except _Interrupted as interrupted:
        number = interrupted.number
    if number:
        click.echo("paceline: interrupted: the same command goes on where it was", err=True)
        return 128 + number
    if as_json:
        print_document(study)
    else:
        click.echo(terminal.summary(study, wanted.out), nl=False)
    return _verdict(study, require)


def _write(study: Study, wanted: Wanted) -> None:
    try:
        studies.write_json(study, wanted.out / _DOCUMENT)
        (wanted.out / _PAGE).write_text(html.page(study), encoding="utf-8")
        (wanted.out / _SUMMARY).write_text(markdown.summary(study), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{wanted.out}: the reports cannot be written: {error.strerror or error}") from error


def _verdict(study: Study, require: float | None) -> int:
    chosen = next(each for each in study.candidates if each.candidate.name == study.chosen)
    speed = speed_at(chosen, study.batch)
    ratio = 1.0 if speed is None else speed.ratio
    if require is None or ratio >= require:
        return 0
    click.echo(f"paceline: {ratio:.2f} times as fast, and --require asks for {require:g} times", err=True)
    return _NOT_FAST_ENOUGH


class _Interrupted(BaseException):
    """A signal has come. No Exception: what a candidate raises is caught, and this is not to be."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def _interrupts() -> Iterator[None]:
    def came(number: int, _: FrameType | None) -> None:
        raise _Interrupted(number)

    before = {number: signal.signal(number, came) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _shown(budget_s: float) -> Iterator[Told]:
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield _Lines()
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn(f"of {timedelta(seconds=round(budget_s))}"),
        TextColumn("[dim]{task.fields[doing]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        yield _Bar(bar)


class _Lines:
    """A line for each candidate, when it is done."""

    def say(self, text: str) -> None:
        click.echo(f"paceline: {text}", err=True)

    def begin(self, name: str, done: int, total: int) -> None:
        """Nothing: a line tells what came of it."""

    def doing(self, text: str) -> None:
        """Nothing."""

    def done(self, tried: Tried) -> None:
        if tried.status != "skipped":  # of these the summary tells
            self.say(told(tried))


class _Bar:
    """A bar on the terminal, with a line above it for each candidate that is done."""

    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._task = bar.add_task("", total=None, doing="")

    def say(self, text: str) -> None:
        self._bar.console.print(f"paceline: {escape(text)}", highlight=False)

    def begin(self, name: str, done: int, total: int) -> None:
        self._bar.update(self._task, description=escape(name), completed=done, total=total, doing="")

    def doing(self, text: str) -> None:
        self._bar.update(self._task, doing=escape(text.strip()[:60]))

    def done(self, tried: Tried) -> None:
        self._bar.update(self._task, advance=1, doing="")
        if tried.status != "skipped":
            self.say(told(tried))


def told(tried: Tried) -> str:
    """What came of a candidate, in a line."""
    name, speed = tried.candidate.name, tried.speeds[0] if tried.speeds else None
    if tried.status == "baseline" and speed is not None:
        return f"{name}: {MILLISECONDS.plain(speed.median_s * 1e3)} for {words.rows_text(speed.batch)}"
    if tried.status == "accepted" and speed is not None:
        quality = "" if tried.judgement is None else f"; {tried.judgement.reason}"
        return f"{name}: {speed.ratio:.2f} times as fast{quality}"
    return f"{name}: {tried.status}: {tried.reasons[0] if tried.reasons else ''}"
