"""What does a load test look like on a terminal while it runs?

Rules:
- Drawn four times a second on stderr, and gone at the end: the result goes to stdout.
- It fits into the terminal: where that is low, the oldest finished steps are left out.
- The keys, and the terminal as it was, are `Keys`' business.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import TracebackType
from typing import Final

import numpy as np
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from paceline.loadtest.histogram import LatencyHistogram
from paceline.loadtest.reporting.table import error_text
from paceline.loadtest.result import StepResult, mean_size
from paceline.loadtest.samples import Outcome, Samples
from paceline.loadtest.steps import Step
from paceline.loadtest.tally import Tally
from paceline.loadtest.target import Target
from paceline.loadtest.terminal.keys import Keys
from paceline.loadtest.terminal.recent import PERCENTS, WINDOW_S, CpuShare, Recent, percentiles_ms
from paceline.loadtest.terminal.summary import as_table
from paceline.reports.units import COUNT, MILLISECONDS, PER_SECOND, PERCENT, UNKNOWN

_REDRAW_S: Final = 0.25
_BLOCKS: Final = " ▁▂▃▄▅▆▇█"
_ASCII: Final = " .:-=+*#@"
_BARS: Final = 40
_PROGRESS: Final = 30
_ROWS_OF_STEP: Final = 18  # of everything but the finished steps
_KEPT: Final = 20
_HEADINGS: Final = ("", "answered", "failed", *(f"p{percent:g}" for percent in PERCENTS), "max")


class LiveView:
    """A view that draws the present second.

    Args:
        may_change: the keys + and - change the load.
        console: where it is drawn.
    """

    def __init__(self, target: Target, *, may_change: bool, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False)
        self.may_change = may_change
        self._title = Text.assemble((target.url, "bold"), f"  {target.model} ({target.protocol})")
        self._live = Live(
            console=self._console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False
        )
        self._keys = Keys(left=self._leave, back=self._come_back)
        self._finished: list[StepResult] = []
        self._bars = _BLOCKS if self._console.encoding.startswith("utf") else _ASCII
        self._step: Step | None = None
        self._label = ""
        self._recent = Recent()
        self._cpu: CpuShare | None = None
        self._next_s = 0.0

    def __enter__(self) -> LiveView:
        self._keys.__enter__()
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        try:
            self._live.stop()
        finally:
            self._keys.__exit__(kind, error, tb)

    def began(self, step: Step, label: str, pid: int) -> None:
        self._step, self._label, self._next_s = step, label, 0.0
        self._recent, self._cpu = Recent(), CpuShare(pid)

    def progress(self, tally: Tally, samples: Samples | None, elapsed_s: float) -> None:
        self._recent.add(samples, elapsed_s)
        if elapsed_s >= self._next_s:
            self._next_s = elapsed_s + _REDRAW_S
            self._live.update(self._drawn(tally, elapsed_s), refresh=True)

    def changed(self, label: str) -> None:
        self._label = label
        self._next_s = 0.0

    def finished(self, result: StepResult) -> None:
        self._finished = [*self._finished, result][-_KEPT:]

    def pressed(self) -> str:
        return self._keys.pressed()

    def _leave(self) -> None:
        self._console.show_cursor(True)

    def _come_back(self) -> None:
        self._console.show_cursor(False)

    def _drawn(self, tally: Tally, elapsed_s: float) -> RenderableType:
        parts: list[RenderableType] = [self._title, Text()]
        room = self._console.height - _ROWS_OF_STEP
        if self._finished and room > 1:
            parts += [steps_table(self._finished[-room:]), Text()]
        parts += [self._clock(elapsed_s), Text(), self._numbers(tally, elapsed_s), Text(), self._pictures(tally)]
        if self._keys.are_read:
            change = "+ - load   " if self.may_change else ""
            parts += [Text(), Text(f"{change}n next step   q end", "dim")]
        return Group(*parts)

    def _clock(self, elapsed_s: float) -> RenderableType:
        assert self._step is not None
        warmup_s, duration_s = self._step.warmup_s, self._step.duration_s
        left_s = warmup_s + duration_s - elapsed_s
        state = "warm-up" if elapsed_s < warmup_s else f"{math.ceil(left_s)} s left" if left_s > 0 else "last answers"
        row = Table.grid(padding=(0, 2))
        done = min(elapsed_s, warmup_s + duration_s)
        row.add_row(Text(self._label, "bold"), ProgressBar(warmup_s + duration_s, done, width=_PROGRESS), state)
        return row

    def _numbers(self, tally: Tally, elapsed_s: float) -> RenderableType:
        """The last second beside the whole step."""
        assert self._step is not None
        recent = self._recent.samples()
        window_s = max(min(WINDOW_S, elapsed_s), 0.1)
        counted_s = max(min(elapsed_s - self._step.warmup_s, self._step.duration_s), 0.1)
        ok = recent["outcome"] == Outcome.OK
        now = [
            "last second",
            PER_SECOND.text(float(ok.sum()) / window_s),
            PER_SECOND.text(float((~ok).sum()) / window_s),
            *map(MILLISECONDS.text, percentiles_ms(recent)),
        ]
        times = tally.latency
        whole = [
            "this step",
            PER_SECOND.text(times.count / counted_s),
            PER_SECOND.text(tally.errors.total() / counted_s),
            *(MILLISECONDS.text(times.percentile(percent) * 1e3) for percent in (*PERCENTS, 100.0)),
        ]
        return as_table(_HEADINGS, [now, whole])

    def _pictures(self, tally: Tally) -> RenderableType:
        grid = Table.grid(padding=(0, 2))
        least, most = (MILLISECONDS.text(tally.latency.percentile(percent) * 1e3) for percent in (0.0, 100.0))
        grid.add_row("latency", bars(histogram(tally.latency), self._bars), f"{least} to {most}")
        rates = self._recent.rates[-_BARS:]
        most_rate = PER_SECOND.text(max(rates)) if rates else UNKNOWN
        grid.add_row("rate", bars(rates, self._bars), f"at most {most_rate}")
        server = self._server(tally)
        if server:
            grid.add_row("server", server)
        if self._cpu is not None:
            grid.add_row("client", f"{PERCENT.text(self._cpu.since_last())} of the one core that it can use")
        errors = error_text(dict(tally.errors.most_common(3)))
        grid.add_row("errors", Text(errors or "none", "red" if errors else ""))
        return grid

    def _server(self, tally: Tally) -> str:
        said = []
        if tally.queue.count:
            said.append(f"queue {MILLISECONDS.text(tally.queue.percentile(50) * 1e3)}")
            said.append(f"model {MILLISECONDS.text(tally.infer.percentile(50) * 1e3)}")
        if tally.batch_rows:
            said.append(f"{COUNT.text(mean_size(tally.batch_rows))} rows a batch")
        return ", ".join(said)


def steps_table(steps: Sequence[StepResult]) -> Table:
    """A line for each finished step."""
    return as_table([*_HEADINGS, "client"], map(_row, steps))


def _row(step: StepResult) -> list[str | Text]:
    times = step.latency
    return [
        step.label,
        PER_SECOND.text(step.rate),
        COUNT.text(step.failed),
        *map(MILLISECONDS.text, (times.p50_ms, times.p90_ms, times.p99_ms, times.max_ms)),
        Text(PERCENT.text(step.client.cpu), "yellow" if step.client.bottleneck else ""),
    ]


def histogram(times: LatencyHistogram, width: int = _BARS) -> list[int]:
    """Counts between the minimum and the maximum, in as many steps of equal ratio."""
    buckets = times.buckets()
    if not buckets:
        return []
    bounds = np.log([bound for bound, _ in buckets])
    span = max(bounds[-1] - bounds[0], 1e-9)
    places = np.minimum(((bounds - bounds[0]) / span * width).astype(int), width - 1)
    return [int(count) for count in np.bincount(places, [count for _, count in buckets], minlength=width)]


def bars(values: Sequence[float], blocks: str = _BLOCKS) -> str:
    """One character for each value, as high as its share of the largest; an en dash for none."""
    most = max(values, default=0)
    if not most:
        return UNKNOWN
    # What is there is seen, however small.
    return "".join(blocks[math.ceil(value / most * (len(blocks) - 1))] for value in values)
