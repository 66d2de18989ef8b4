"""How often does the accuracy gate accept what is just too bad, and how often what is as good?

Real models answer scikit-learn's data sets, each row out of its fold. All these rows are the *population*. A candidate
is the model with its answers disturbed until its drop in the population is just above the one that is allowed, or
nought. Each repetition draws rows of the population with replacement, and asks the gate: the truth is known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from benchmarks.bench import Group, Run, Table, say
from paceline.optimize.data.rows import Rows
from paceline.optimize.judging import gate, metrics

Outputs = dict[str, np.ndarray]
Planted = Callable[[float, np.random.Generator], Outputs]
"""A candidate, from how much it is disturbed."""

MOST_ACCEPTED = 0.05
REPETITIONS = 200
BUDGET = 0.01
BUDGETS = {"relative_error": 0.05, "rmse": 0.02, "mae": 0.02, "r2": 0.02}
"""What is allowed, where it is not `BUDGET`."""
SIZES = (100, 300, 1000)
MORE = 4000
"""Rows, beyond `SIZES`, where nothing is resampled, so that it takes no time."""
_CHURN = 0.01  # of the rows change for the better and for the worse
_NEAR = 1.02  # the drop that is planted is at most so many times the one that is allowed


@dataclass(frozen=True)
class Population:
    """Rows that a model has answered.

    Attributes:
        outputs: of the original.
        planted: makes candidates.
    """

    metric: str
    rows: Rows
    outputs: Outputs
    planted: Planted

    def draw(self, candidate: Outputs, count: int, random: np.random.Generator) -> tuple[Outputs, Outputs, Rows]:
        """What the original and a candidate say of rows that are drawn."""
        chosen = random.integers(0, self.rows.count, count)
        old, new = ({name: each[chosen] for name, each in outputs.items()} for outputs in (self.outputs, candidate))
        return old, new, self.rows.take(chosen)


def measure(run: Run) -> Group:
    """Accepted shares: of candidates that are just too bad, and of ones without a drop."""
    repetitions = run.either(REPETITIONS, 20)
    group = Group("accuracy gate: candidates with a planted drop")
    bad, good = [], []
    for population in populations():
        say(f"  {population.metric}")
        budget = BUDGETS.get(population.metric, BUDGET)
        sizes = (*SIZES, MORE) if metrics.METRICS[population.metric].counts else SIZES
        wrong = [accepted(population, budget, size, repetitions, seed=1) for size in sizes]
        right = [accepted(population, budget, size, repetitions, seed=2, drop=0.0) for size in sizes]
        for table, shares in ((bad, wrong), (good, right)):
            table.append([population.metric, f"{budget:.0%}", *shares, *[""] * (len(SIZES) + 1 - len(sizes))])
        group.samples[population.metric] = {"sizes": sizes, "just too bad": wrong, "no drop": right}
        group.check(f"{population.metric}: accepted of those just too bad", max(wrong), MOST_ACCEPTED, most=True)
    columns = ("metric", "allowed", *(f"{size} rows" for size in (*SIZES, MORE)))
    group.tables += [
        Table(f"accepted of {repetitions}: the drop is up to 2 % above the one allowed", columns, bad),
        Table(f"accepted of {repetitions}: answers change, without a drop", columns, good),
    ]
    group.notes.append("rows are drawn with replacement from 1797 digits, 569 biopsies and 442 patients")
    return group


def accepted(
    population: Population, budget: float, rows: int, repetitions: int, *, seed: int, drop: float | None = None
) -> float:
    """The share of repetitions in which the gate accepts.

    Args:
        drop: of the candidate in the population; None: just more than the budget.
    """
    random = np.random.default_rng([seed, rows])
    metric = metrics.METRICS[population.metric]
    bound = gate.Drop(budget, share=True)
    candidate = plant(population, budget, seed) if drop is None else unharmed(population, seed)
    found = 0
    for _ in range(repetitions):
        old, new, drawn = population.draw(candidate, rows, random)
        found += gate.judge(old=old, new=new, rows=drawn, metric=metric, max_drop=bound).accepted
    return found / repetitions


def plant(population: Population, budget: float, seed: int) -> Outputs:
    """The candidate that is disturbed just so much that its drop in the population is not allowed."""
    allowed = gate.Drop(budget, share=True).allowed(metrics.METRICS[population.metric], _value(population))
    low, high = 0.0, 1.0
    while _drop(population, _made(population, high, seed)) <= allowed:
        high *= 2.0
    while True:
        middle = (low + high) / 2.0
        candidate = _made(population, high, seed)
        if _drop(population, candidate) <= allowed * _NEAR or high - low < 1e-9:
            return candidate
        low, high = (low, middle) if _drop(population, _made(population, middle, seed)) > allowed else (middle, high)


def unharmed(population: Population, seed: int) -> Outputs:
    """A candidate whose answers change a little, without a drop that counts."""
    return _made(population, 1e-4, seed)


def _made(population: Population, much: float, seed: int) -> Outputs:
    return population.planted(much, np.random.default_rng(seed))


def _value(population: Population) -> float:
    metric = metrics.METRICS[population.metric]
    return metric.compare(population.outputs, population.outputs, population.rows).old


def _drop(population: Population, candidate: Outputs) -> float:
    found = metrics.METRICS[population.metric].compare(population.outputs, candidate, population.rows)
    return -found.worth


# -- populations ------------------------------------------------------------------------------------------------------


def populations() -> Iterator[Population]:
    """One for each metric, from three data sets."""
    digits, truth = digit_scores()
    rows = Rows({"X": np.arange(len(truth), dtype=np.float32)[:, None]}, truth)
    unlabelled = Rows(rows.inputs)
    classes = {"label": digits.argmax(axis=1)}
    yield Population("accuracy", rows, classes, _flips(classes["label"], truth))
    yield Population("f1_macro", rows, classes, _flips(classes["label"], truth))
    yield Population("agreement", unlabelled, classes, _flips(classes["label"], classes["label"], churn=0.0))
    yield Population("log_loss", rows, {"probabilities": digits}, _noisy_scores("probabilities", digits))
    yield Population("cosine", unlabelled, {"embedding": digits}, _noise("embedding", digits))
    scores, malign = biopsy_scores()
    rows = Rows({"X": np.arange(len(malign), dtype=np.float32)[:, None]}, malign)
    yield Population("roc_auc", rows, {"probabilities": scores}, _noisy_scores("probabilities", scores))
    classes = {"label": scores.argmax(axis=1)}
    yield Population("f1", rows, classes, _flips(classes["label"], malign))
    said, progress = patient_values()
    rows = Rows({"X": np.arange(len(progress), dtype=np.float32)[:, None]}, progress)
    for name in ("rmse", "mae", "r2"):
        yield Population(name, rows, {"variable": said}, _noise("variable", said))
    yield Population("relative_error", Rows(rows.inputs), {"variable": said}, _noise("variable", said))


def digit_scores() -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of ten classes for 1797 digits, and which they are."""
    from sklearn.datasets import load_digits

    return _scores(*load_digits(return_X_y=True))


def biopsy_scores() -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of two classes for 569 biopsies, and which they are."""
    from sklearn.datasets import load_breast_cancer

    return _scores(*load_breast_cancer(return_X_y=True))


def patient_values() -> tuple[np.ndarray, np.ndarray]:
    """What a ridge regression says of 442 patients, and how it was."""
    from sklearn.datasets import load_diabetes
    from sklearn.linear_model import RidgeCV
    from sklearn.model_selection import cross_val_predict

    rows, truth = load_diabetes(return_X_y=True)
    return cross_val_predict(RidgeCV(), rows, truth, cv=5).astype(np.float32), truth


def _scores(rows: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.05, max_iter=1000))
    return cross_val_predict(model, rows, truth, cv=5, method="predict_proba").astype(np.float32), truth


# -- what disturbs them -----------------------------------------------------------------------------------------------


def _flips(said: np.ndarray, truth: np.ndarray, churn: float = _CHURN) -> Planted:
    """Some classes become wrong, and some right: `churn` of the rows both ways, and `much` one way."""
    classes = int(truth.max()) + 1

    def planted(much: float, random: np.random.Generator) -> Outputs:
        order = random.permutation(len(said))
        right, wrong = order[said[order] == truth[order]], order[said[order] != truth[order]]
        gained = wrong[: round(churn * len(said))]
        lost = right[: len(gained) + round(much * len(said))]
        changed = said.copy()
        changed[gained] = truth[gained]
        changed[lost] = (truth[lost] + random.integers(1, classes, len(said))[: len(lost)]) % classes
        return {"label": changed}

    return planted


def _noise(name: str, values: np.ndarray) -> Planted:
    """Every number is a little off, by a part of their spread."""

    def planted(much: float, random: np.random.Generator) -> Outputs:
        return {name: values + (much * values.std() * random.standard_t(5, values.shape)).astype(np.float32)}

    return planted


def _noisy_scores(name: str, probabilities: np.ndarray) -> Planted:
    """Every logit is a little off."""
    logits = np.log(np.clip(probabilities, 1e-7, 1.0))

    def planted(much: float, random: np.random.Generator) -> Outputs:
        moved = np.exp(logits + much * random.standard_t(5, logits.shape))
        return {name: (moved / moved.sum(axis=1, keepdims=True)).astype(np.float32)}

    return planted
