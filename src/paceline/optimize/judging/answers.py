"""What does a model's answer say: which class, scores of classes, or numbers?

Rules:
- Which output is read, and how, is told by the original's answers, and then holds for every candidate: one whose
  probabilities no longer sum to one is judged by them all the same.
- A class is said by an output of integers or text; where there is none, by the column with the highest score.
- One column of numbers between 0 and 1 is the probability of the second of two classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from paceline.core.errors import ConfigError
from paceline.core.tensors import Array

Outputs = Mapping[str, Array]
Floats = NDArray[np.float64]
Codes = NDArray[np.int64]

_CLASS_KINDS: Final = "biuUSO"
_SCORE_WORDS: Final = ("prob", "logit", "score", "softmax")
_SUM_TOLERANCE: Final = 1e-2  # of probabilities in half precision
_SHOWN: Final = 5


@dataclass(frozen=True)
class Scores:
    """Where the scores of classes are.

    Attributes:
        output: its name.
        form: `columns`: probabilities, one for each class; `logits`: numbers that softmax makes probabilities;
            `second`: the probability of the second of two classes.
    """

    output: str
    form: Literal["columns", "logits", "second"]

    def read(self, outputs: Outputs) -> Floats:
        """Probabilities of shape [rows, classes]."""
        found = squeezed(outputs[self.output]).astype(np.float64)
        if self.form == "second":
            return np.stack([1.0 - found, found], axis=1)
        return softmax(found) if self.form == "logits" else found


def find_scores(outputs: Outputs) -> Scores | None:
    """The output that holds scores of classes, if one may; one that is called so comes first."""
    found = [name for name, each in outputs.items() if each.dtype.kind == "f"]
    wide = [name for name in found if squeezed(outputs[name]).ndim == 2]
    wide.sort(key=lambda name: not is_called_scores(name))
    for name in wide:
        return Scores(name, "columns" if are_probabilities(outputs[name]) else "logits")
    for name in found:
        each = squeezed(outputs[name])
        if each.ndim == 1 and each.size and np.nanmin(each) >= 0.0 and np.nanmax(each) <= 1.0:
            return Scores(name, "second")
    return None


def find_classes(outputs: Outputs) -> list[str]:
    """The outputs that say a class, or several."""
    return [name for name, each in outputs.items() if each.dtype.kind in _CLASS_KINDS]


def find_numbers(outputs: Outputs) -> list[str]:
    """The outputs of floating-point numbers."""
    return [name for name, each in outputs.items() if each.dtype.kind == "f"]


def is_called_scores(name: str) -> bool:
    """Whether an output's name says that it holds scores."""
    return any(word in name.lower() for word in _SCORE_WORDS)


def are_probabilities(array: Array) -> bool:
    """Whether each row is of numbers that are not negative and sum to one."""
    rows = squeezed(array).astype(np.float64)
    if rows.ndim != 2 or not rows.size:
        return False
    return bool(np.all(rows >= 0.0) and np.all(np.abs(rows.sum(axis=1) - 1.0) <= _SUM_TOLERANCE))


class Decided(NamedTuple):
    """Classes as whole numbers, in one numbering; each of shape [rows].

    Attributes:
        names: of the classes, by number, in their order.
    """

    truth: Codes
    old: Codes
    new: Codes
    names: Array


def decided(old: Outputs, new: Outputs, labels: Array) -> Decided:
    """What is true, and what the two say.

    Raises:
        ConfigError: the outputs say no class, or none that is among the labels.
    """
    said = find_classes(old)
    true = as_classes(labels)
    if said:
        answers = [as_classes(squeezed(each[said[0]])) for each in (old, new)]
    else:
        scores = find_scores(old)
        if scores is None:
            raise ConfigError(
                f"no output says a class: {described(old)}",
                hint="for numbers: --metric rmse, mae, r2 or relative_error",
            )
        columns = [scores.read(each) for each in (old, new)]
        names = column_names(true, columns[0].shape[1])
        answers = [names[each.argmax(axis=1)] for each in columns]
    return _numbered(true, answers[0], answers[1])


def true_columns(labels: Array, classes: int) -> Codes:
    """For each row, the column of scores that belongs to its true class.

    Raises:
        ConfigError: the labels do not fit the columns.
    """
    true = as_classes(labels)
    return np.searchsorted(column_names(true, classes), true).astype(np.int64)


def column_names(labels: Array, columns: int) -> Array:
    """The class of each column of scores, in increasing order.

    Whole numbers below the number of columns count the columns; else the classes are the distinct labels, sorted, as
    scikit-learn has them.

    Raises:
        ConfigError: there are more, or fewer.
    """
    names = np.unique(labels)
    if names.dtype.kind == "i" and names[0] >= 0 and names[-1] < columns:
        return np.arange(columns)
    if len(names) == columns:
        return names
    raise ConfigError(
        f"the labels do not fit the model's {columns} columns of scores: they are {shown(names)}",
        hint=f"give them as numbers from 0 to {columns - 1}, in the order of the columns",
    )


def as_classes(array: Array) -> Array:
    """Integers, or text: numbers that are whole are integers, whatever their type.

    Raises:
        ConfigError: there are numbers that are not whole.
    """
    if array.dtype.kind in "USO":
        return texts(array)
    if not are_classes(array):
        raise ConfigError(f"expected labels that are classes, got numbers such as {shown(array)}", hint="--metric rmse")
    return array.astype(np.int64)


def are_classes(array: Array) -> bool:
    """Whether these may name classes: text, or whole numbers."""
    if array.dtype.kind != "f":
        return True
    return bool(np.all(np.isfinite(array)) and np.all(array == np.floor(array)))


def texts(array: Array) -> Array:
    """An array of type `U`; bytes are UTF-8."""
    if array.dtype.kind == "U":
        return array
    flat = [each.decode("utf-8", "replace") if isinstance(each, bytes) else str(each) for each in array.ravel()]
    return np.array(flat, dtype=np.str_).reshape(array.shape)


def squeezed(array: Array) -> Array:
    """[rows] for [rows, 1]."""
    return array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array


def softmax(logits: Floats) -> Floats:
    """Probabilities along the last axis."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    scaled: Floats = shifted / shifted.sum(axis=-1, keepdims=True)
    return scaled


def described(outputs: Outputs) -> str:
    """The outputs in words, such as `label int64 [100], scores float32 [100, 10]`."""
    return ", ".join(f"{name} {each.dtype.name} {list(each.shape)}" for name, each in outputs.items())


def shown(values: Array) -> str:
    """The first few distinct values."""
    names = np.unique(values)
    return ", ".join(str(each) for each in names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


def _numbered(truth: Array, old: Array, new: Array) -> Decided:
    if any(each.ndim != 1 for each in (truth, old, new)):
        raise ConfigError(f"expected one class for each row, got shapes {list(truth.shape)} and {list(old.shape)}")
    if "U" in {each.dtype.kind for each in (truth, old, new)}:
        truth, old, new = (each.astype(np.str_) for each in (truth, old, new))
    if not np.isin(old, truth).any():
        raise ConfigError(
            f"none of the classes that the model says is among the labels: {shown(old)}; labels: {shown(truth)}",
            hint="give the labels as the model names them",
        )
    names, codes = np.unique(np.concatenate([truth, old, new]), return_inverse=True)
    parts = np.split(codes.astype(np.int64), 3)
    return Decided(parts[0], parts[1], parts[2], names)
