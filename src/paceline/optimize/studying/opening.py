"""How good and how fast is the original? It is loaded, asked and timed first, for all else is compared with it.

Rules:
- Its signature says which rows it takes. A factory has none before torch has seen rows: it gets those
  as they are called.
- One thread, and all cores, are tried; the faster of the two at the operating batch is the baseline. Where there is no
  time to load it twice, one thread is all that is tried, of candidates as well.
- Rows that would take too much of the budget are left out, of the judgement and of the comparison with what is
  converted. How many do not is found out once: a study that goes on has the rows that it began with.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from paceline.config.machine import usable_cores
from paceline.core.errors import PacelineError
from paceline.core.tensors import Array, TensorSpec
from paceline.optimize import measure
from paceline.optimize.data import matching
from paceline.optimize.data.rows import Rows
from paceline.optimize.judging import gate, metrics
from paceline.optimize.judging.metrics import Metric
from paceline.optimize.measure import Runs
from paceline.optimize.processes.predictor import Predictor
from paceline.optimize.reporting.words import rows_text
from paceline.optimize.result import Speed, Tried
from paceline.optimize.search.space import original
from paceline.optimize.studying.records import count_once
from paceline.optimize.studying.source import Source, Steps, export_factory
from paceline.optimize.wanted import Budget, Progress, Wanted
from paceline.runtimes.bundle import this_machine
from paceline.runtimes.model_files import digest, size_bytes
from paceline.runtimes.options import RuntimeOptions

_ANSWERS_SHARE: Final = 0.25
"""Of the budget: what the original may take for rows to judge on, and for rows to compare what is converted with."""
_ONNX_SHARE: Final = 0.1  # each of its candidates takes about as long; those of a library's model take far less
_LOADING_SHARE: Final = 0.1
"""Of the budget: where the original takes longer to load, it is not loaded again with another number of threads."""
_LEAST_ROWS: Final = 32
_LOOK_S: Final = 0.1
_MOST_COMPARED: Final = 10_000  # a converter's mistake shows on fewer
_CALIBRATION: Final = "calibration.npz"
_COMPARED: Final = "compared.npz"
_EXAMPLE: Final = "example.npz"
_AFFORDABLE: Final = "affordable.json"


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
class Opening:
    """The original, and the rows.

    Attributes:
        native: its file.
        rows: all of them; `evaluation`: those that candidates are judged on.
        compared, calibration: files of rows, for conversion and for steps.
        threads: to try, where a candidate does not say.
        tried: what the report says of it.
        uncalibrated: why nothing can be calibrated on the rows; "" where that is possible.
    """

    native: Path
    rows: Rows
    evaluation: Rows
    compared: Path
    calibration: Path
    calibration_rows: int
    threads: tuple[int, ...]
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
        cores = usable_cores().whole
        self._threads = (wanted.threads,) if wanted.threads else (1, cores) if cores > 1 else (1,)
        wanted.rows_folder.mkdir(parents=True, exist_ok=True)

    def open(self) -> Opening:
        """Load, ask and time the original.

        Raises:
            PacelineError: it cannot be loaded or asked, or the rows do not fit it.
        """
        began = time.monotonic()
        native, notes = self._file()
        self._progress.doing("loading it")
        loading = time.monotonic()
        predictor = self._load(native, self._threads[0])
        wanted = self._wanted
        if time.monotonic() - loading > _LOADING_SHARE * wanted.budget_s and len(self._threads) > 1:
            self._threads = self._threads[:1]
            notes = [*notes, "with one thread alone: the budget is too short to load it twice"]
        rows = matching.read(wanted.data, wanted.labels, _inputs(predictor))
        split = matching.split(rows, wanted.seed, wanted.calibration_rows)
        affordable = self._affordable(predictor, native, split.evaluation)
        evaluation = _some(split.evaluation, affordable, wanted.seed)
        baseline, metric = self._asked(predictor, evaluation)
        baseline, tried = self._timed(baseline, native, evaluation)
        tried.reasons += notes
        tried.took_s = time.monotonic() - began
        uncalibrated = matching.uncalibrated(split.calibration)
        advice = gate.advice(baseline.answers, evaluation, metric, wanted.max_drop)
        return Opening(
            native=native,
            rows=rows,
            evaluation=evaluation,
            compared=self._saved(_some(rows, min(affordable, _MOST_COMPARED), wanted.seed), _COMPARED),
            calibration=self._saved(split.calibration, _CALIBRATION),
            calibration_rows=split.calibration.count,
            threads=self._threads,
            metric=metric,
            baseline=baseline,
            tried=tried,
            warnings=[*_left_out(split.evaluation, evaluation), *advice, *filter(None, [uncalibrated])],
            uncalibrated=uncalibrated,
        )

    def _file(self) -> tuple[Path, list[str]]:
        """The model's, and notes on how it was made."""
        if self._source.path is not None:
            return self._source.path, []
        self._progress.doing("exporting it")
        example = _some(matching.read(self._wanted.data, self._wanted.labels, ()), _LEAST_ROWS, self._wanted.seed)
        return export_factory(self._source, self._saved(example, _EXAMPLE), self._steps)

    def _load(self, native: Path, threads: int) -> Predictor:
        return self._stack.enter_context(load(native, RuntimeOptions(), threads, self._wanted, self._budget))

    def _saved(self, rows: Rows, name: str) -> Path:
        path = self._wanted.rows_folder / name
        rows.save(path)
        return path

    def _affordable(self, predictor: Predictor, native: Path, rows: Rows) -> int:
        """How many rows the original can be asked in its share of the budget, at the operating batch."""
        batch, budget_s = self._wanted.batch, self._budget.total_s
        share = _ONNX_SHARE if self._source.is_onnx else _ANSWERS_SHARE

        def count() -> int:
            run_s = float(np.median(predictor.time(rows, batch=batch, seconds=_LOOK_S)))
            return max(_LEAST_ROWS, int(share * budget_s / run_s) * batch)

        question = {
            "model": digest(native),
            "rows": rows.digest(),
            "batch": batch,
            "budget_s": budget_s,
            "machine": this_machine(),
        }
        return count_once(self._wanted.folder / _AFFORDABLE, question, count)

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
        wanted, budget = self._wanted, self._budget
        predictors = [baseline.predictor]
        tried = Tried(candidate=original(title=self._source.title), status="baseline", file=str(native))
        for threads in self._threads[1:]:
            try:
                predictors.append(self._load(native, threads))
            except PacelineError as error:
                tried.reasons.append(f"with {threads} threads it cannot be loaded: {error.message}")
        self._progress.doing(f"timing it, {rows_text(wanted.batch)} at a time")
        runs = measure.in_turn(predictors, rows, batch=wanted.batch, seconds=budget.timing_s)
        best = measure.fastest(runs, runs[0])
        chosen = predictors[runs.index(best)]
        for each in predictors:
            if each is not chosen:
                each.close()
        found = Baseline(predictor=chosen, answers=baseline.answers, took_s=baseline.took_s)
        found.saw(best)
        for batch in wanted.batches:
            self._progress.doing(f"timing it, {rows_text(batch)} at a time")
            (alone,) = measure.in_turn([chosen], rows, batch=batch, seconds=budget.other_timing_s)
            found.saw(alone)
        tried.speeds, tried.size_bytes = found.speeds(), size_bytes(native)
        return found, tried


def load(model: Path, options: RuntimeOptions, threads: int, wanted: Wanted, budget: Budget) -> Predictor:
    """A model in a process of its own, as a study has it."""
    return Predictor(
        model,
        options,
        threads=threads,
        allow_pickle=wanted.allow_pickle,
        timeout_s=budget.timeout_s,
        folder=wanted.rows_folder,
    )


def _some(rows: Rows, count: int, seed: int) -> Rows:
    """At most so many, in their order."""
    if count >= rows.count:
        return rows
    return rows.take(np.sort(np.random.default_rng(seed).permutation(rows.count)[:count]))


def _left_out(all_rows: Rows, judged: Rows) -> list[str]:
    if judged.count == all_rows.count:
        return []
    of = f"{judged.count:,} of {all_rows.count:,} rows"
    return [f"candidates are judged on {of}: the others do not fit into the budget"]


def _inputs(predictor: Predictor) -> tuple[TensorSpec, ...]:
    """What rows have to fit; a service of items takes what there is."""
    return () if predictor.signature.items else predictor.signature.inputs
