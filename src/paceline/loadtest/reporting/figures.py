"""Which pictures show what a load test has found?

Rules:
- Steps are compared over users if all of them are closed loops, else over the offered rate of the open ones.
- A picture that would show nothing is left out: of server timings that no answer had, of a comparison of one step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from paceline.loadtest.histogram import RATIO
from paceline.loadtest.result import PERCENTILES, Latency, Result, Slo, StepResult
from paceline.reports.charts import (
    Axis,
    Bar,
    BarGroup,
    Chart,
    Limit,
    Mark,
    Panel,
    Series,
    Span,
    bar_chart,
    column_chart,
    histogram,
    line_chart,
    panels_chart,
)
from paceline.reports.units import COUNT, MILLISECONDS, NUMBER, PER_SECOND, PERCENT, SECONDS, UNKNOWN, Unit

_COLUMNS: Final = 48
_MOST_BATCH_SIZES: Final = 64
_SPREAD: Final = 40.0  # slowest to fastest: from there on a linear axis shows the slowest alone
_NEAR: Final = 0.4
_TIME: Final = Axis("Time", SECONDS)
_LATENCY: Final = Axis("Response time", MILLISECONDS)
_RATE: Final = Axis("Requests per second", PER_SECOND)
_PERCENTILES: Final = (("p50", "p50_ms", "green"), ("p90", "p90_ms", "blue"), ("p99", "p99_ms", "orange"))
_TAIL: Final = tuple((percent, field) for field, percent in PERCENTILES.items())
_MARKED: Final = (("p50", "p50_ms"), ("p90", "p90_ms"), ("p99", "p99_ms"), ("p99.9", "p999_ms"))
_ENOUGH_FOR_P999: Final = 1000


class _Nines(Unit):
    """1 / (1 - share), so that 99 % and 99.9 % are as far apart as 90 % and 99 %."""

    def text(self, value: float | None) -> str:
        return UNKNOWN if value is None else PERCENT.text(1.0 - 1.0 / value)


def response_time(result: Result) -> Chart | None:
    """Percentiles against users or rate."""
    steps, x = compared(result)
    if not any(step.latency.count for step in steps):
        return None
    series = [
        Series(name, [(_x(step), getattr(step.latency, field)) for step in steps], tone=tone)
        for name, field, tone in _PERCENTILES
    ]
    return line_chart(
        f"Response time by {_words(x)}", series, x=x, y=_times(_LATENCY.label, series), limits=slo_limits(result.slo)
    )


def throughput(result: Result) -> Chart | None:
    """Answers per second against users or rate."""
    steps, x = compared(result)
    if not steps:
        return None
    series = []
    if any(step.users is None for step in steps):
        offered = [(_x(step), step.offered_rate) for step in steps]
        series.append(Series("offered", offered, expected=True, tone="gray"))
    series.append(Series("answered", [(_x(step), step.rate) for step in steps], tone="blue"))
    if any(step.goodput is not None for step in steps):
        series.append(Series("within the SLO", [(_x(step), step.goodput) for step in steps], tone="green"))
    if any(step.errors for step in steps):
        failed = [(_x(step), step.failed / step.duration_s if step.duration_s else None) for step in steps]
        series.append(Series("failed", failed, tone="red"))
    return line_chart(f"Throughput by {_words(x)}", series, x=x, y=_RATE)


def server_times(result: Result) -> Chart | None:
    """Medians of the client's and the server's times against users or rate."""
    steps, x = compared(result)
    if not any(step.queue or step.infer for step in steps):
        return None
    series = [
        Series("client", [(_x(step), step.latency.p50_ms) for step in steps], tone="blue"),
        Series("server: queue", [(_x(step), _median(step.queue)) for step in steps], tone="orange"),
        Series("server: infer", [(_x(step), _median(step.infer)) for step in steps], tone="green"),
    ]
    return line_chart(
        "Where the time goes",
        series,
        x=x,
        y=_times("Median", series),
        note="The client's time less the server's is the network, the protocol and the client.",
    )


def batch_growth(result: Result) -> Chart | None:
    """The mean batch against users or rate."""
    steps, x = compared(result)
    means = [(_x(step), step.mean_batch_rows) for step in steps]
    if not any(mean for _, mean in means):
        return None
    return line_chart(
        f"Rows in a batch by {_words(x)}", [Series("mean", means, tone="purple")], x=x, y=Axis("Mean rows", NUMBER)
    )


def distribution(step: StepResult) -> Chart | None:
    """The histogram of the response times, its percentiles marked."""
    buckets = coarse(step.histogram, _COLUMNS)
    whole = sum(count for _, _, count in buckets)
    if not whole:
        return None
    found = [(name, getattr(step.latency, field)) for name, field in _MARKED]
    if step.latency.count < _ENOUGH_FOR_P999:
        found = found[:-1]
    return histogram(
        "Response times",
        [(low, high, count / whole) for low, high, count in buckets],
        x=Axis(_LATENCY.label, MILLISECONDS, "log"),
        y=Axis("Share of the answers", PERCENT),
        marks=[Mark(value, f"{name} {MILLISECONDS.text(value)}") for name, value in found if value],
        note=f"{step.latency.count:,} answers; the slowest took {MILLISECONDS.text(step.latency.max_ms)}.",
    )


def time_line(step: StepResult, slo: Slo | None) -> Chart | None:
    """What was answered and what failed, above how long it took."""
    if len(step.timeline) < 2:
        return None
    at = [instant.at_s for instant in step.timeline]
    rates = [Series("answered", _along(at, [each.answered for each in step.timeline]), filled=True, tone="blue")]
    if any(each.failed for each in step.timeline):
        rates.append(Series("failed", _along(at, [each.failed for each in step.timeline]), filled=True, tone="red"))
    times = [
        Series("p50", _along(at, [each.p50_ms for each in step.timeline]), tone="green"),
        Series("p99", _along(at, [each.p99_ms for each in step.timeline]), tone="orange"),
    ]
    warm = at[0] < 0.0
    return panels_chart(
        "Time line",
        [Panel(rates, _RATE, height=96.0), Panel(times, _LATENCY, slo_limits(slo), height=132.0)],
        x=_TIME,
        spans=[Span(at[0], 0.0, "warm-up")] if warm else [],
        note="Shaded: the warm-up, which counts nowhere else." if warm else "",
    )


def batches(step: StepResult) -> Chart | None:
    """How many answers came from batches of each size."""
    if not step.batch_rows:
        return None
    whole = sum(step.batch_rows.values())
    sizes = _together(step.batch_rows, _MOST_BATCH_SIZES)
    mean = step.mean_batch_rows or 0.0
    return column_chart(
        "Batch sizes",
        [(name, count / whole) for name, count in sizes],
        x=Axis("Rows in the batch that answered"),
        y=Axis("Share of the answers", PERCENT),
        tone="purple",
        note=f"An answer came from a batch of {mean:.3g} rows, on average.",
    )


def split(step: StepResult) -> Chart | None:
    """The server's times beside the client's, at the median and at the end of the tail."""
    if step.queue is None and step.infer is None:
        return None
    rows = (
        ("client", step.latency, "blue"),
        ("server: queue", step.queue, "orange"),
        ("server: infer", step.infer, "green"),
    )
    groups = [
        BarGroup(name, [Bar(who, getattr(times, field), tone=tone) for who, times, tone in rows if times])
        for name, field in (("p50", "p50_ms"), ("p99", "p99_ms"))
    ]
    return bar_chart(
        "The client's time and the server's",
        groups,
        axis=Axis("Time", MILLISECONDS),
        note="Percentiles do not add up: the slowest to wait are not the slowest to compute.",
    )


def errors(step: StepResult) -> Chart | None:
    """Failed requests by what went wrong."""
    if not step.errors:
        return None
    bars = [
        Bar(kind, count, f"{count:,} ({PERCENT.text(count / step.requests)})", tone="red")
        for kind, count in step.errors.items()
    ]
    return bar_chart("Failed requests", [BarGroup("", bars)], axis=Axis("Requests", COUNT))


def tails(result: Result, most: int = 6) -> Chart | None:
    """How much longer the slowest take: percentiles, with as much room for each nine, of a few steps."""
    steps = [step for step in compared(result)[0] if step.latency.count]
    if not steps:
        return None
    every = math.ceil(len(steps) / most)
    series = [Series(step.label, _tail(step)) for step in reversed(steps[::-1][::every])]
    return line_chart(
        "The tail",
        series,
        x=Axis(
            "Share of the answers that are faster",
            _Nines(()),
            "log",
            ticks=[_nines(percent) for percent, _ in _TAIL if percent != 95.0],
        ),
        y=_times(_LATENCY.label, series),
        limits=slo_limits(result.slo),
    )


def compared(result: Result) -> tuple[list[StepResult], Axis]:
    """The steps that stand in one picture, in its order, and its axis; no steps if fewer than two could.

    Of steps with the same load, as a search for the capacity repeats them, the one with the slowest tail stands.
    """
    closed = [step for step in result.steps if step.users is not None]
    all_closed = len(closed) == len(result.steps)
    worst: dict[str, StepResult] = {}
    for step in closed if all_closed else [step for step in result.steps if step.users is None]:
        worst[step.label] = max(worst.get(step.label, step), step, key=lambda each: each.latency.p99_ms or math.inf)
    steps = sorted(worst.values(), key=_x)
    axis = Axis("Users", COUNT, "category") if all_closed else _rates(steps)
    return (steps if len({_x(step) for step in steps}) > 1 else []), axis


def _rates(steps: Sequence[StepResult]) -> Axis:
    """From nought, unless all the rates are so near to one another that they could not be told apart."""
    near = bool(steps) and steps[0].offered_rate > _NEAR * steps[-1].offered_rate
    return Axis("Offered requests per second", PER_SECOND, zero=not near)


def slo_limits(slo: Slo | None) -> list[Limit]:
    """The line of an SLO."""
    return [Limit(slo.latency_ms, promise(slo))] if slo else []


def promise(slo: Slo) -> str:
    """An SLO, as one says it."""
    return f"p{slo.percentile:g} \u2264 {MILLISECONDS.text(slo.latency_ms)}"


def coarse(buckets: Sequence[tuple[float, int]], most: int) -> list[tuple[float, float, int]]:
    """(low, high, count) in at most so many columns of equal ratio, from buckets of `LatencyHistogram`."""
    if not buckets:
        return []
    low, high = buckets[0][0] / RATIO, buckets[-1][0]
    steps = max(1, round(math.log(high / low) / math.log(RATIO)))
    each = math.ceil(steps / most)  # whole buckets in each column: else some look fuller than their neighbors
    counts = [0] * math.ceil(steps / each)
    for bound, count in buckets:
        place = round(math.log(bound / low) / math.log(RATIO)) - 1
        counts[min(place // each, len(counts) - 1)] += count
    return [(low * RATIO ** (i * each), low * RATIO ** ((i + 1) * each), count) for i, count in enumerate(counts)]


def _together(counts: dict[int, int], most: int) -> list[tuple[str, int]]:
    """A column for every size up to the largest, or for ranges of sizes if there are many."""
    largest = max(counts)
    each = math.ceil(largest / most)
    columns = [0] * math.ceil(largest / each)
    for rows, count in counts.items():
        columns[(rows - 1) // each] += count
    names = [str(i + 1) if each == 1 else f"{i * each + 1}\u2013{(i + 1) * each}" for i in range(len(columns))]
    return list(zip(names, columns, strict=True))


def _x(step: StepResult) -> float:
    return float(step.users if step.users is not None else step.offered_rate)


def _words(x: Axis) -> str:
    return "users" if x.kind == "category" else "offered rate"


def _times(label: str, series: Sequence[Series]) -> Axis:
    """An axis of times, on which the fastest can be told apart as well as the slowest."""
    values = [y for each in series for _, y in each.points if y]
    wide = bool(values) and max(values) > _SPREAD * min(values)
    return Axis(f"{label}, logarithmic", MILLISECONDS, "log") if wide else Axis(label, MILLISECONDS)


def _median(times: Latency | None) -> float | None:
    return times.p50_ms if times else None


def _along(at: Sequence[float], values: Sequence[float | None]) -> list[tuple[float, float | None]]:
    return list(zip(at, values, strict=True))


def _tail(step: StepResult) -> list[tuple[float, float | None]]:
    """Without what too few answers tell."""
    seen = [(percent, field) for percent, field in _TAIL if step.latency.count * (100.0 - percent) >= 100.0]
    return [(_nines(percent), getattr(step.latency, field)) for percent, field in seen or _TAIL[:1]]


def _nines(percent: float) -> float:
    return 100.0 / (100.0 - percent)
