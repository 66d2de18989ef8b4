"""What do those who look on see while a load test runs?

On a terminal the numbers of this second (`screen.py`), elsewhere a line for each step and one now and then, or nothing.
All of it goes to stderr.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Final

from paceline.loadtest.reporting.table import error_text
from paceline.loadtest.result import StepResult
from paceline.loadtest.samples import Samples
from paceline.loadtest.steps import Step
from paceline.loadtest.tally import Tally
from paceline.loadtest.target import Target
from paceline.loadtest.view import QuietView, View
from paceline.reports.units import MILLISECONDS, PER_SECOND

_LINE_S: Final = 10.0


class LineView(QuietView):
    """A line for each step, and one every ten seconds of a long one."""

    def __init__(self) -> None:
        self._whole_s = 0.0
        self._warmup_s = 0.0
        self._label = ""
        self._next_s = _LINE_S

    def began(self, step: Step, label: str, pid: int) -> None:
        self._warmup_s, self._whole_s = step.warmup_s, step.warmup_s + step.duration_s
        self._label, self._next_s = label, _LINE_S

    def progress(self, tally: Tally, samples: Samples | None, elapsed_s: float) -> None:
        if elapsed_s < self._next_s:
            return
        self._next_s += _LINE_S
        counted_s = max(elapsed_s - self._warmup_s, 1e-9)
        p50_ms, p99_ms = (tally.latency.percentile(percent) * 1e3 for percent in (50, 99))
        told = _told(tally.latency.count / counted_s, p50_ms, p99_ms, tally.errors)
        _say(f"{self._label}, {elapsed_s:.0f} of {self._whole_s:.0f} s: {told}")

    def finished(self, result: StepResult) -> None:
        _say(f"{result.label}: {_told(result.rate, result.latency.p50_ms, result.latency.p99_ms, result.errors)}")


def view_for(target: Target, *, quiet: bool, live: bool, may_change: bool) -> AbstractContextManager[View]:
    """What fits to where stderr goes.

    Args:
        quiet: nothing but errors is wanted.
        live: a view that changes is wanted, where there is a terminal for it.
        may_change: keys may change the load.
    """
    if quiet:
        return nullcontext(QuietView())
    if not live or not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        return nullcontext(LineView())
    from paceline.loadtest.terminal.screen import LiveView  # a terminal library takes its time to load

    return LiveView(target, may_change=may_change)


def _told(rate: float, p50_ms: float | None, p99_ms: float | None, errors: Mapping[str, int]) -> str:
    times = f"p50 {MILLISECONDS.text(p50_ms)}, p99 {MILLISECONDS.text(p99_ms)}"
    return ", ".join(filter(None, (PER_SECOND.text(rate), times, error_text(errors))))


def _say(text: str) -> None:
    sys.stderr.write(f"paceline: {text}\n")
    sys.stderr.flush()
