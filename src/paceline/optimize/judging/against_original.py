"""How alike are the answers of a candidate and of the original, where nobody knows what is true?"""

from __future__ import annotations

import math

import numpy as np

from paceline.core.errors import ConfigError
from paceline.core.tensors import Array
from paceline.optimize.judging import answers
from paceline.optimize.judging.answers import Floats, Outputs
from paceline.optimize.judging.intervals import Statistic
from paceline.optimize.judging.paired import Comparison, beside_itself, by_row, mean_of


def agreement(old: Outputs, new: Outputs) -> Comparison:
    """The share of rows of which both say the same class, in every output that says one."""
    was, now = _classes(old, old), _classes(new, old)
    same = [by_row(one == other) for one, other in zip(was, now, strict=True)]
    agreed = np.all(np.stack(same) == 1.0, axis=0).astype(np.float64)
    return beside_itself(1.0, mean_of(agreed), len(agreed), lost=int((agreed == 0.0).sum()))


def relative_error(old: Outputs, new: Outputs) -> Comparison:
    """The mean absolute change, by the mean absolute deviation of the original; of several outputs the largest.

    That is the relative absolute error of I. Witten and E. Frank (Data Mining, 2nd edition, 5.8), with the original in
    place of what is true: 1 for a candidate that says the same of every row.
    """
    parts = [_relative(old[name].astype(np.float64), new[name].astype(np.float64)) for name in _named_numbers(old)]
    rows = len(next(iter(old.values())))
    return beside_itself(0.0, lambda weights: np.max([part(weights) for part in parts], axis=0), rows, falls=False)


def _relative(old: Floats, new: Floats) -> Statistic:
    change, size = by_row(np.abs(new - old)), by_row(np.abs(old - old.mean(axis=0)))
    if not size.any():
        size = by_row(
            np.maximum(np.abs(old), float(not old.any()))
        )  # beside zeros alone, an error is as large as it is
    mean_change, mean_size = mean_of(change), mean_of(size)
    tiny = float(np.finfo(np.float64).tiny)
    return lambda weights: mean_change(weights) / np.maximum(mean_size(weights), tiny)


def cosine(old: Outputs, new: Outputs) -> Comparison:
    """Of each row the worst of its outputs: the cosine of the angle between the two answers."""
    found = [_cosines(old[name], new[name]) for name in _named_numbers(old) if old[name].ndim > 1]
    if not found:
        hint = "--metric relative_error compares numbers"
        raise ConfigError(f"no output is a vector: {answers.described(old)}", hint=hint)
    worst = np.min(found, axis=0)
    return beside_itself(1.0, mean_of(worst), len(worst))


def _classes(outputs: Outputs, like: Outputs) -> list[Array]:
    """Per row the classes that it says, or the places of its highest scores; where, `like` tells."""
    names = answers.find_classes(like)
    if names:
        return [_plain(answers.squeezed(outputs[name])) for name in names]
    scores = answers.find_scores(like)
    if scores is not None:
        return [scores.read(outputs).argmax(axis=1)]
    deep = [name for name in answers.find_numbers(like) if like[name].ndim > 2 and like[name].shape[-1] > 1]
    if not deep:
        hint = "--metric relative_error compares numbers"
        raise ConfigError(f"no output says a class: {answers.described(like)}", hint=hint)
    return [outputs[name].argmax(axis=-1) for name in deep]


def _named_numbers(outputs: Outputs) -> list[str]:
    names = answers.find_numbers(outputs)
    if not names:
        raise ConfigError(f"no output holds numbers: {answers.described(outputs)}", hint="--metric agreement")
    return names


def _cosines(old: Array, new: Array) -> Floats:
    was, now = (each.reshape(len(each), -1).astype(np.float64) for each in (old, new))
    lengths = np.linalg.norm(was, axis=1) * np.linalg.norm(now, axis=1)
    both_zero = ~was.any(axis=1) & ~now.any(axis=1)
    found: Floats = np.where(both_zero, 1.0, (was * now).sum(axis=1) / np.where(lengths > 0.0, lengths, math.inf))
    return found


def _plain(array: Array) -> Array:
    return answers.texts(array) if array.dtype.kind in "USO" else array
