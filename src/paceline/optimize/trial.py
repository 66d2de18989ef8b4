"""Is this candidate served? It is made, asked, judged, timed; whatever stops it is the reason that the report gives.

Rules:
- Answers are judged at the operating batch: with dynamic quantization they depend on what runs together.
- Threads are chosen there as well; other batch sizes are measured with the same number.
- A candidate that the gate refuses is not timed: nobody may serve it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from paceline.core.errors import CannotChange, ConfigError, PacelineError
from paceline.core.tensors import Array
from paceline.optimize import gate, measure
from paceline.optimize.candidate import Candidate, Made
from paceline.optimize.gate import Drop
from paceline.optimize.measure import WORTH_IT, Runs
from paceline.optimize.metrics import Metric
from paceline.optimize.predictor import Predictor
from paceline.optimize.result import Speed, Tried
from paceline.optimize.rows import Rows
from paceline.optimize.source import OPEN_BATCH, Steps
from paceline.optimize.wanted import Budget, Progress
from paceline.runtimes.model_files import size_bytes

_LEAST_S: Final = 0.5
_MOST_S: Final = 4.0
_SHARE: Final = 1 / 60
"""Of the budget: what is spent on timing one candidate at the operating batch."""


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """The original, loaded and asked.

    Attributes:
        answers: to the evaluation rows.
        took_s: for them.
        runs: of it, by batch size, beside all candidates: what is told of it is no moment's accident.
    """

    predictor: Predictor
    answers: Mapping[str, Array]
    took_s: float
    runs: dict[int, Runs] = field(default_factory=dict)

    def saw(self, runs: Runs) -> None:
        """It was timed again."""
        self.runs.setdefault(runs.batch, Runs(runs.batch, runs.threads)).rounds.extend(runs.rounds)

    def speeds(self) -> list[Speed]:
        """Of all its runs, beside itself."""
        return [each.speed(each) for each in self.runs.values()]


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What all trials of a study share.

    Attributes:
        native, onnx: files that candidates are made from; `onnx` None: it cannot be converted.
        calibration: file of the rows for steps; `evaluation`: rows to judge and to time on.
        threads: to try, where a candidate does not say.
        scratch: folder where predictors find rows.
    """

    native: Path
    onnx: Path | None
    calibration: Path
    evaluation: Rows
    metric: Metric
    max_drop: Drop | None
    batch: int
    batches: tuple[int, ...]
    threads: tuple[int, ...]
    allow_pickle: bool
    baseline: Baseline
    budget: Budget
    steps: Steps
    scratch: Path
    progress: Progress

    def load(self, candidate: Candidate, model: Path, threads: int) -> Predictor:
        """A candidate in a process of its own."""
        return Predictor(
            model,
            candidate.options,
            threads=threads,
            allow_pickle=self.allow_pickle,
            timeout_s=max(_LEAST_S, self.budget.left_s),
            folder=self.scratch,
        )


def timing_s(budget: Budget) -> float:
    """Seconds to time one candidate at the operating batch."""
    return min(_MOST_S, max(_LEAST_S, budget.total_s * _SHARE))


def trial(candidate: Candidate, bench: Bench) -> Tried:
    """Try a candidate; never raises for what is wrong with it."""
    began = time.monotonic()
    tried = Tried(candidate=candidate, status="failed")
    try:
        _try(tried, bench)
    except PacelineError as error:
        tried.reasons.insert(0, _said(error))
        if isinstance(error, CannotChange):
            tried.status = "skipped"
        elif bench.budget.left_s <= 0:
            tried.status = "skipped"
            tried.reasons = ["the budget ran out while it was tried"]
    tried.took_s = time.monotonic() - began
    return tried


def _try(tried: Tried, bench: Bench) -> None:
    candidate, batch = tried.candidate, bench.batch
    model = built(candidate, bench, tried.reasons)
    tried.file, tried.size_bytes = str(model), size_bytes(model)
    with ExitStack() as stack:
        first, *rest = (candidate.threads,) if candidate.threads else bench.threads
        predictors = [stack.enter_context(bench.load(candidate, model, first))]
        bench.progress.doing("asking it")
        answers = predictors[0].predict(bench.evaluation, batch=batch)
        tried.judgement = gate.judge(
            old=bench.baseline.answers, new=answers, rows=bench.evaluation, metric=bench.metric, max_drop=bench.max_drop
        )
        if not tried.judgement.accepted:
            tried.status = "rejected"
            tried.reasons.insert(0, tried.judgement.reason)
            return
        predictors += [stack.enter_context(bench.load(candidate, model, threads)) for threads in rest]
        bench.progress.doing(f"timing it, {batch} row{'s' * (batch != 1)} at a time")
        _decide(tried, *_timed(predictors, bench, batch))
        if tried.status == "accepted":
            chosen = next(each for each in predictors if each.threads == tried.speeds[0].threads)
            tried.speeds += _other_speeds(chosen, bench)


def built(candidate: Candidate, bench: Bench, notes: list[str]) -> Path:
    """The candidate's model file: its changes, each a step.

    Args:
        notes: of the steps are added.
    """
    if candidate.native:
        return bench.native
    if bench.onnx is None:
        raise CannotChange("the model could not be converted to ONNX")
    model = bench.onnx
    for change in candidate.changes:
        call = f"transforms.{change.call}"
        arguments = {**change.arguments, "model": model, "rows": bench.calibration}
        bench.progress.doing(change.call.replace(":", ": ").replace("_", " "))
        made: Made = bench.steps.run(call, Made, arguments)
        if change != OPEN_BATCH or len(candidate.changes) == 1:  # it is told of once
            notes.extend(made.notes)
        model = bench.steps.file(call, arguments, made.file)
    return model


def fastest(runs: list[Runs], baseline: Runs) -> Runs:
    """Of one candidate with several numbers of threads: the fastest; of nearly equal ones, fewer threads."""
    best = max(measure.ratio_of(baseline, each)[0] for each in runs)
    near = [each for each in runs if measure.ratio_of(baseline, each)[0] * WORTH_IT >= best]
    return min(near, key=lambda each: each.threads)


def _timed(predictors: list[Predictor], bench: Bench, batch: int) -> tuple[Runs, Runs]:
    """The baseline's runs, and the candidate's with the best number of threads."""
    baseline, *runs = measure.in_turn(
        [bench.baseline.predictor, *predictors], bench.evaluation, batch=batch, seconds=timing_s(bench.budget)
    )
    bench.baseline.saw(baseline)
    return baseline, fastest(runs, baseline)


def _decide(tried: Tried, baseline: Runs, runs: Runs) -> None:
    speed = runs.speed(baseline)
    tried.speeds = [speed]
    reason = too_slow(speed, baseline, runs)
    tried.status = "rejected" if reason else "accepted"
    if reason:
        tried.reasons.insert(0, reason)


def too_slow(speed: Speed, baseline: Runs, runs: Runs) -> str:
    """Why it is not worth it; "" when it is."""
    if speed.ratio < WORTH_IT:
        return f"{speed.ratio:.2f} times as fast: at least {WORTH_IT:.2f} times is worth it"
    if speed.ratio_low <= 1.0:
        return f"{speed.ratio:.2f} times as fast, which may be noise: it may be {speed.ratio_low:.2f} times"
    if runs.has_longer_tail(baseline):
        old_s, new_s = (float(np.quantile(each.all_s, 0.99)) for each in (baseline, runs))
        tail = f"{new_s * 1e3:.3g} ms against {old_s * 1e3:.3g} ms"
        return f"{speed.ratio:.2f} times as fast, but its 99th percentile is longer: {tail}"
    return ""


def _other_speeds(chosen: Predictor, bench: Bench) -> Iterator[Speed]:
    for batch in bench.batches:
        if bench.budget.left_s <= 0:
            return
        bench.progress.doing(f"timing it, {batch} row{'s' * (batch != 1)} at a time")
        both = [bench.baseline.predictor, chosen]
        baseline, runs = measure.in_turn(both, bench.evaluation, batch=batch, seconds=timing_s(bench.budget) / 4)
        bench.baseline.saw(baseline)
        yield runs.speed(baseline)


def _said(error: PacelineError) -> str:
    if isinstance(error, ConfigError):
        raise error  # the metric does not fit the model: so it is with every candidate
    return error.message + (f" ({error.hint})" if error.hint else "")
