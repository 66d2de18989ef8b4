"""Which pictures show what a study has found?

Rules:
- Only what was timed can be drawn: what the gate refused is in the table.
- A picture that would show one thing alone is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from paceline.optimize.judging.metrics import METRICS
from paceline.optimize.reporting import words
from paceline.optimize.result import Study, Tried
from paceline.reports.charts import (
    Axis,
    Bar,
    BarGroup,
    Chart,
    Dot,
    DotGroup,
    Limit,
    Series,
    bar_chart,
    line_chart,
    scatter_chart,
)
from paceline.reports.units import COUNT, MILLISECONDS, NUMBER, PER_SECOND, RATIO

_SPREAD: Final = 4.0  # slowest to fastest: from there on times are read by their ratio
_MOST_LINES: Final = 6
_MOST_BARS: Final = 14
_TONES: Final = ("blue", "orange", "purple", "gold", "sky", "red")


def quality(study: Study) -> Chart | None:
    """The metric against the median time, with the Pareto front and the least that is allowed."""
    old = words.original_value(study)
    timed = [each for each in words.ordered(study) if words.at(each, study.batch)]
    if old is None or len(timed) < 2:
        return None
    groups = [
        DotGroup("original", _dots(study, timed, "baseline", old), tone="gray", shape=1),
        DotGroup("accepted", _dots(study, timed, "accepted", old), tone="accent", shape=0),
        DotGroup("not fast enough", _dots(study, timed, "rejected", old), tone="orange", shape=3, hollow=True),
    ]
    front = sorted((dot.x, dot.y) for each in groups for dot in each.dots if _is_on_front(study, dot.name))
    times = [dot.x for each in groups for dot in each.dots]
    wide = max(times) > _SPREAD * min(times)
    joined = " The dashed line joins those that none beats in both: the Pareto front." if len(front) > 1 else ""
    metric = METRICS.get(study.metric)
    less = "" if metric is None or metric.falls else ", less is better"
    return scatter_chart(
        f"{words.metric_title(study)} against time".capitalize(),
        groups,
        x=Axis(f"Median of a run, {words.rows_text(study.batch)}", MILLISECONDS, "log" if wide else "linear"),
        y=Axis(f"{words.metric_title(study)}{less}", words.QUALITY),
        front=front,
        limits=_limits(study, old),
        note=f"Further left is faster. Bars are 95 % intervals, which have to end short of what is allowed.{joined}",
    )


def throughput(study: Study) -> Chart | None:
    """Rows per second by batch, of the original and the fastest."""
    sizes = sorted(words.batches(study))
    able = [each for each in words.ordered(study) if each.status in ("baseline", "accepted")]
    if len(sizes) < 2 or not able:
        return None
    series, tones = [], iter(_TONES)
    for each in able[:_MOST_LINES]:
        speeds = {speed.batch: speed.rows_per_s for speed in each.speeds}
        points = [(float(size), speeds.get(size)) for size in sizes]
        strong = each.candidate.name == study.chosen
        tone = "gray" if each.status == "baseline" else "accent" if strong else next(tones)
        series.append(Series(each.candidate.name, points, expected=each.status == "baseline", strong=strong, tone=tone))
    rates = [rate for each in series for _, rate in each.points if rate]
    wide = max(rates) > 10 * _SPREAD * min(rates)
    return line_chart(
        "Throughput by batch",
        series,
        x=Axis("Rows in a run", COUNT, "category"),
        y=Axis(f"Rows per second{', logarithmic' if wide else ''}", PER_SECOND, "log" if wide else "linear"),
        note="Of one instance.",
    )


def ratios(study: Study) -> Chart | None:
    """How many times as fast as the original each is, at each batch."""
    able = [each for each in words.ordered(study) if each.status != "baseline" and each.speeds]
    if not able:
        return None
    groups = []
    for batch in words.batches(study):
        found = [(each, words.at(each, batch)) for each in able]
        bars = [
            Bar(
                each.candidate.name,
                speed.ratio,
                tone="accent" if each.status == "accepted" else "orange",
                strong=each.candidate.name == study.chosen,
            )
            for each, speed in found
            if speed is not None
        ]
        groups.append(BarGroup(f"at {words.rows_text(batch)}", bars[:_MOST_BARS]))
    return bar_chart(
        "Times as fast as the original",
        [group for group in groups if group.bars],
        axis=Axis("Ratio of medians", RATIO),
        shared=False,
        note="Runs of the two alternate, so that what disturbs the machine disturbs both.",
    )


def costs(study: Study) -> Chart | None:
    """What a million predictions cost."""
    able = [each for each in words.ordered(study) if each.status in ("baseline", "accepted")]
    found = [(each, words.cost(study, each)) for each in able]
    bars = [
        Bar(
            each.candidate.name,
            value,
            tone="accent" if each.status == "accepted" else "",
            strong=each.candidate.name == study.chosen,
        )
        for each, value in found
        if value is not None
    ]
    if not bars:
        return None
    return bar_chart(
        "Cost of a million predictions",
        [BarGroup("", bars[:_MOST_BARS])],
        axis=Axis("Cost", NUMBER),
        note=f"At {study.price_per_hour:g} an hour for the machine, all of its cores busy with runs of "
        f"{words.rows_text(study.batch)}.",
    )


def _dots(study: Study, timed: Sequence[Tried], status: str, old: float) -> list[Dot]:
    dots = []
    for each in timed:
        speed = words.at(each, study.batch)
        if each.status != status or speed is None:
            continue
        value = each.judgement.new if each.judgement else old
        note = f"{words.ratio_text(speed.ratio)} as fast; gain {words.gain_text(each.judgement)}"
        low, high = _interval(each, old)
        name = each.candidate.name
        dots.append(Dot(name, speed.median_s * 1e3, value, low, high, note, strong=name == study.chosen))
    return dots


def _interval(tried: Tried, old: float) -> tuple[float | None, float | None]:
    """In the metric's units; nothing for one whose answers are the original's."""
    said = tried.judgement
    if said is None or said.low == said.high:
        return None, None
    metric = METRICS.get(said.metric)
    sign = 1.0 if metric is None or metric.falls else -1.0
    ends = old + sign * said.low, old + sign * said.high
    return min(ends), max(ends)


def _is_on_front(study: Study, name: str) -> bool:
    return any(each.on_front and each.candidate.name == name for each in study.candidates)


def _limits(study: Study, old: float) -> list[Limit]:
    """The value of the metric that none may fall below: the interval's end has to be above it."""
    judged = next((each.judgement for each in study.candidates if each.judgement), None)
    metric = METRICS.get(study.metric)
    if judged is None or metric is None:
        return []
    return [Limit(old - judged.allowed if metric.falls else old + judged.allowed, "allowed")]
