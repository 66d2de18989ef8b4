"""Is this candidate served? It is made, asked, judged, timed; whatever stops it is the reason that the report gives.

Rules:
- Answers are judged at the operating batch: with dynamic quantization they depend on what runs together.
- Threads are chosen there as well; other batch sizes are measured with the same number.
- A candidate that the gate refuses is not timed: nobody may serve it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from paceline.core.errors import CannotChange, ConfigError, PacelineError
from paceline.optimize import measure
from paceline.optimize.candidate import Candidate, Made
from paceline.optimize.judging import gate
from paceline.optimize.measure import WORTH_IT, Runs
from paceline.optimize.processes.predictor import Predictor
from paceline.optimize.reporting.words import rows_text
from paceline.optimize.result import Speed, Tried
from paceline.optimize.studying.opening import Opening, load
from paceline.optimize.studying.source import Onnx, Steps
from paceline.optimize.wanted import Budget, Progress, Wanted
from paceline.runtimes.model_files import size_bytes


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What all trials of a study share.

    Attributes:
        onnx: None: the model cannot be converted.
    """

    wanted: Wanted
    opening: Opening
    onnx: Onnx | None
    budget: Budget
    steps: Steps
    progress: Progress

    def load(self, candidate: Candidate, model: Path, threads: int) -> Predictor:
        """A candidate in a process of its own."""
        return load(model, candidate.options, threads, self.wanted, self.budget)

    def timed(self, predictors: Sequence[Predictor], batch: int, seconds: float) -> tuple[Runs, list[Runs]]:
        """The baseline's runs, and those of the predictors, in the same rounds.

        Raises:
            StepFailed: one of them fails, or dies.
        """
        first = self.opening.baseline
        baseline, *runs = measure.in_turn(
            [first.predictor, *predictors], self.opening.evaluation, batch=batch, seconds=seconds
        )
        first.saw(baseline)
        return baseline, runs


def trial(candidate: Candidate, bench: Bench) -> Tried:
    """Try a candidate; what is wrong with it is told.

    Raises:
        ConfigError: something is wrong with all candidates: the metric does not fit the model.
    """
    began = time.monotonic()
    tried = Tried(candidate=candidate, status="failed")
    try:
        _try(tried, bench)
    except ConfigError:
        raise
    except PacelineError as error:
        tried.reasons.insert(0, said(error))
        if isinstance(error, CannotChange):
            tried.status = "skipped"
        elif bench.budget.left_s <= 0:
            tried.status = "skipped"
            tried.reasons = ["the budget ran out while it was tried"]
            tried.foreseen_s = time.monotonic() - began
    tried.took_s = time.monotonic() - began
    return tried


def _try(tried: Tried, bench: Bench) -> None:
    candidate, opening, batch = tried.candidate, bench.opening, bench.wanted.batch
    model = built(candidate, bench, tried.reasons)
    tried.file, tried.size_bytes = str(model), size_bytes(model)
    with ExitStack() as stack:
        first, *rest = (candidate.threads,) if candidate.threads else opening.threads
        predictors = [stack.enter_context(bench.load(candidate, model, first))]
        bench.progress.doing("asking it")
        tried.judgement = gate.judge(
            old=opening.baseline.answers,
            new=predictors[0].predict(opening.evaluation, batch=batch),
            rows=opening.evaluation,
            metric=opening.metric,
            max_drop=bench.wanted.max_drop,
        )
        if not tried.judgement.accepted:
            tried.status = "rejected"
            tried.reasons.insert(0, tried.judgement.reason)
            return
        predictors += [stack.enter_context(bench.load(candidate, model, threads)) for threads in rest]
        bench.progress.doing(f"timing it, {rows_text(batch)} at a time")
        baseline, runs = bench.timed(predictors, batch, bench.budget.timing_s)
        best = measure.fastest(runs, baseline)
        _decide(tried, baseline, best)
        if tried.status == "accepted":
            tried.speeds += _other_speeds(predictors[runs.index(best)], bench)


def built(candidate: Candidate, bench: Bench, notes: list[str]) -> Path:
    """The candidate's model file: its changes, each a step.

    Args:
        notes: of the steps are added.
    """
    if candidate.native:
        return bench.opening.native
    if bench.onnx is None:
        raise CannotChange("the model could not be converted to ONNX")
    model = bench.onnx.path
    for change in candidate.changes:
        call = f"transforms.{change.call}"
        arguments = {**change.arguments, "model": model, "rows": bench.opening.calibration}
        bench.progress.doing(change.call.replace(":", ": ").replace("_", " "))
        made: Made = bench.steps.run(call, Made, arguments)
        notes.extend(made.notes)
        model = bench.steps.file(call, arguments, made.file)
    return model


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
        ratio = math.floor(speed.ratio * 100.0) / 100.0  # rounded up, 1.048 would be enough
        return f"{ratio:.2f} times as fast: at least {WORTH_IT:.2f} times is worth it"
    if speed.ratio_low <= 1.0:
        return f"{speed.ratio:.2f} times as fast, which may be noise: it may be {speed.ratio_low:.2f} times"
    if runs.has_longer_tail(baseline):
        old_s, new_s = (float(np.quantile(each.all_s, 0.99)) for each in (baseline, runs))
        tail = f"{new_s * 1e3:.3g} ms against {old_s * 1e3:.3g} ms"
        return f"{speed.ratio:.2f} times as fast, but its 99th percentile is longer: {tail}"
    return ""


def _other_speeds(chosen: Predictor, bench: Bench) -> Iterator[Speed]:
    for batch in bench.wanted.batches:
        if bench.budget.left_s <= 0:
            return
        bench.progress.doing(f"timing it, {rows_text(batch)} at a time")
        baseline, (runs,) = bench.timed([chosen], batch, bench.budget.other_timing_s)
        yield runs.speed(baseline)


def said(error: PacelineError) -> str:
    """What went wrong, and what to do about it."""
    return error.message + (f" ({error.hint})" if error.hint else "")
