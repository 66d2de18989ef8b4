"""Which of these is faster, on a machine that does other things as well? They are timed in turn.

Rules:
- A round times each for a moment: what slows the machine down for a while slows all of them. Ratios are of one round.
- The ratio is the median over rounds. Its interval is the one of order statistics, which asks nothing of how times are
  distributed. Rounds go on until it is narrow, or the time is up.
- Faster means: the median by 5 % or more, and the 99th percentile not slower by more than the noise of both.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from paceline.optimize.data.rows import Rows
from paceline.optimize.processes.predictor import Predictor
from paceline.optimize.result import Speed

WORTH_IT: Final = 1.05
"""How much faster a candidate has to be: less is not worth another model."""

_TAIL: Final = 0.99
_TAIL_MERCY: Final = 1.05
_Z: Final = 1.96
_NARROW: Final = 0.02
_PATIENCE: Final = 4.0
_LEAST_ROUNDS: Final = 3
_ENOUGH_ROUNDS: Final = 9
_SLICE_S: Final = (0.01, 0.25)
_RUNS_A_SLICE: Final = 12


@dataclass
class Runs:
    """Times of one predictor.

    Attributes:
        rounds: seconds of each run, by round.
    """

    batch: int
    threads: int
    rounds: list[NDArray[np.float64]] = field(default_factory=list)

    @property
    def all_s(self) -> NDArray[np.float64]:
        """Of all rounds."""
        return np.concatenate(self.rounds)

    @property
    def median_s(self) -> float:
        """Of the median round's median: a round in which the machine was busy does not count more."""
        return float(np.median([np.median(each) for each in self.rounds]))

    def speed(self, baseline: Runs) -> Speed:
        """Beside a baseline that was timed in the same rounds."""
        ratio, low, high = ratio_of(baseline, self)
        return Speed(
            batch=self.batch,
            threads=self.threads,
            median_s=self.median_s,
            p99_s=float(np.quantile(self.all_s, _TAIL)),
            rows_per_s=self.batch / self.median_s,
            ratio=ratio,
            ratio_low=low,
            ratio_high=high,
            runs=len(self.all_s),
        )

    def has_longer_tail(self, baseline: Runs) -> bool:
        """True when the 99th percentile is surely slower than the baseline's."""
        return quantile_interval(self.all_s, _TAIL)[0] > _TAIL_MERCY * quantile_interval(baseline.all_s, _TAIL)[1]


def in_turn(predictors: Sequence[Predictor], rows: Rows, *, batch: int, seconds: float) -> list[Runs]:
    """Time predictors in turn, `A B C A B C`, in about this many seconds; the first is the baseline.

    Args:
        seconds: less where the ratios are known well before; up to four times as many where it is not clear yet
            whether one that seems faster is. At least three rounds are run.

    Raises:
        StepFailed: one of them fails, or dies.
    """
    began = time.monotonic()
    runs = [Runs(batch, each.threads) for each in predictors]
    slices = [_slice_s(min(each.time(rows, batch=batch, seconds=_SLICE_S[0]))) for each in predictors]
    while True:
        for predictor, each, slice_s in zip(predictors, runs, slices, strict=True):
            each.rounds.append(np.array(predictor.time(rows, batch=batch, seconds=slice_s)))
        if len(runs[0].rounds) >= _LEAST_ROUNDS and _is_enough(runs, (time.monotonic() - began) / seconds):
            return runs


def ratio_of(baseline: Runs, other: Runs) -> tuple[float, float, float]:
    """How many times faster the other is, and the 95 % interval: of fewer than six rounds, their range."""
    ratios = np.sort([np.median(old) / np.median(new) for old, new in zip(baseline.rounds, other.rounds, strict=True)])
    low, high = median_interval(ratios)
    return float(np.median(ratios)), low, high


def fastest(runs: Sequence[Runs], baseline: Runs) -> Runs:
    """Of one model with several numbers of threads: the fastest; of nearly equal ones, fewer threads."""
    best = max(ratio_of(baseline, each)[0] for each in runs)
    near = [each for each in runs if ratio_of(baseline, each)[0] * WORTH_IT >= best]
    return min(near, key=lambda each: each.threads)


def median_interval(ordered: NDArray[np.float64]) -> tuple[float, float]:
    """The 95 % interval of the median of what these are drawn from, by order statistics.

    Source: W. J. Conover, Practical Nonparametric Statistics, 3rd edition (1999), section 3.2.
    """
    count = len(ordered)
    outside, chance = 0, 0.5**count  # of at most `outside` values below the median
    below = chance
    while 2.0 * (below + chance * (count - outside) / (outside + 1)) <= 1.0 - 0.95 and outside < count // 2:
        chance *= (count - outside) / (outside + 1)
        outside += 1
        below += chance
    place = outside if 2.0 * below <= 1.0 - 0.95 else 0
    return float(ordered[place]), float(ordered[count - 1 - place])


def quantile_interval(values: NDArray[np.float64], quantile: float) -> tuple[float, float]:
    """The 95 % interval of a quantile, by order statistics with the normal approximation of their ranks."""
    ordered = np.sort(values)
    middle, spread = len(ordered) * quantile, _Z * math.sqrt(len(ordered) * quantile * (1.0 - quantile))
    low = max(0, math.floor(middle - spread) - 1)
    high = min(len(ordered) - 1, math.ceil(middle + spread) - 1)
    return float(ordered[low]), float(ordered[high])


def _slice_s(run_s: float) -> float:
    return float(np.clip(_RUNS_A_SLICE * run_s, *_SLICE_S))


def _is_enough(runs: Sequence[Runs], spent: float) -> bool:
    """True when the ratios are known well enough, or as well as they may be for this much of the time."""
    found = [ratio_of(runs[0], each) for each in runs[1:]]
    if spent >= 1.0:
        return spent >= _PATIENCE or not any(low <= 1.0 and ratio >= WORTH_IT for ratio, low, _ in found)
    narrow = all(high - low <= _NARROW * ratio for ratio, low, high in found)
    return bool(found) and narrow and len(runs[0].rounds) >= _ENOUGH_ROUNDS
