"""How sure is a difference that was seen on some rows? Intervals, without a statistics library.

Rules:
- Two models on the same rows are compared row by row: what is hard for both says nothing of their difference.
- Intervals are two-sided, of 95 %: what lies below one happens in 2.5 % of the cases.
- What was never seen on n rows may still happen: the intervals of shares have a width where nothing changed at all.

Sources: T. Tango, Statistics in Medicine 17 (1998) 891-908; C. Clopper, E. Pearson, Biometrika 26 (1934) 404-413;
B. Efron, Journal of the American Statistical Association 82 (1987) 171-185. That Tango's is the interval to use for
paired proportions: M. Fagerland, S. Lydersen, P. Laake, Statistics in Medicine 33 (2014) 2850-2875.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from statistics import NormalDist
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Statistic = Callable[[Floats], Floats]
"""Of rows that are weighted: takes weights of shape [resamples, rows], returns [resamples]; nan: not defined."""

RESAMPLES: Final = 2000
RESAMPLES_OF_RATES: Final = 600
"""Of which a spread is taken, and no tail."""
_NORMAL: Final = NormalDist()
_TAIL: Final = 0.025
Z: Final = _NORMAL.inv_cdf(1.0 - _TAIL)
_CHUNK: Final = 4_000_000  # weights at once: 32 MB
_MOST_GROUPS: Final = 400
_TOO_NARROW: Final = 15.0
_HALVINGS: Final = 80


class Interval(NamedTuple):
    """Where the true value lies, in 95 of 100 such samples."""

    low: float
    high: float


def paired_shares(gained: float, lost: float, rows: float) -> Interval:
    """Of the difference of two shares of the same rows: Tango's score interval.

    It turns McNemar's test around: it holds each difference that the test does not reject. Without any change on n
    rows it is +-z^2 / (n + z^2).

    Args:
        gained: rows that only the new model has right.
        lost: rows that only the old one has right.
    """
    seen = (gained - lost) / rows
    low = _boundary(lambda delta: _score(gained, lost, rows, delta) - Z, seen, -1.0)
    high = _boundary(lambda delta: -_score(gained, lost, rows, delta) - Z, seen, 1.0)
    return Interval(low, high)


def share(successes: int, rows: int) -> Interval:
    """Of a share: Clopper and Pearson's exact interval."""
    low = 0.0 if successes == 0 else _boundary(lambda p: _TAIL - _at_most(rows - successes, rows, 1.0 - p), 1.0, 0.0)
    high = 1.0 if successes == rows else _boundary(lambda p: _TAIL - _at_most(successes, rows, p), 0.0, 1.0)
    return Interval(low, high)


def bootstrap(statistic: Statistic, rows: int, *, seed: int, resamples: int = RESAMPLES) -> Interval:
    """Of any statistic, over rows: the wider, at each end, of Efron's percentile interval and of his BCa.

    The percentile interval is too narrow where single rows weigh much, BCa, which corrects for their skewness, where
    rows are few. On a hundred rows even the two together are too narrow, as bootstraps are (T. Hesterberg, The
    American Statistician 69 (2015) 371-386): so both ends move outwards by 15 / rows, a number that
    `benchmarks/gate.py` has found.

    Args:
        statistic: of both models, so that each resample pairs them.

    Returns:
        (nan, nan) where hardly any resample defines the statistic.
    """
    values = np.concatenate([statistic(weights) for weights in _resampled(rows, resamples, seed)])
    values = np.sort(values[np.isfinite(values)])
    if len(values) < resamples // 2:
        return Interval(math.nan, math.nan)
    seen = float(statistic(np.ones((1, rows)))[0])
    ends = [_TAIL, 1.0 - _TAIL, *_corrected(statistic, rows, values, seen)]
    plain_low, plain_high, low, high = np.quantile(values, ends).tolist()
    wider = 1.0 + _TOO_NARROW / rows
    return Interval(seen - wider * (seen - min(plain_low, low)), seen + wider * (max(plain_high, high) - seen))


def _corrected(statistic: Statistic, rows: int, values: Floats, seen: float) -> list[float]:
    """Which shares of the sorted values BCa takes for its ends."""
    below = (np.searchsorted(values, seen) + np.searchsorted(values, seen, side="right")) / (2 * len(values))
    bias = _NORMAL.inv_cdf(min(max(float(below), 1.0 / len(values)), 1.0 - 1.0 / len(values)))
    acceleration = _acceleration(statistic, rows)
    return [_NORMAL.cdf(bias + (bias + z) / (1.0 - acceleration * (bias + z))) for z in (-Z, Z)]


def paired_rates(
    old: Statistic, new: Statistic, rows: int, *, seed: int, resamples: int = RESAMPLES_OF_RATES
) -> Interval:
    """Of the difference of two numbers between 0 and 1 that depend on few rows when they are near 1, as an AUC does.

    A bootstrap of the difference is too sure of itself there. So each gets an interval of its own, on the scale of
    logits, where it does not end; the two are joined by their correlation (MOVER).

    Source: G. Zou, A. Donner, Statistics in Medicine 27 (2008) 1693-1702.
    """
    blocks = [(old(weights), new(weights)) for weights in _resampled(rows, resamples, seed)]
    values = np.concatenate([np.stack(block) for block in blocks], axis=1)
    values = values[:, np.isfinite(values).all(axis=0)]
    if values.shape[1] < resamples // 2:
        return Interval(math.nan, math.nan)
    one = np.ones((1, rows))
    was, now = float(old(one)[0]), float(new(one)[0])
    end = 2.0 / rows**2  # half of what one pair of rows is, at most, of an AUC
    was_low, was_high = _by_logits(was, values[0], end, rows)
    now_low, now_high = _by_logits(now, values[1], end, rows)
    related = _correlation(values[0], values[1])
    low = _joined(now - now_low, was_high - was, related)
    high = _joined(now_high - now, was - was_low, related)
    return Interval(now - was - low, now - was + high)


def _by_logits(seen: float, values: Floats, end: float, rows: int) -> Interval:
    if not values.std():
        # Nothing varied, as at an AUC of 1: that few rows show nothing else does not mean that there is nothing.
        wide = Z**2 / (rows + Z**2)
        return Interval(max(seen - wide, 0.0), min(seen + wide, 1.0))
    spread = float(np.std([_logit(each, end) for each in values.tolist()]))
    middle = _logit(seen, end)
    low, high = (1.0 / (1.0 + math.exp(-(middle + sign * Z * spread))) for sign in (-1.0, 1.0))
    return Interval(min(low, seen), max(high, seen))


def _logit(value: float, end: float) -> float:
    held = min(max(value, end), 1.0 - end)
    return math.log(held / (1.0 - held))


def _correlation(one: Floats, other: Floats) -> float:
    spreads = float(one.std() * other.std())
    return float(np.mean((one - one.mean()) * (other - other.mean()))) / spreads if spreads > 0.0 else 0.0


def _joined(one: float, other: float, related: float) -> float:
    return math.sqrt(max(one**2 + other**2 - 2.0 * related * one * other, 0.0))


def factor_needed(low_at: Callable[[float], float], bound: float, most: float = 1e6) -> float | None:
    """How many times the rows it takes to lift the lower end of an interval above a bound.

    Args:
        low_at: the lower end with that many times the rows, if they are like those that were seen; it rises.

    Returns:
        None: not even `most` times do.
    """
    if low_at(most) <= bound:
        return None
    few, many = 1.0, most
    while many / few > 1.01:
        middle = math.sqrt(few * many)
        few, many = (few, middle) if low_at(middle) > bound else (middle, many)
    return many


def _score(gained: float, lost: float, rows: float, delta: float) -> float:
    """McNemar's statistic for a true difference of `delta`; it falls as delta rises.

    Under that hypothesis the probability to lose a row is at most likely `q`, the root of a quadratic equation.
    """
    b = -gained - lost + (2.0 * rows - gained + lost) * delta
    c = -lost * delta * (1.0 - delta)
    q = (math.sqrt(max(b * b - 8.0 * rows * c, 0.0)) - b) / (4.0 * rows)
    spread = math.sqrt(max(rows * (2.0 * q + delta * (1.0 - delta)), 0.0))
    distance = gained - lost - rows * delta
    if spread == 0.0:
        return math.copysign(math.inf, distance) if distance else 0.0
    return distance / spread


def _at_most(successes: int, rows: int, p: float) -> float:
    """The probability of so many successes or fewer, of a binomial distribution."""
    if p <= 0.0 or p >= 1.0:
        return 1.0 if p <= 0.0 or successes == rows else 0.0
    counts = np.arange(1, successes + 1)
    ways = np.concatenate([[0.0], np.cumsum(np.log(rows - counts + 1.0) - np.log(counts))])
    each = ways + np.arange(successes + 1) * math.log(p) + (rows - np.arange(successes + 1)) * math.log1p(-p)
    return float(min(np.exp(each).sum(), 1.0))


def _boundary(excess: Callable[[float], float], inside: float, outside: float) -> float:
    """Where a function that rises from `inside` to `outside` passes nought; `outside` where it does not."""
    if excess(outside) <= 0.0:
        return outside
    for _ in range(_HALVINGS):
        middle = (inside + outside) / 2.0
        inside, outside = (inside, middle) if excess(middle) > 0.0 else (middle, outside)
    return inside


def _resampled(rows: int, resamples: int, seed: int) -> Iterator[Floats]:
    """How often each row is drawn, in blocks of resamples that fit into memory."""
    random = np.random.default_rng(seed)
    size = max(1, _CHUNK // rows)
    for start in range(0, resamples, size):
        count = min(size, resamples - start)
        drawn = random.integers(0, rows, (count, rows)) + np.arange(count)[:, None] * rows
        yield np.bincount(drawn.ravel(), minlength=count * rows).reshape(count, rows).astype(np.float64)


def _acceleration(statistic: Statistic, rows: int) -> float:
    """How the spread changes with the value: from the skewness of the jackknife, over groups where rows are many."""
    groups = min(rows, _MOST_GROUPS)
    group_of = np.random.default_rng(rows).permutation(rows) % groups
    without = []
    size = max(1, _CHUNK // rows)
    for start in range(0, groups, size):
        left_out = np.arange(start, min(start + size, groups))[:, None]
        without.append(statistic((group_of[None, :] != left_out).astype(np.float64)))
    values = np.concatenate(without)
    apart = np.nanmean(values) - values[np.isfinite(values)] if np.isfinite(values).any() else np.zeros(1)
    apart = apart / (float(np.abs(apart).max()) or 1.0)  # the skewness is the same, and no power overflows
    squares = float((apart**2).sum())
    return float((apart**3).sum()) / (6.0 * squares**1.5) if squares > 0.0 else 0.0
