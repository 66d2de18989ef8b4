"""The order of it all: what is tried, when is it enough, and what is served in the end?

Rules:
- The original is loaded, asked and timed first: without it there is nothing to compare with, and no study.
- Single candidates come first, the cheap ones before the dear; then combinations of those that passed the gate.
- Nothing starts that is not expected to end within the budget, but for the original and its conversion, without which
  there is nothing to try. What was not tried is said.
- Each result is written down at once; with the same command a study goes on where it was.
- Nothing is written outside of the output folder; an older bundle there is served until the new one is whole.
- That nothing helped is a good answer: the bundle then holds the original.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from paceline import __version__
from paceline.config.machine import usable_memory_bytes
from paceline.config.processor import processor
from paceline.core.errors import PacelineError
from paceline.optimize.candidate import Candidate
from paceline.optimize.processes import steps
from paceline.optimize.result import SCHEMA, Equality, Speed, Study, Tried
from paceline.optimize.search import pareto, space
from paceline.optimize.studying import bundling, run_off
from paceline.optimize.studying.opening import Opener, Opening
from paceline.optimize.studying.records import Records, alone, not_written
from paceline.optimize.studying.source import Onnx, Source, Steps, open_source, to_onnx
from paceline.optimize.studying.trial import Bench, built, said, trial
from paceline.optimize.wanted import Budget, Progress, Wanted
from paceline.runtimes import model_files
from paceline.runtimes.bundle import this_machine

_ROUNDS: Final = 2  # of combinations: pairs, then what refines the best pairs
_MAKING_S: Final = 1.0
_MAKING_S_PER_MB: Final = 0.02


def run(wanted: Wanted, progress: Progress) -> Study:
    """Study a model, and write the bundle.

    Raises:
        ConfigError: what was asked does not fit together, or the rows do not fit the model.
        ModelLoadError, RuntimeUnavailable, UnsafeModel, StepFailed: the original cannot be loaded, or asked.
    """
    space.check_names((*wanted.only, *wanted.skip), processor())
    source = open_source(wanted.model, allow_pickle=wanted.allow_pickle)
    try:
        with alone(wanted.folder), ExitStack() as stack:
            return _Study(wanted, source, progress, stack).run()
    except OSError as error:  # a full disk, say
        raise not_written(wanted.out, error) from error


class _Study:
    """One study, from the original to the bundle."""

    def __init__(self, wanted: Wanted, source: Source, progress: Progress, stack: ExitStack) -> None:
        self._wanted = wanted
        self._source = source
        self._progress = progress
        self._budget = Budget(wanted.budget_s)
        self._steps = Steps(wanted.folder / "steps", self._budget, progress)
        self._opener = Opener(wanted, source, self._steps, self._budget, progress, stack)
        self._tried: list[Tried] = []
        self._took_by_cost: dict[int, float] = {}

    def run(self) -> Study:
        """Do it all."""
        self._progress.begin(space.ORIGINAL, 0, 1)
        opening = self._opener.open()
        self._came(opening.tried)
        bench = Bench(
            wanted=self._wanted,
            opening=opening,
            onnx=self._converted(opening),
            budget=self._budget,
            steps=self._steps,
            progress=self._progress,
        )
        self._budget.is_opening = False
        if bench.onnx is not None:
            self._try_all(bench, bench.onnx)
        run_off.run_off(self._tried, bench)
        return self._finish(bench)

    # -- what is tried ----------------------------------------------------------------------------------------

    def _converted(self, opening: Opening) -> Onnx | None:
        """The model in ONNX; None, and a reason, where it cannot be had."""
        if not self._source.is_onnx:
            self._progress.begin(self._unchanged.name, 1, 2)
            self._progress.doing("converting it")
        try:
            return to_onnx(self._source, opening.native, opening.compared, self._wanted.allow_pickle, self._steps)
        except PacelineError as error:
            reason = said(error)
            opening.warnings.append(f"it cannot be converted to ONNX: {reason}")
            self._came(Tried(candidate=self._unchanged, status="failed", reasons=[reason]))
            return None

    @property
    def _unchanged(self) -> Candidate:
        """The model in ONNX, as all changes find it."""
        return space.opened() if self._source.is_onnx else space.converted(title=self._source.title)

    def _candidates(self, opening: Opening, onnx: Onnx) -> list[Candidate]:
        found = [] if onnx.path == opening.native else [self._unchanged]
        found += space.singles(onnx.facts, processor())
        return space.chosen(found, self._wanted.only, self._wanted.skip)

    def _try_all(self, bench: Bench, onnx: Onnx) -> None:
        wanted = self._wanted
        records = Records(wanted.folder / "records", self._question(bench.opening, onnx))
        first = self._candidates(bench.opening, onnx)
        known = sum(records.find(each) is not None for each in first)
        if known:
            self._progress.say(f"going on: {known} of {len(first)} were done before")
        self._try_each(first, bench, records)
        for _ in range(_ROUNDS):
            more = space.combined(self._tried, wanted.batch)
            more = [each for each in more if space.wanted(each.name, wanted.only, wanted.skip)]
            self._try_each(more, bench, records)

    def _try_each(self, candidates: list[Candidate], bench: Bench, records: Records) -> None:
        waiting = deque(candidates)
        while waiting:
            candidate = waiting.popleft()
            self._progress.begin(candidate.name, len(self._tried), len(self._tried) + 1 + len(waiting))
            tried = records.find(candidate)
            if tried is None:
                tried = self._skipped(candidate, bench)
                if tried is None:
                    tried = trial(candidate, bench)
                    cost = space.cost(candidate)
                    self._took_by_cost[cost] = max(tried.took_s, self._took_by_cost.get(cost, 0.0))
                    records.keep(tried)
            self._came(tried)

    def _came(self, tried: Tried) -> None:
        self._tried.append(tried)
        self._progress.done(tried)

    def _skipped(self, candidate: Candidate, bench: Bench) -> Tried | None:
        """With the reason why it is not tried; None when it is."""
        reason = self._reason_to_skip(candidate, bench)
        if reason:
            return Tried(candidate=candidate, status="skipped", reasons=[reason])
        foreseen_s = self._foreseen_s(candidate, bench)
        is_run_off = any(each.status == "accepted" for each in self._tried)
        left_s = max(0.0, self._budget.left_s - (run_off.foreseen_s(bench) if is_run_off else 0.0))
        if foreseen_s <= left_s:
            return None
        reason = f"it takes about {foreseen_s:.0f} s, and {left_s:.0f} s of the budget are left"
        return Tried(candidate=candidate, status="skipped", reasons=[reason], foreseen_s=foreseen_s)

    def _reason_to_skip(self, candidate: Candidate, bench: Bench) -> str:
        """Why it is not tried, however much time there is; "" when it may be."""
        before = next((each for each in self._tried if each.candidate.name == candidate.after), None)
        if before and before.foreseen_s is None and not (before.judgement and before.judgement.accepted):
            what = "was not tried" if before.status == "skipped" else "did not pass the gate"
            return f"{candidate.after}, which it goes further than, {what}"
        return bench.opening.uncalibrated if space.calibrates(candidate) else ""

    def _foreseen_s(self, candidate: Candidate, bench: Bench) -> float:
        """Seconds that it will take: as one that was as dear did, or by the size of the model."""
        cost = space.cost(candidate)
        if cost in self._took_by_cost:
            return self._took_by_cost[cost]
        assert bench.onnx is not None  # it is what candidates are made of
        timing = self._budget.timing_s + len(self._wanted.batches) * self._budget.other_timing_s
        making = cost * (_MAKING_S + _MAKING_S_PER_MB * bench.onnx.facts.weight_bytes / 1e6)
        return timing + making + bench.opening.baseline.took_s

    # -- what comes of it -------------------------------------------------------------------------------------

    def _finish(self, bench: Bench) -> Study:
        wanted, opening = self._wanted, bench.opening
        opening.tried.speeds = opening.baseline.speeds()
        for each in self._tried:
            each.speeds = [_at_its_pace(speed, opening.tried) for speed in each.speeds]
        chosen = pareto.best(self._tried, wanted.batch)
        for each in pareto.front(self._tried, wanted.batch):
            each.on_front = True
        model = built(chosen.candidate, bench, [])
        for each in self._tried:
            each.file = None if each.file is None else self._shown(Path(each.file))
        if bench.onnx is not None:
            self._tell(bench.onnx.notes, opening)
        study = self._document(opening, None if bench.onnx is None else bench.onnx.equality, chosen)
        bundling.write(wanted.out, self._source.name, model, chosen, study, opening.evaluation)
        return study

    def _tell(self, notes: Sequence[str], opening: Opening) -> None:
        """How the model became what all changes start from: with the candidate that is just that, if it was tried."""
        tried = next((each for each in self._tried if each.candidate == self._unchanged), None)
        (opening.warnings if tried is None else tried.reasons).extend(notes)

    def _document(self, opening: Opening, equality: Equality | None, chosen: Tried) -> Study:
        native, wanted = opening.native, self._wanted
        return Study(
            schema=SCHEMA,
            paceline=__version__,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            command=list(wanted.command),
            source={
                "file": Path(wanted.model).name,
                "format": self._source.title,
                "allow_pickle": wanted.allow_pickle and self._source.needs_leave,
                "size_bytes": model_files.size_bytes(native),
                "sha256": model_files.digest(native),
            },
            data={
                "file": wanted.data.name,
                "rows": opening.rows.count,
                "calibration_rows": opening.calibration_rows,
                "evaluation_rows": opening.evaluation.count,
                "inputs": {name: f"{each.dtype} {list(each.shape[1:])}" for name, each in opening.rows.inputs.items()},
                "labels": opening.rows.labels is not None,
                "sha256": opening.rows.digest(),
            },
            machine={**this_machine(), "memory_bytes": usable_memory_bytes()},
            versions=steps.versions(*self._source.modules),
            batch=wanted.batch,
            metric=opening.metric.name,
            equality=equality,
            candidates=self._tried,
            chosen=chosen.candidate.name,
            price_per_hour=wanted.price_per_hour,
            warnings=opening.warnings,
            budget_s=wanted.budget_s,
            took_s=self._budget.spent_s,
        )

    def _shown(self, path: Path) -> str:
        """Relative to the study's folder where it lies in there."""
        folder = self._wanted.out.absolute()
        path = path.absolute()
        return str(path.relative_to(folder)) if path.is_relative_to(folder) else path.name

    def _question(self, opening: Opening, onnx: Onnx) -> dict[str, Any]:
        """Everything that a candidate's result depends on, besides the candidate."""
        wanted = self._wanted
        return {
            "native": model_files.digest(opening.native),
            "onnx": model_files.digest(onnx.path),
            "rows": [model_files.digest(opening.calibration), opening.evaluation.digest()],
            "metric": opening.metric.name,
            "max_drop": None if wanted.max_drop is None else str(wanted.max_drop),
            "batches": [wanted.batch, *wanted.batches],
            "threads": opening.threads,
            "machine": this_machine(),
            "versions": steps.versions(*self._source.modules),
            "schema": SCHEMA,
        }


def _at_its_pace(speed: Speed, baseline: Tried) -> Speed:
    """With times as they would have been while the baseline ran at its median over all of its runs.

    A ratio is of runs in turn, and a candidate's own times are of one moment: beside the baseline's they would
    contradict it.
    """
    median_s = next(each.median_s for each in baseline.speeds if each.batch == speed.batch) / speed.ratio
    p99_s = speed.p99_s * median_s / speed.median_s
    return msgspec.structs.replace(speed, median_s=median_s, p99_s=p99_s, rows_per_s=speed.batch / median_s)


def write_json(study: Study, path: Path) -> None:
    """Write the document."""
    steps.write_whole(path, msgspec.json.format(msgspec.json.encode(study), indent=1) + b"\n")
