"""Which of the best is the fastest? They were timed at different moments; now they run in the same rounds.

Rules:
- Those take part whose ratios do not exclude that they are the fastest, a few at most: all are loaded at once.
- What is measured here replaces what was told of the operating batch. One that fails here is out.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Final

from paceline.core.errors import PacelineError
from paceline.optimize import measure
from paceline.optimize.measure import Runs
from paceline.optimize.processes.predictor import Predictor
from paceline.optimize.result import Speed, Tried
from paceline.optimize.studying.trial import Bench, built, too_slow

_MOST: Final = 4
_LOADING_S: Final = 2.0
_TIMES: Final = 2.0
_ONCE_S: Final = 0.01


def foreseen_s(bench: Bench) -> float:
    """Seconds that it takes."""
    return _TIMES * bench.budget.timing_s + _LOADING_S


def run_off(tried: Sequence[Tried], bench: Bench) -> None:
    """Time the best once more, beside one another, and put down what comes of it."""
    finalists = best(tried)
    if len(finalists) < 2 or bench.budget.left_s < foreseen_s(bench):
        return
    bench.progress.doing(f"the best {len(finalists)} in turn")
    with ExitStack() as stack:
        loaded: list[tuple[Tried, Predictor]] = []
        for each in finalists:
            try:
                model = built(each.candidate, bench, [])
                loaded.append((each, stack.enter_context(bench.load(each.candidate, model, each.speeds[0].threads))))
            except PacelineError as error:
                _out(each, error.message)
        _timed(loaded, bench)


def best(tried: Sequence[Tried]) -> list[Tried]:
    """Those that may be the fastest, by what is known; the likeliest first."""
    able = sorted((each for each in tried if each.status == "accepted"), key=lambda each: -each.speeds[0].ratio)
    if not able:
        return []
    # A short time and a high ratio say the same, but for what the machine did meanwhile: either is enough.
    ratio, median_s = able[0].speeds[0].ratio_low, min(each.speeds[0].median_s for each in able)
    near = [each for each in able if _near(each.speeds[0], ratio, median_s)]
    return near[:_MOST]


def _near(speed: Speed, ratio: float, median_s: float) -> bool:
    return speed.ratio_high >= ratio or speed.median_s <= measure.WORTH_IT * median_s


def _timed(loaded: Sequence[tuple[Tried, Predictor]], bench: Bench) -> None:
    predictors = [predictor for _, predictor in loaded]
    try:
        baseline, runs = bench.timed(predictors, bench.wanted.batch, _TIMES * bench.budget.timing_s)
    except PacelineError:
        _put_out_the_failed(loaded, bench)
        return
    for (tried, _), each in zip(loaded, runs, strict=True):
        _put_down(tried, baseline, each)


def _put_out_the_failed(loaded: Sequence[tuple[Tried, Predictor]], bench: Bench) -> None:
    """What is known of the others stands: each has passed by itself."""
    for tried, predictor in loaded:
        try:
            predictor.time(bench.opening.evaluation, batch=bench.wanted.batch, seconds=_ONCE_S)
        except PacelineError as error:
            _out(tried, error.message)


def _put_down(tried: Tried, baseline: Runs, runs: Runs) -> None:
    speed = runs.speed(baseline)
    tried.speeds = [speed, *tried.speeds[1:]]
    reason = too_slow(speed, baseline, runs)
    if reason:
        _out(tried, reason)


def _out(tried: Tried, reason: str) -> None:
    tried.status = "rejected"
    tried.reasons.insert(0, f"beside the others: {reason}")
