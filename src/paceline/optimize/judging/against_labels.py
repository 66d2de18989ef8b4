"""How good are two models' answers, beside what is true?

Rules:
- Values are scikit-learn's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final, Literal

import numpy as np

from paceline.core.errors import ConfigError
from paceline.core.tensors import Array
from paceline.optimize.data.rows import Rows
from paceline.optimize.judging import answers
from paceline.optimize.judging.answers import Codes, Floats, Outputs
from paceline.optimize.judging.intervals import Statistic
from paceline.optimize.judging.paired import Comparison, by_row, labels_of, mean_of, paired, root_of

_LEAST: Final = float(np.finfo(np.float64).eps)  # as scikit-learn clips probabilities
_PADDING: Final = 2


def accuracy(old: Outputs, new: Outputs, rows: Rows) -> Comparison:
    """The share of rows whose class is right."""
    truth, was, now, _ = answers.decided(old, new, labels_of(rows))
    right = [(each == truth).astype(np.float64) for each in (was, now)]
    gained, lost = int((right[1] > right[0]).sum()), int((right[1] < right[0]).sum())
    return paired(mean_of(right[0]), mean_of(right[1]), len(truth), gained=gained, lost=lost)


def f1(kind: Literal["auto", "macro"]) -> Callable[[Outputs, Outputs, Rows], Comparison]:
    """The harmonic mean of precision and recall.

    Args:
        kind: `auto`: of the second of two classes, else the mean over classes, as `macro` always is.
    """

    def compare(old: Outputs, new: Outputs, rows: Rows) -> Comparison:
        truth, was, now, names = answers.decided(old, new, labels_of(rows))
        classes = [1] if kind == "auto" and len(names) <= 2 else list(range(len(names)))
        plain = [_f1_of(truth, each, classes) for each in (was, now)]
        truth, was, now = _padded(truth, was, now)
        smooth = paired(_f1_of(truth, was, classes), _f1_of(truth, now, classes), len(truth))
        one = np.ones((1, rows.count))
        return replace(smooth, old=float(plain[0](one)[0]), new=float(plain[1](one)[0]))

    return compare


def _padded(truth: Codes, old: Codes, new: Codes) -> tuple[Codes, Codes, Codes]:
    """With two rows more of the rarest class that only the old model has right, and two that only the new one has.

    Without them a bootstrap of answers that did not change on few rows would be sure that they never do. With two of
    each, its interval then is as wide as Tango's: 1.96 * sqrt(4) rows, against 1.96^2. (The padding of Wald's interval
    by A. Agresti and Y. Min, Statistics in Medicine 24 (2005) 729-740, has the same purpose.)
    """
    found, counts = np.unique(truth, return_counts=True)
    rare = found[counts.argmin()]
    wrong = found[counts.argmax()] if len(found) > 1 else rare + 1
    right, missed = np.full(_PADDING, rare), np.full(_PADDING, wrong)
    return (
        np.concatenate([truth, right, right]),
        np.concatenate([old, right, missed]),
        np.concatenate([new, missed, right]),
    )


def _f1_of(truth: Codes, said: Codes, classes: Sequence[int]) -> Statistic:
    """The mean over classes of 2 * hits / (true + said); without the classes that a resample has not."""
    true = (truth[:, None] == np.array(classes)).astype(np.float64)
    says = (said[:, None] == np.array(classes)).astype(np.float64)

    def value(weights: Floats) -> Floats:
        hits, whole = weights @ (true * says), weights @ (true + says)
        with np.errstate(invalid="ignore"):
            each = 2.0 * hits / whole
        there = whole > 0.0
        count = there.sum(axis=1)
        mean: Floats = np.where(there, each, 0.0).sum(axis=1) / np.maximum(count, 1)
        return mean

    return value


def roc_auc(old: Outputs, new: Outputs, rows: Rows) -> Comparison:
    """The area under the receiver operating characteristic; of several classes, the mean of each against the rest."""
    was, now, true = _scored(old, new, rows)
    columns = [1] if was.shape[1] == 2 else range(was.shape[1])

    return paired(_mean_auc(was, true, columns), _mean_auc(now, true, columns), rows.count)


def _mean_auc(scores: Floats, truth: Codes, columns: Sequence[int]) -> Statistic:
    parts = [_auc(scores[:, each], truth == each) for each in columns]
    return lambda weights: np.mean([part(weights) for part in parts], axis=0)


def _auc(scores: Floats, positive: Array) -> Statistic:
    """The share of pairs of a positive and a negative row that the scores order rightly; ties count half."""
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.concatenate([[True], np.diff(scores[order]) > 0.0]))
    is_positive = positive[order].astype(np.float64)

    def value(weights: Floats) -> Floats:
        placed = weights[:, order]
        right = np.add.reduceat(placed * is_positive, starts, axis=1)
        wrong = np.add.reduceat(placed * (1.0 - is_positive), starts, axis=1)
        below = np.cumsum(wrong, axis=1) - wrong
        pairs = right.sum(axis=1) * wrong.sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            found: Floats = (right * (below + wrong / 2.0)).sum(axis=1) / pairs
        return found

    return value


def log_loss(old: Outputs, new: Outputs, rows: Rows) -> Comparison:
    """The mean negative logarithm of the probability of what is true."""
    was, now, true = _scored(old, new, rows)
    places = np.arange(rows.count)
    losses = [-np.log(np.clip(each[places, true], _LEAST, 1.0 - _LEAST)) for each in (was, now)]
    return paired(mean_of(losses[0]), mean_of(losses[1]), rows.count, falls=False)


def _scored(old: Outputs, new: Outputs, rows: Rows) -> tuple[Floats, Floats, Codes]:
    scores = answers.find_scores(old)
    if scores is None:
        raise ConfigError(
            f"no output holds scores of classes: {answers.described(old)}", hint="--metric accuracy compares classes"
        )
    was, now = scores.read(old), scores.read(new)
    return was, now, answers.true_columns(labels_of(rows), was.shape[1])


def rmse(old: Outputs, new: Outputs, rows: Rows) -> Comparison:
    """The root of the mean squared error."""
    was, now = (by_row((each - true) ** 2) for each, true in _numbers(old, new, rows))
    return paired(root_of(mean_of(was)), root_of(mean_of(now)), rows.count, falls=False)


def mae(old: Outputs, new: Outputs, rows: Rows) -> Comparison:
    """The mean absolute error."""
    was, now = (by_row(np.abs(each - true)) for each, true in _numbers(old, new, rows))
    return paired(mean_of(was), mean_of(now), rows.count, falls=False)


def r2(old: Outputs, new: Outputs, rows: Rows) -> Comparison:
    """The coefficient of determination."""
    (was, true), (now, _) = _numbers(old, new, rows)
    if true.ndim > 1:
        raise ConfigError("r2 is of one number for each row", hint="--metric rmse")
    centered = true - true.mean()

    def of(said: Floats) -> Statistic:
        error = mean_of((said - true) ** 2)
        mean, square = mean_of(centered), mean_of(centered**2)

        def value(weights: Floats) -> Floats:
            with np.errstate(invalid="ignore", divide="ignore"):
                found: Floats = 1.0 - error(weights) / (square(weights) - mean(weights) ** 2)
            return found

        return value

    return paired(of(was), of(now), rows.count)


def _numbers(old: Outputs, new: Outputs, rows: Rows) -> list[tuple[Floats, Floats]]:
    """What each says, beside what is true."""
    labels = answers.squeezed(labels_of(rows))
    if labels.dtype.kind not in "biuf":
        classifies = answers.find_classes(old) or answers.find_scores(old)
        raise ConfigError(
            f"expected labels that are numbers, as the model predicts, got words: {answers.shown(labels)}",
            hint="--metric accuracy compares classes" if classifies else "choose another column of labels",
        )
    name = next(iter(answers.find_numbers(old) or [each for each in old if old[each].dtype.kind in "iu"]), None)
    if name is None or answers.squeezed(old[name]).shape != labels.shape:
        raise ConfigError(
            f"no output has a number for each label: {answers.described(old)}; labels {list(labels.shape)}",
            hint="--metric accuracy compares classes",
        )
    true = labels.astype(np.float64)
    return [(answers.squeezed(each[name]).astype(np.float64), true) for each in (old, new)]
