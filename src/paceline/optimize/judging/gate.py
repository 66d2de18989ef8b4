"""Is a candidate still as good as the original? It has to be shown; not showing the opposite is not enough.

Rules:
- A candidate is accepted when the lower end of the 95 % interval of its difference to the original, on the same rows,
  lies above the drop that is allowed. So one whose true drop is not allowed passes in at most 2.5 % of the cases.
- Too few rows reject what many would accept; it is said how many.
- A candidate that gives the same numbers, but for rounding, is no other model: there is nothing to estimate.
- Without labels the original is taken for the truth, and less is allowed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from paceline.core.errors import ConfigError
from paceline.core.tensors import Array
from paceline.optimize.data.rows import Rows
from paceline.optimize.judging import answers, intervals
from paceline.optimize.judging.answers import Outputs
from paceline.optimize.judging.intervals import Interval
from paceline.optimize.judging.metrics import Metric
from paceline.optimize.judging.paired import Comparison
from paceline.optimize.result import Judgement

LEAST_ROWS: Final = 30
"""With fewer, a bootstrap says nothing."""

_ROUNDING: Final = 1e-5  # of the size of an output: what single precision leaves of many additions
_SEED: Final = 20  # of resamples: a study that is run again judges again as it did
_MOST_TIMES: Final = 1e4
_DROP: Final = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*(%?)")
_HARDLY_MEANT: Final = 0.2
_HARDLY_BETTER: Final = 1.1


@dataclass(frozen=True)
class Drop:
    """How much worse a candidate may be.

    Attributes:
        value: in the metric's units; for a share, 0.01 is 1 %.
        share: of 1 for metrics that end at 1 (accuracy, F1, AUC, R2, agreement, ...), which makes it points; else of
            the original's value.
    """

    value: float
    share: bool

    def allowed(self, metric: Metric, old: float) -> float:
        """In the metric's units; at least 0.

        Raises:
            ConfigError: it is a plain number that was hardly meant as one.
        """
        if not self.share and metric.in_points and self.value >= _HARDLY_MEANT:
            points = f", or {self.value * 100.0:g}%" if self.value < 1.0 else ""
            raise ConfigError(
                f"--max-drop {self.value:g}: a plain number is in the units of {metric.title}, which ends at 1",
                hint=f"write {self.value:g}%{points}, as you mean it",
            )
        return self.value * abs(old) if self.share and not metric.in_points else self.value


LABELLED: Final = Drop(0.01, share=True)
"""What is allowed where nothing is said, with labels."""

UNLABELLED: Final = Drop(0.005, share=True)
"""What is allowed where nothing is said, without."""


def parse_drop(text: str) -> Drop:
    """A drop such as `0.5%` or `0.005`.

    Raises:
        ConfigError: it is none, or is 100 % or more.
    """
    match = _DROP.fullmatch(text.strip())
    if match is None:
        raise ConfigError(f"expected a drop such as 0.5% or 0.005, got {text!r}")
    value = float(match[1])
    if not match[2]:
        return Drop(value, share=False)
    if value >= 100.0:
        raise ConfigError(f"expected a drop below 100%, got {text!r}")
    return Drop(value / 100.0, share=True)


def judge(
    *, old: Outputs, new: Outputs, rows: Rows, metric: Metric, max_drop: Drop | None = None, seed: int = _SEED
) -> Judgement:
    """Compare a candidate's answers with the original's.

    Args:
        old, new: outputs by name, each of shape [rows, ...], of the original and the candidate.
        max_drop: None: `LABELLED` or `UNLABELLED`.

    Raises:
        ConfigError: the metric does not fit the original's answers, or these are not finite.
    """
    check_answers(old, rows)
    drop = max_drop or (LABELLED if metric.labelled else UNLABELLED)
    itself = metric.compare(old, old, rows)
    if not math.isfinite(itself.old):
        raise ConfigError(
            f"{metric.title} is not defined on these {rows.count} rows: are all classes among the labels?"
        )
    allowed = drop.allowed(metric, itself.old)
    if broken := _broken(old, new):
        return _refused(metric, itself, allowed, rows, broken)
    found = metric.compare(old, new, rows)
    # One huge row hides what happens to the others; the metric does not.
    if are_same(old, new) and found.worth >= -max(allowed, 1e-6 * max(abs(found.old), 1.0)):
        return _unchanged(metric, found, allowed, rows)
    return _weighed(metric, found, allowed, rows, seed)


def check_answers(old: Outputs, rows: Rows) -> None:
    """Look at the original's answers before anything is compared with them.

    Raises:
        ConfigError: some are no numbers.
    """
    for name, array in old.items():
        if array.dtype.kind != "f":
            continue
        bad = np.flatnonzero(np.isnan(array.reshape(len(array), -1)).any(axis=1))
        if not len(bad):
            continue
        cause = next((each for each, values in rows.inputs.items() if _is_missing(values, int(bad[0]))), None)
        hint = f"the row's input {cause!r} has missing values: leave such rows out" if cause else None
        raise ConfigError(f"the original answers NaN: {name!r}, in {len(bad):,} of {len(array):,} rows", hint=hint)


def are_same(old: Outputs, new: Outputs) -> bool:
    """Whether all answers are the same, but for rounding: to 1e-5 of the largest number of a column.

    There have to be numbers: that classes are the same on a few rows says little of those on others.
    """
    return bool(answers.find_numbers(old)) and all(_is_same(old[name], new[name]) for name in old)


def advice(old: Outputs, rows: Rows, metric: Metric, max_drop: Drop | None = None) -> list[str]:
    """What to say before any candidate is judged: of missing labels, too few rows, and labels that do not fit."""
    return list(_advice(old, rows, metric, max_drop or (LABELLED if metric.labelled else UNLABELLED)))


def _advice(old: Outputs, rows: Rows, metric: Metric, drop: Drop) -> Iterator[str]:
    if rows.labels is None:
        yield (
            "there are no labels: candidates are compared with the original's answers, not with what is true; "
            "--labels makes the gate fairer"
        )
    itself = metric.compare(old, old, rows)
    allowed = drop.allowed(metric, itself.old)
    least = least_rows(metric, allowed)
    if rows.count < least:
        yield (
            f"{rows.count} rows are few: to accept a candidate that answers at all differently, "
            f"at least {least:,} are needed"
        )
    if metric.name == "accuracy" and rows.labels is not None:
        _, counts = np.unique(answers.as_classes(rows.labels), return_counts=True)
        guessed = float(counts.max() / rows.count)
        if len(counts) > 1 and itself.old < min(_HARDLY_BETTER * guessed, 1.0):
            yield (
                f"the original's accuracy is {itself.old:.3f}, and always saying the most frequent class would be "
                f"{guessed:.3f}: do the labels belong to these rows?"
            )


def least_rows(metric: Metric, allowed: float) -> int:
    """How many rows it takes to accept a candidate that is right in all the same rows."""
    if not metric.counts or not 0.0 < allowed < 1.0:
        return LEAST_ROWS
    if metric.interval == "paired":  # z^2 / (n + z^2) < allowed
        return math.floor(intervals.Z**2 * (1.0 - allowed) / allowed) + 1
    return math.ceil(math.log(0.025) / math.log1p(-allowed)) + 1


def _weighed(metric: Metric, found: Comparison, allowed: float, rows: Rows, seed: int) -> Judgement:
    difference = found.worth
    interval, method = _interval(metric, found, rows.count, seed)
    if not math.isfinite(interval.low):
        why = f"{metric.title} has no interval on these {rows.count:,} rows: a class is too rare"
        return _refused(metric, found, allowed, rows, why)
    enough = metric.counts or rows.count >= LEAST_ROWS
    accepted = enough and interval.low > -allowed
    needed = None
    if not accepted and difference > -allowed:
        needed = _rows_needed(metric, found, difference, interval, allowed, rows.count)
    said = Judgement(
        metric=metric.name,
        labelled=metric.labelled,
        old=found.old,
        new=found.new,
        difference=difference,
        low=interval.low,
        high=interval.high,
        allowed=allowed,
        method=method,
        rows=rows.count,
        accepted=bool(accepted),
        reason="",
        rows_needed=needed,
    )
    said.reason = _reason(metric, said)
    return said


def _interval(metric: Metric, found: Comparison, rows: int, seed: int) -> tuple[Interval, str]:
    if metric.interval == "paired" and found.gained is not None and found.lost is not None:
        changed = f"{found.gained} rows gained, {found.lost} lost"
        return intervals.paired_shares(found.gained, found.lost, rows), f"paired score interval (Tango): {changed}"
    if metric.interval == "share" and found.lost is not None:
        exact = intervals.share(rows - found.lost, rows)
        method = f"exact interval (Clopper-Pearson): {found.lost} rows differ"
        return Interval(exact.low - 1.0, exact.high - 1.0), method
    if metric.interval == "rates":
        interval = intervals.paired_rates(found.old_of, found.new_of, found.rows, seed=seed)
        return (
            interval,
            f"intervals of both by bootstrap of logits, {intervals.RESAMPLES_OF_RATES} resamples, joined (MOVER)",
        )
    interval = intervals.bootstrap(found.difference, found.rows, seed=seed)
    return interval, f"paired bootstrap, {intervals.RESAMPLES:,} resamples"


def _rows_needed(
    metric: Metric, found: Comparison, difference: float, interval: Interval, allowed: float, rows: int
) -> int | None:
    """If more rows were like these: intervals shrink with their root, exact ones as they do."""

    def low_at(times: float) -> float:
        if metric.interval == "paired" and found.gained is not None and found.lost is not None:
            return intervals.paired_shares(found.gained * times, found.lost * times, rows * times).low
        if metric.interval == "share" and found.lost is not None:
            # Beyond some times the rows, the exact interval is Wilson's but for a little, and takes no sums.
            return _wilson_low(rows * times, found.lost * times) - 1.0
        return difference - (difference - interval.low) / math.sqrt(times)

    least = LEAST_ROWS / rows if not metric.counts else 1.0
    times = intervals.factor_needed(low_at, -allowed, _MOST_TIMES)
    return None if times is None else _rounded_up(max(times, least) * rows)


def _wilson_low(rows: float, lost: float) -> float:
    p, z2 = 1.0 - lost / rows, intervals.Z**2
    middle = p + z2 / (2.0 * rows)
    return (middle - intervals.Z * math.sqrt(p * (1.0 - p) / rows + z2 / (4.0 * rows**2))) / (1.0 + z2 / rows)


def _rounded_up(count: float) -> int:
    """To two digits: it is an estimate."""
    size = int(10 ** max(0, math.floor(math.log10(count)) - 1))
    return math.ceil(count / size) * size


def _reason(metric: Metric, said: Judgement) -> str:
    moved = _moved(metric, said.difference)
    limit = _amount(metric, said.allowed)
    limit += " are allowed" if limit.endswith("s") else " is allowed"
    if said.accepted:
        worst = f"is at worst {_amount(metric, max(-said.low, 0.0))} {'lower' if metric.falls else 'higher'}"
        return f"{metric.title} {moved}, and {worst}: {limit}"
    if said.difference <= -said.allowed:
        return f"{metric.title} {moved}, and {limit}"
    if not metric.counts and said.rows < LEAST_ROWS:
        return f"{metric.title} {moved}, on {said.rows} rows: too few, at least {LEAST_ROWS} are needed"
    worst = f"but on {said.rows:,} rows it may fall by {_amount(metric, -said.low)}, and {limit}"
    if not metric.falls:
        worst = worst.replace("may fall", "may rise")
    more = f": about {said.rows_needed:,} rows could show it" if said.rows_needed else ""
    return f"{metric.title} {moved}, {worst}{more}"


def _moved(metric: Metric, difference: float) -> str:
    """Such as `falls by 0.2 points`; for a metric that falls when it gets better, the other way round."""
    if difference == 0.0:
        return "stays the same"
    down = (difference < 0.0) == metric.falls
    return f"{'falls' if down else 'rises'} by {_amount(metric, abs(difference))}"


def _amount(metric: Metric, value: float) -> str:
    """With its unit: a point is a hundredth."""
    if not metric.in_points:
        return f"{value:.3g}"
    text = f"{value * 100.0:.2g}"
    return f"{text} point{'' if text == '1' else 's'}"


def _refused(metric: Metric, itself: Comparison, allowed: float, rows: Rows, why: str) -> Judgement:
    """For answers that cannot be measured: as bad as can be, in finite numbers."""
    worst = 1.0 if metric.in_points else max(abs(itself.old), 1.0)
    new = itself.old - worst if metric.falls else itself.old + worst
    return Judgement(
        metric=metric.name, labelled=metric.labelled, old=itself.old, new=new, difference=-worst, low=-worst,
        high=-worst, allowed=allowed, method="none", rows=rows.count, accepted=False, reason=why,
    )  # fmt: skip


def _unchanged(metric: Metric, found: Comparison, allowed: float, rows: Rows) -> Judgement:
    difference = found.worth
    return Judgement(
        metric=metric.name, labelled=metric.labelled, old=found.old, new=found.new, difference=difference,
        low=difference, high=difference, allowed=allowed, method="same answers", rows=rows.count, accepted=True,
        reason=f"it gives the same answers, but for rounding, on all {rows.count:,} rows",
    )  # fmt: skip


def _broken(old: Outputs, new: Outputs) -> str:
    """Why answers cannot be compared; "" if they can."""
    for name, was in old.items():
        now = new.get(name)
        if now is None:
            return f"it does not answer {name!r}"
        if now.shape != was.shape:
            return f"its answer {name!r} has the shape {list(now.shape)}, the original's {list(was.shape)}"
        broken = np.isfinite(was) & ~np.isfinite(now) if now.dtype.kind == was.dtype.kind == "f" else np.zeros(1)
        if broken.any():
            count = int(broken.reshape(len(now), -1).any(axis=1).sum())
            return f"its answer {name!r} is not finite in {count:,} of {len(now):,} rows"
    return ""


def _is_same(old: Array, new: Array) -> bool:
    if old.dtype.kind in "USO":
        return bool(np.all(answers.texts(old) == answers.texts(new)))
    if old.dtype.kind != "f":
        return bool(np.all(old == new))
    was, now = old.astype(np.float64), new.astype(np.float64)
    there = np.isfinite(was)
    if not np.array_equal(was[~there], now[~there], equal_nan=True):
        return False
    was, now = np.where(there, was, 0.0), np.where(there, now, 0.0)
    size = np.abs(was).max(axis=0, keepdims=True, initial=0.0)  # of a column: they may be of different units
    return bool((np.abs(was - now) <= _ROUNDING * size).all())


def _is_missing(array: Array, row: int) -> bool:
    return array.dtype.kind == "f" and not bool(np.isfinite(array[row]).all())
