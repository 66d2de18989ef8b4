"""How good and how fast is the original? It is loaded, asked and timed first, for all else is compared with it.

Rules:
- Its signature says which rows it takes. A factory has none before torch has seen rows: it gets those
  as they are called.
- One thread, and all cores, are tried; the faster of the two at the operating batch is the baseline.
- Rows that would take too much of the budget are left out of the judgement, and that is said.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from paceline.config.machine import usable_cores
from paceline.core.errors import ConfigError, PacelineError
from paceline.core.tensors import TensorSpec
from paceline.optimize import data, gate, measure, metrics
from paceline.optimize.metrics import Metric
from paceline.optimize.predictor import Predictor
from paceline.optimize.result import Tried
from paceline.optimize.rows import Rows
from paceline.optimize.source import Source, Steps, export_factory
from paceline.optimize.space import original
from paceline.optimize.trial import Baseline, fastest, timing_s
from paceline.optimize.wanted import Budget, Progress, Wanted
from paceline.runtimes.model_files import size_bytes
from paceline.runtimes.options import RuntimeOptions

_ANSWERS_SHARE: Final = 0.1
"""Of the budget: what the original may take for all rows that candidates are judged on."""
_LEAST_JUDGED: Final = 32
_LOOK_S: Final = 0.1
_MOST_COMPARED: Final = 10_000
_CALIBRATION: Final = "calibration.npz"
_COMPARED: Final = "compared.npz"


@dataclass(frozen=True, kw_only=True)
class Opening:
    """The original, and the rows.

    Attributes:
        native: its file.
        rows: all of them; `evaluation`: those that candidates are judged on.
        compared, calibration: files of rows, for conversion and for steps.
        tried: what the report says of it.
        uncalibrated: why nothing can be calibrated on the rows; "" where that is possible.
    """

    native: Path
    rows: Rows
    evaluation: Rows
    compared: Path
    calibration: Path
    calibration_rows: int
    metric: Metric
    baseline: Baseline
    tried: Tried
    warnings: list[str] = field(default_factory=list)
    uncalibrated: str = ""


class Opener:
    """Opens a study.

    Args:
        stack: ends what is started, with the study.
    """

    def __init__(
        self, wanted: Wanted, source: Source, steps: Steps, budget: Budget, progress: Progress, stack: ExitStack
    ) -> None:
        self._wanted = wanted
        self._source = source
        self._steps = steps
        self._budget = budget
        self._progress = progress
        self._stack = stack
        self.scratch = wanted.folder / "rows"
        self.scratch.mkdir(parents=True, exist_ok=True)

    def open(self) -> Opening:
        """Load, ask and time the original.

        Raises:
            PacelineError: it cannot be loaded or asked, or the rows do not fit it.
        """
        began = time.monotonic()
        native, rows, predictor = self._loaded()
        wanted = self._wanted
        split = data.split(rows, wanted.seed, wanted.calibration_rows)
        warnings: list[str] = []
        evaluation = self._affordable(predictor, split.evaluation, warnings)
        baseline, metric = self._asked(predictor, evaluation)
        warnings += gate.advice(baseline.answers, evaluation, metric, wanted.max_drop)
        baseline, tried = self._timed(baseline, native, evaluation)
        tried.took_s = time.monotonic() - began
        return Opening(
            native=native,
            rows=rows,
            evaluation=evaluation,
            compared=self._saved(rows.take(np.arange(min(rows.count, _MOST_COMPARED))), _COMPARED),
            calibration=self._saved(split.calibration, _CALIBRATION),
            calibration_rows=split.calibration.count,
            metric=metric,
            baseline=baseline,
            tried=tried,
            warnings=warnings,
            uncalibrated=_uncalibrated(split.calibration),
        )

    def _loaded(self) -> tuple[Path, Rows, Predictor]:
        wanted, native = self._wanted, self._source.path
        if native is None:
            rows = data.read(wanted.data, wanted.labels, ())
            self._progress.doing("exporting it")
            native = export_factory(self._source, self._saved(rows, _COMPARED), self._steps)
        self._progress.doing("loading it")
        predictor = self._load(native, self.threads[0])
        return native, data.read(wanted.data, wanted.labels, _inputs(predictor)), predictor

    @property
    def threads(self) -> tuple[int, ...]:
        """To try, of an instance."""
        cores = usable_cores().whole
        return (self._wanted.threads,) if self._wanted.threads else (1, cores) if cores > 1 else (1,)

    def _load(self, native: Path, threads: int) -> Predictor:
        return self._stack.enter_context(
            Predictor(
                native,
                RuntimeOptions(),
                threads=threads,
                allow_pickle=self._wanted.allow_pickle,
                timeout_s=max(1.0, self._budget.left_s),
                folder=self.scratch,
            )
        )

    def _saved(self, rows: Rows, name: str) -> Path:
        path = self.scratch / name
        rows.save(path)
        return path

    def _affordable(self, predictor: Predictor, rows: Rows, warnings: list[str]) -> Rows:
        batch = self._wanted.batch
        run_s = float(np.median(predictor.time(rows, batch=batch, seconds=_LOOK_S)))
        count = max(_LEAST_JUDGED, int(_ANSWERS_SHARE * self._budget.total_s / run_s) * batch)
        if count >= rows.count:
            return rows
        warnings.append(
            f"candidates are judged on {count:,} of {rows.count:,} rows: the others do not fit into the budget"
        )
        picked = np.random.default_rng(self._wanted.seed).permutation(rows.count)[:count]
        return rows.take(np.sort(picked))

    def _asked(self, predictor: Predictor, evaluation: Rows) -> tuple[Baseline, Metric]:
        self._progress.doing("asking it")
        began = time.monotonic()
        answers = predictor.predict(evaluation, batch=self._wanted.batch)
        baseline = Baseline(predictor=predictor, answers=answers, took_s=time.monotonic() - began)
        if self._wanted.metric is not None:
            return baseline, metrics.named(self._wanted.metric, labelled=evaluation.labels is not None)
        return baseline, metrics.choose(answers, evaluation)

    def _timed(self, baseline: Baseline, native: Path, rows: Rows) -> tuple[Baseline, Tried]:
        """The baseline with the better number of threads, and its speeds."""
        wanted, seconds = self._wanted, timing_s(self._budget)
        predictors = [baseline.predictor]
        tried = Tried(candidate=original(title=self._source.title), status="baseline", file=str(native))
        for threads in self.threads[1:]:
            try:
                predictors.append(self._load(native, threads))
            except PacelineError as error:
                tried.reasons.append(f"with {threads} threads it cannot be loaded: {error.message}")
        self._progress.doing(f"timing it, {_rows(wanted.batch)} at a time")
        runs = measure.in_turn(predictors, rows, batch=wanted.batch, seconds=seconds)
        best = fastest(runs, runs[0])
        chosen = predictors[runs.index(best)]
        for each in predictors:
            if each is not chosen:
                each.close()
        found = Baseline(predictor=chosen, answers=baseline.answers, took_s=baseline.took_s)
        found.saw(best)
        for batch in wanted.batches:
            self._progress.doing(f"timing it, {_rows(batch)} at a time")
            (alone,) = measure.in_turn([chosen], rows, batch=batch, seconds=seconds / 4)
            found.saw(alone)
        tried.speeds, tried.size_bytes = found.speeds(), size_bytes(native)
        return found, tried


def _uncalibrated(rows: Rows) -> str:
    try:
        data.check_calibration(rows)
    except ConfigError as error:
        return error.message
    return ""


def _inputs(predictor: Predictor) -> tuple[TensorSpec, ...]:
    """What rows have to fit; a service of items takes what there is."""
    return () if predictor.signature.items else predictor.signature.inputs


def _rows(count: int) -> str:
    return f"{count} row{'s' * (count != 1)}"
