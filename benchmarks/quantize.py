"""What do 8-bit integers bring, and what is left of the answers? Of a wide network, and of a sentence encoder.

The wide network, 64-2048-2048-10, is trained on half of scikit-learn's digits, and judged on the other half. The
encoder is all-MiniLM-L6-v2, with sentences of 24 tokens and more, of which it reads 32; its answers are compared with
those of the original. Each way runs as a server would run it, in a process of its own, without a server around it;
all are timed in turn, so that a ratio is one of the same moments.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import models
from benchmarks.bench import BenchError, Group, Run, Table, say
from paceline.config.processor import processor
from paceline.core.errors import PacelineError
from paceline.optimize.candidate import Candidate, Change, Made
from paceline.optimize.data.rows import Rows
from paceline.optimize.judging import gate
from paceline.optimize.judging.gate import Drop
from paceline.optimize.judging.metrics import Metric, named
from paceline.optimize.measure import in_turn
from paceline.optimize.processes import steps
from paceline.optimize.processes.predictor import Predictor
from paceline.optimize.result import Judgement, Speed
from paceline.optimize.search import facts, space
from paceline.runtimes.options import RuntimeOptions

_THREADS = (1, 2)
_INT8 = ("int8-dynamic", "int8-dynamic-channels", "int8-minmax", "int8-minmax-tensor")
_OPENVINO = ("openvino", "openvino-bf16", "int8-minmax.openvino", "int8-minmax-tensor.openvino")
_PRUNED = ("pruned-50", "pruned-50.int8-minmax-tensor", "pruned-75.int8-minmax-tensor")
_FUSED = ("fused", "fused.int8-dynamic-channels", "fused.int8-minmax", "int8-mixed")
_ONLY_MEASURED = (
    Candidate(
        name="pruned-50-by-size",
        title="units chosen by their size, and nothing fitted",
        changes=(Change(call="prune:structured", arguments={"ratio": 0.5, "refit": False}),),
    ),
    Candidate(
        name="zeros-80",
        title="80 % of the weights set to zero",
        changes=(Change(call="prune:unstructured", arguments={"sparsity": 0.8}),),
    ),
)
"""What the optimizer does not try."""

_STEP_S = 900.0
_WARM_UP_ROWS = 256


@dataclass(frozen=True)
class Subject:
    """A model that is quantized.

    Attributes:
        others: candidates beside those of the optimizer that are called `names`.
        least: by number of rows: how many times faster the best 8-bit way has to be, one that passes the gate.
    """

    name: str
    title: str
    model: Path
    calibration: Path
    evaluation: Rows
    metric: Metric
    allowed: Drop
    least: dict[int, float]
    names: Sequence[str]
    others: Sequence[Candidate] = ()


@dataclass(frozen=True)
class Way:
    """A candidate as it was made.

    Attributes:
        judgement: None: of the original.
    """

    candidate: Candidate
    model: Path
    judgement: Judgement | None
    notes: Sequence[str] = ()

    @property
    def passed(self) -> bool:
        """True when the gate lets it through."""
        return self.judgement is None or self.judgement.accepted

    @property
    def is_int8(self) -> bool:
        """True when 8 bits are all that it changes, but for operators fused."""
        return "int8" in self.candidate.name and "pruned" not in self.candidate.name


def measure_wide(run: Run) -> Group:
    """The wide network."""
    return _measured(run, wide(run))


def measure_encoder(run: Run) -> Group:
    """The sentence encoder."""
    return _measured(run, encoder(run))


def wide(run: Run) -> Subject:
    """The wide network, trained."""
    if find_spec("sklearn") is None:
        raise BenchError("scikit-learn is not installed here; pip install 'paceline[demo]'")
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    pixels, labels = load_digits(return_X_y=True)
    parts = train_test_split((pixels / 16).astype(np.float32), labels, test_size=0.5, random_state=0, stratify=labels)
    seen, new = Rows({"x": parts[0]}, parts[2]), Rows({"x": parts[1]}, parts[3])
    folder = run.models / "quantize"
    model = folder / "wide.onnx"
    if not model.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _train(seen, models.mlp(run.models, models.WIDE), model)
    seen.save(folder / "digits.npz")
    return Subject(
        name="wide",
        title="a network of two layers of 2048",
        model=model,
        calibration=folder / "digits.npz",
        evaluation=new,
        metric=named("accuracy", labelled=True),
        allowed=gate.parse_drop("1%"),
        least={1: 2.5, 128: 4.0},
        names=(*_INT8, *_openvino(), *_PRUNED),
        others=_ONLY_MEASURED,
    )


def encoder(run: Run) -> Subject:
    """all-MiniLM-L6-v2."""
    model, _ = models.minilm(run)
    sentences = dict(np.load(models.sentences(run)))
    half = len(sentences["input_ids"]) // 2
    seen, new = (Rows({name: array[part] for name, array in sentences.items()}) for part in _halves(half))
    folder = run.models / "quantize"
    folder.mkdir(parents=True, exist_ok=True)
    seen.save(folder / "sentences.npz")
    return Subject(
        name="minilm",
        title="all-MiniLM-L6-v2, 32 tokens",
        model=model,
        calibration=folder / "sentences.npz",
        evaluation=new,
        metric=named("cosine", labelled=False),
        allowed=gate.parse_drop("1%"),
        least={1: 1.8},
        names=(*_INT8, *_FUSED, *_openvino()),
    )


def _halves(half: int) -> tuple[slice, slice]:
    return slice(0, half), slice(half, 2 * half)


def _openvino() -> tuple[str, ...]:
    return _OPENVINO if find_spec("openvino") else ()


def _train(seen: Rows, like: Path, target: Path) -> None:
    """Write a network with the weights of a trained one in the places of random ones."""
    import onnx
    from onnx import numpy_helper
    from sklearn.neural_network import MLPClassifier

    say("  training the wide network")
    trained = MLPClassifier(models.WIDE[1:-1], max_iter=12, tol=0.0, n_iter_no_change=12, random_state=0)
    trained.fit(seen.inputs["x"], seen.labels)
    model = onnx.load(str(like))
    arrays = {f"w{place}": each for place, each in enumerate(trained.coefs_)}
    arrays |= {f"b{place}": each for place, each in enumerate(trained.intercepts_)}
    for each in model.graph.initializer:
        each.CopyFrom(numpy_helper.from_array(arrays[each.name].astype(np.float32), each.name))
    onnx.save(model, str(target))


def _measured(run: Run, subject: Subject) -> Group:
    ways = _made(run, subject)
    speeds = {
        (threads, batch): _timed(run, subject, ways, threads, batch) for threads in _THREADS for batch in subject.least
    }
    group = Group(f"8-bit integers against single precision: {subject.title}, without a server around it")
    group.tables = [_gate_table(subject, ways), _speed_table(subject, ways, speeds)]
    _check(group, subject, ways, speeds)
    group.samples = {
        f"{threads} threads, {batch} rows": {
            way.candidate.name: _plain(speed) for way, speed in zip(ways, found, strict=True)
        }
        for (threads, batch), found in speeds.items()
    }
    chip = processor()
    group.notes = [f"{chip.model}: {'has' if chip.has_int8_dot else 'lacks'} an instruction for 8-bit dot products"]
    return group


def _made(run: Run, subject: Subject) -> list[Way]:
    """The original first, then each way that can be made; all judged."""
    known = space.singles(facts.read(subject.model), processor())
    wanted = space.chosen(known, subject.names, [])
    plain = Candidate(name="float", title="single precision, ONNX Runtime")
    old = _answers(subject, subject.model, plain.options)
    ways = [Way(plain, subject.model, None)]
    for candidate in (*sorted(wanted, key=lambda each: subject.names.index(each.name)), *subject.others):
        say(f"  {subject.name}: {candidate.name}")
        try:
            model, notes = _changed(run, subject, candidate)
            new = _answers(subject, model, candidate.options)
        except PacelineError as error:
            say(f"    {error}")
            continue
        judged = gate.judge(old=old, new=new, rows=subject.evaluation, metric=subject.metric, max_drop=subject.allowed)
        ways.append(Way(candidate, model, judged, notes))
    return ways


def _changed(run: Run, subject: Subject, candidate: Candidate) -> tuple[Path, list[str]]:
    model, notes = subject.model, []
    for change in candidate.changes:
        call = f"transforms.{change.call}"
        arguments: dict[str, Any] = {**change.arguments, "model": model, "rows": subject.calibration}
        folder = steps.folder_of(run.models / "quantize" / "steps", call, arguments)
        made = steps.run(call, Made, arguments, folder, timeout_s=_STEP_S)
        notes += made.notes
        model = folder / made.file
    return model, notes


def _answers(subject: Subject, model: Path, options: RuntimeOptions) -> dict[str, Any]:
    with Predictor(model, options, threads=max(_THREADS)) as predictor:
        return predictor.predict(subject.evaluation, batch=1)


def _timed(run: Run, subject: Subject, ways: Sequence[Way], threads: int, batch: int) -> list[Speed]:
    """Of each way, beside the original."""
    say(f"  {subject.name}: {threads} threads, {batch} rows at a time")
    few = subject.evaluation.take(np.arange(min(_WARM_UP_ROWS, subject.evaluation.count)))
    with ExitStack() as stack:
        predictors = [stack.enter_context(Predictor(way.model, way.candidate.options, threads=threads)) for way in ways]
        runs = in_turn(predictors, few, batch=batch, seconds=run.either(4.0, 0.5) * len(ways))
    return [each.speed(runs[0]) for each in runs]


def _gate_table(subject: Subject, ways: Sequence[Way]) -> Table:
    rows = []
    for way in ways[1:]:
        judged = way.judgement
        assert judged is not None
        interval = f"{100 * judged.low:+.2f} to {100 * judged.high:+.2f} %"
        rows.append([way.candidate.name, judged.new, interval, "yes" if judged.accepted else "no", way.notes[-1:]])
    title = f"{subject.title}: {subject.metric.title}, on {subject.evaluation.count} rows that were not seen"
    return Table(
        title, ("way", subject.metric.name, "difference, 95 %", "passes", "note"), [_told(row) for row in rows]
    )


def _told(row: list[Any]) -> list[Any]:
    return [row[0], f"{row[1]:.4f}", row[2], row[3], row[4][0] if row[4] else ""]


def _speed_table(subject: Subject, ways: Sequence[Way], speeds: dict[tuple[int, int], list[Speed]]) -> Table:
    columns = ["way", *(f"{threads} thr, {batch} rows: us, x" for threads, batch in speeds)]
    rows = [[way.candidate.name, *(_cell(found[place]) for found in speeds.values())] for place, way in enumerate(ways)]
    return Table(f"{subject.title}: time of a run, and how many times faster than in float", columns, rows)


def _cell(speed: Speed) -> str:
    return f"{speed.median_s * 1e6:.0f}, {speed.ratio:.2f}"


def _check(group: Group, subject: Subject, ways: Sequence[Way], speeds: dict[tuple[int, int], list[Speed]]) -> None:
    for (threads, batch), found in speeds.items():
        best, ratio = max(
            (
                (way.candidate.name, speed.ratio)
                for way, speed in zip(ways, found, strict=True)
                if way.is_int8 and way.passed
            ),
            key=lambda each: each[1],
            default=("none", 0.0),
        )
        what = f"{subject.name}, {batch} rows, {threads} threads: rows/s of {best} by those of float"
        group.check(what, ratio, subject.least[batch], "x")


def _plain(speed: Speed) -> dict[str, float]:
    return {name: getattr(speed, name) for name in ("median_s", "p99_s", "ratio", "ratio_low", "ratio_high")}
