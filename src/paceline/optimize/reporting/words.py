"""What stands in the table of candidates, and in the sentences about it, in every kind of report?

Rules:
- A gain is of the candidate over the original: negative is worse, whichever way the metric goes.
- Costs are of a machine that does nothing else, with as many instances as its cores have room for.
- What was skipped is told once: with its reason, or, where that was the time, in one line for all of them.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from paceline.loadtest.quantities import parse_duration
from paceline.optimize.judging.metrics import METRICS
from paceline.optimize.measure import WORTH_IT
from paceline.optimize.result import Equality, Judgement, Speed, Study, Tried
from paceline.optimize.search import pareto
from paceline.reports.units import BYTES, MILLISECONDS, PER_SECOND, UNKNOWN, Unit

CHOSEN: Final = "\u2605"
MINUS: Final = "\u2212"
_ORDER: Final = ("baseline", "accepted", "rejected", "failed", "skipped")
_BUDGETS: Final = ("15s", "30s", "1m", "2m", "5m", "10m", "20m", "30m", "1h", "2h", "5h", "10h")
_LEAST_MORE: Final = 2.0  # combinations follow, which nobody has foreseen
_RATIO: Final = "\u00d7"
_SECONDS_PER_HOUR: Final = 3600.0
_MILLION: Final = 1e6


class _Quality(Unit):
    """Four digits: what a gate allows is a small part of a metric."""

    def text(self, value: float | None) -> str:
        return UNKNOWN if value is None else f"{value:.4g}"


QUALITY: Final = _Quality(((1.0, ""),))


def ordered(study: Study) -> list[Tried]:
    """The original, what was accepted by speed, and what was not; without what there was no time for."""

    def place(tried: Tried) -> tuple[int, float]:
        speed = at(tried, study.batch)
        return _ORDER.index(tried.status), -speed.ratio if speed else 0.0

    return sorted((each for each in study.candidates if each.foreseen_s is None), key=place)


def tried(study: Study) -> list[Tried]:
    """The same without what was skipped: of that there are no numbers."""
    return [each for each in ordered(study) if each.status != "skipped"]


def refused(study: Study) -> list[Tried]:
    """Those of which it is to be told why."""
    return [each for each in ordered(study) if each.status in ("rejected", "failed", "skipped")]


def late(study: Study) -> list[Tried]:
    """What there was no time for."""
    return [each for each in study.candidates if each.foreseen_s is not None]


def chosen(study: Study) -> Tried | None:
    """What the bundle holds."""
    return next((each for each in study.candidates if each.candidate.name == study.chosen), None)


def baseline(study: Study) -> Tried | None:
    """The model as it came."""
    return next((each for each in study.candidates if each.status == "baseline"), None)


def at(tried: Tried, batch: int) -> Speed | None:
    """How fast it is with such batches."""
    return next((speed for speed in tried.speeds if speed.batch == batch), None)


def batches(study: Study) -> list[int]:
    """The sizes that were measured, the operating one first."""
    found = {speed.batch for each in study.candidates for speed in each.speeds}
    return sorted(found, key=lambda batch: (batch != study.batch, batch))


def metric_title(study: Study) -> str:
    """Of the metric, for people."""
    metric = METRICS.get(study.metric)
    return metric.title if metric else study.metric


def original_value(study: Study) -> float | None:
    """The metric of the model as it came, as the gate had it."""
    return next((each.judgement.old for each in study.candidates if each.judgement), None)


def columns(study: Study) -> list[str]:
    """The headings; the first two columns are words, the others numbers."""
    return [column.heading for column in _columns(study)]


def rows(study: Study, candidates: Sequence[Tried]) -> list[list[str]]:
    """A row for each of the candidates, in the order of `columns`."""
    return [[column.of(each) for column in _columns(study)] for each in candidates]


def headline(study: Study) -> str:
    """What was chosen, in one sentence."""
    best, first = chosen(study), baseline(study)
    if _is_untried(study):
        return f"Nothing was tried: the budget went on the original: {more_time(study)}"
    if best is None or best.status == "baseline":
        return "Nothing was faster and as good: the original is served as it came"
    speed, old = at(best, study.batch), at(first, study.batch) if first else None
    if speed is None:
        return f"{best.candidate.name} is chosen"
    was = f"{MILLISECONDS.text(old.median_s * 1e3)} \u2192 " if old else ""
    return (
        f"{best.candidate.name} is {ratio_text(speed.ratio)} as fast as the original, at {rows_text(study.batch)} "
        f"({was}{MILLISECONDS.text(speed.median_s * 1e3)})"
    )


def sentences(study: Study) -> Iterator[str]:
    """What supports it: the gate's words, the conversion, what was left out."""
    best = chosen(study)
    if best and best.judgement:
        yield best.judgement.reason
    if best and best.candidate.needs and best.status == "accepted":
        yield f"{best.candidate.title}: {best.candidate.needs}"
    if best and best is not pareto.fastest(study.candidates, study.batch):
        yield _choice(study, best)
    if study.equality:
        yield equality_text(study.equality)
    counts = {status: sum(each.status == status for each in ordered(study)) for status in _ORDER[1:]}
    parts = [f"{count} {status}" for status, count in counts.items() if count]
    if parts:
        yield f"candidates: {', '.join(parts)}"
    if late(study) and not _is_untried(study):
        yield f"{len(late(study))} skipped for lack of time: {more_time(study)}"


def more_time(study: Study) -> str:
    """The flag with which there is time for what there was none for."""
    wanted_s = study.took_s + sum(each.foreseen_s or 0.0 for each in study.candidates)
    wanted_s = max(wanted_s, _LEAST_MORE * study.budget_s)
    return f"--budget {next((each for each in _BUDGETS if parse_duration(each) >= wanted_s), _BUDGETS[-1])}"


def _is_untried(study: Study) -> bool:
    """True when there was no time for anything but the original."""
    return bool(late(study)) and not any(each.status != "baseline" for each in tried(study))


def _choice(study: Study, best: Tried) -> str:
    """Why it is not the fastest that is served."""
    first = pareto.fastest(study.candidates, study.batch).candidate.name
    why = "answers as the original does" if pareto.answers_as_before(best) else "is better"
    near = f"{first} is faster by no more than {100.0 * (WORTH_IT - 1.0):.0f} %"
    return f"{near}: {best.candidate.name} is chosen, which {why}"


def equality_text(equality: Equality) -> str:
    """How the model in ONNX compares with its library's own answers."""
    start = f"in ONNX, {equality.rows:,} rows were compared with the library's own answers"
    largest = f"numbers by {equality.largest_relative:.2g} at most, those over 1 relative to their size"
    if not equality.rows_apart:
        return f"{start}: all within {equality.tolerance:g} ({largest})"
    apart = []
    if equality.labels_apart:
        apart.append(f"{equality.labels_apart:,} differ in a label")
    if equality.numbers_apart:
        apart.append(f"{equality.numbers_apart:,} differ in a number by more than {equality.tolerance:g}")
    ties = f"; {equality.ties:,} of these rows are ties, on a tree's threshold" if equality.ties else ""
    return f"{start}: {' and '.join(apart)}{ties} ({largest})"


def why(tried: Tried) -> str:
    """Why it is not what was chosen, or what is to be known of it."""
    reasons = list(tried.reasons)
    if tried.judgement and not any(tried.judgement.reason in reason for reason in reasons):
        reasons.append(tried.judgement.reason)
    return "; ".join(reasons) or tried.candidate.needs


def next_step(study: Study, out: Path) -> str:
    """What to type now."""
    best = chosen(study)
    leave = " --allow-pickle" if best and best.candidate.native and study.source.get("allow_pickle") else ""
    return f"paceline serve {shlex.quote(str(out))}{leave}"


def cost(study: Study, tried: Tried) -> float | None:
    """Of a million predictions, in the money of the price; None: it is not known."""
    speed = at(tried, study.batch)
    if study.price_per_hour is None or speed is None or speed.rows_per_s <= 0.0:
        return None
    rate = speed.rows_per_s * instances(study, speed)
    return study.price_per_hour / _SECONDS_PER_HOUR / rate * _MILLION


def instances(study: Study, speed: Speed) -> int:
    """How many fit onto the cores."""
    cores = study.machine.get("cores")
    return max(1, int(cores) // speed.threads) if isinstance(cores, int | float) else 1


def money(value: float | None) -> str:
    """Without a currency: it is that of the price that was given."""
    return UNKNOWN if value is None else f"{value:.3g}"


def ratio_text(ratio: float) -> str:
    """Such as 2.61x."""
    return f"{ratio:.3g}{_RATIO}"


def rows_text(count: int) -> str:
    """Such as `1 row`."""
    return f"{count} row{'' if count == 1 else 's'}"


def size_text(size_bytes: int | None) -> str:
    """Such as 4.2 MB."""
    return BYTES.text(size_bytes)


def gain_text(judgement: Judgement | None) -> str:
    """Such as `-0.28 (-0.92 to +0.35) points`."""
    if judgement is None:
        return UNKNOWN
    metric = METRICS.get(judgement.metric)
    scale, unit = (100.0, " points") if metric and metric.in_points else (1.0, "")
    seen, low, high = (_signed(each * scale) for each in (judgement.difference, judgement.low, judgement.high))
    return f"{seen}{unit}" if judgement.low == judgement.high else f"{seen} ({low} to {high}){unit}"


def _signed(value: float) -> str:
    text = f"{abs(value):.2g}" if abs(value) >= 0.005 or value == 0.0 else "0.00"
    return text if value == 0.0 else f"{'+' if value > 0.0 else MINUS}{text}"


class _Column(NamedTuple):
    heading: str
    of: Callable[[Tried], str]


def _columns(study: Study) -> Sequence[_Column]:
    old = original_value(study)

    def quality(tried: Tried) -> str:
        return QUALITY.text(tried.judgement.new if tried.judgement else old if tried.status == "baseline" else None)

    def median(batch: int) -> Callable[[Tried], str]:
        def of(tried: Tried) -> str:
            speed = at(tried, batch)
            return MILLISECONDS.text(speed.median_s * 1e3) if speed else UNKNOWN

        return of

    def ratio(tried: Tried) -> str:
        speed = at(tried, study.batch)
        return ratio_text(speed.ratio) if speed else UNKNOWN

    def rate(tried: Tried) -> str:
        return PER_SECOND.text(max((speed.rows_per_s for speed in tried.speeds), default=None))

    found = [
        _Column("candidate", lambda each: f"{each.candidate.name}{f' {CHOSEN}' if each is chosen(study) else ''}"),
        _Column("status", lambda each: each.status),
        _Column(metric_title(study), quality),
        _Column("gain (95 %)", lambda each: gain_text(each.judgement)),
        *(_Column(rows_text(batch), median(batch)) for batch in batches(study)),
        _Column("speed", ratio),
        _Column("most rows", rate),
        _Column("size", lambda each: size_text(each.size_bytes)),
    ]
    if study.price_per_hour is not None:
        found.append(_Column("cost per million", lambda each: money(cost(study, each))))
    return found
