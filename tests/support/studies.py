"""Studies of optimizations: answers of a real model that are disturbed, judged by the real gate; times are made up."""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec
import numpy as np

from paceline.optimize.candidate import Candidate, Change
from paceline.optimize.data.rows import Rows
from paceline.optimize.judging import gate, metrics
from paceline.optimize.result import Equality, Judgement, Speed, Status, Study, Tried
from paceline.optimize.search import pareto
from paceline.runtimes.options import RuntimeOptions

BATCHES = (1, 8, 64)
_BASE_S = 4e-4


class Silent:
    """Tells nobody how a study goes."""

    def say(self, text: str) -> None: ...

    def begin(self, name: str, done: int, total: int) -> None: ...

    def doing(self, text: str) -> None: ...

    def done(self, tried: Tried) -> None: ...


@cache
def answers() -> tuple[dict[str, np.ndarray], Rows]:
    """Probabilities of a classifier for digits that it was not trained on, and which they are."""
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression

    rows, truth = load_digits(return_X_y=True)
    rows = (rows / 16.0).astype(np.float32)
    model = LogisticRegression(C=0.1, max_iter=500).fit(rows[:600], truth[:600])
    said = model.predict_proba(rows[600:]).astype(np.float32)
    return {"probabilities": said}, Rows({"X": rows[600:]}, truth[600:])


@cache
def judged(noise: float, *, metric: str = "accuracy", seed: int = 0) -> Judgement:
    """What the gate says of the answers with so much noise on their logits."""
    old, rows = answers()
    random = np.random.default_rng(seed)
    moved = np.exp(np.log(old["probabilities"] + 1e-9) + noise * random.standard_normal(old["probabilities"].shape))
    new = {"probabilities": (moved / moved.sum(axis=1, keepdims=True)).astype(np.float32)}
    return gate.judge(old=old, new=new, rows=rows, metric=metrics.METRICS[metric], max_drop=gate.parse_drop("1%"))


def speeds(ratio: float, threads: int = 1) -> list[Speed]:
    """At every batch."""
    found = []
    for batch in BATCHES:
        median = _BASE_S * (0.6 + 0.4 * batch) / ratio
        found.append(
            Speed(
                batch=batch, threads=threads, median_s=median, p99_s=median * 1.4, rows_per_s=batch / median,
                ratio=ratio, ratio_low=ratio * 0.97, ratio_high=ratio * 1.04, runs=240,
            )
        )  # fmt: skip
    return found


def tried(name: str, title: str, status: Status, **changed: Any) -> Tried:
    """A candidate, and what came of it."""
    calls = changed.pop("calls", ())
    options = changed.pop("options", RuntimeOptions())
    candidate = Candidate(
        name=name,
        title=title,
        native=status == "baseline",
        changes=tuple(Change(call=call) for call in calls),
        options=options,
        needs=changed.pop("needs", ""),
    )
    return Tried(candidate=candidate, status=status, **changed)


def candidates(metric: str = "accuracy") -> list[Tried]:
    """One of each kind."""
    openvino = RuntimeOptions(runtime="openvino")
    return [
        tried("original", "as it came: ONNX", "baseline", speeds=speeds(1.0), size_bytes=18_400_000, file="m.onnx"),
        tried(
            "openvino", "OpenVINO", "accepted", speeds=speeds(1.31), judgement=judged(0.0, metric=metric),
            size_bytes=18_400_000, options=openvino,
        ),
        tried(
            "int8-dynamic", "int8, dynamic, per channel", "accepted", speeds=speeds(2.61),
            judgement=judged(0.02, metric=metric), size_bytes=4_700_000, calls=("transforms.quantize:dynamic",),
            needs="the processor sums 8-bit products in one instruction (VNNI)",
        ),
        tried(
            "graph-basic", "basic graph optimization", "rejected", speeds=speeds(0.98),
            judgement=judged(0.0, metric=metric), reasons=["0.98 times as fast: at least 1.05 times is worth it"],
            size_bytes=18_400_000,
        ),
        tried(
            "int8-static", "int8, static, MinMax", "rejected", judgement=judged(2.5, metric=metric, seed=1),
            size_bytes=4_700_000, calls=("transforms.quantize:static",),
        ),
        tried("pruned-50", "half of the hidden units", "failed", reasons=["its process ran out of memory"]),
        tried("int8-mixed", "int8, mixed", "skipped", reasons=["no operator has to stay in float"]),
    ]  # fmt: skip


def study(metric: str = "accuracy", **changed: Any) -> Study:
    """A whole one, in which a candidate was chosen."""
    _, rows = answers()
    found = candidates(metric)
    for each in pareto.front(found, 1):
        each.on_front = True
    made = Study(
        paceline="0.6.0",
        created="2024-05-06T07:08:09+00:00",
        command=["paceline", "optimize", "digits.onnx", "--data", "rows.npz", "--labels", "y"],
        source={"file": "digits.onnx", "format": "ONNX", "size_bytes": 18_400_000, "sha256": "ab" * 32},
        data={"file": "rows.npz", "rows": 1797, "evaluation_rows": rows.count, "labels": True,
              "inputs": {"X": "float32 [64]"}},
        machine={"processor": "a processor with VNNI", "architecture": "x86_64", "cores": 2},
        versions={"onnxruntime": "1.20", "paceline": "0.6.0"},
        batch=1,
        metric=metric,
        candidates=found,
        chosen="int8-dynamic",
        took_s=61.0,
    )  # fmt: skip
    return msgspec.structs.replace(made, **changed)


def priced() -> Study:
    """With a price, a conversion and a warning."""
    equality = Equality(
        rows=1797, largest_error=0.031, largest_relative=4e-6, tolerance=1e-5, rows_apart=2, labels_apart=2, ties=2,
        notes=["2 rows lie on thresholds"],
    )  # fmt: skip
    return study(price_per_hour=0.17, equality=equality, warnings=["1 label was never predicted"])


def hurried() -> Study:
    """In which there was no time for most candidates."""
    found = candidates()
    late = [
        tried(name, name, "skipped", reasons=["it takes about 9 s, and 2 s of the budget are left"], foreseen_s=9.0)
        for name in ("pruned-25", "int8-entropy", "int8-percentile")
    ]
    return study(candidates=[*found, *late], budget_s=60.0)


def helpless() -> Study:
    """In which nothing helped."""
    found = [each for each in candidates() if each.status != "accepted"]
    return study(candidates=found, chosen="original")


def alone() -> Study:
    """Of the original, and nothing else."""
    return study(candidates=candidates()[:1], chosen="original")
