"""How do two models differ on the same rows, whichever way the rows are weighted?

Rules:
- A difference is a function of weighted rows, for thousands of weightings at once: so a bootstrap is a product of
  matrices, and pairs the two models in each resample.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from paceline.core.errors import ConfigError
from paceline.core.tensors import Array
from paceline.optimize.data.rows import Rows
from paceline.optimize.judging.answers import Floats
from paceline.optimize.judging.intervals import Statistic

LABELS: Final = "give what is true: --labels y.npy, or a column's name"
"""What to do where a metric needs labels."""


@dataclass(frozen=True)
class Comparison:
    """Two models on the same rows.

    Attributes:
        old, new: the metric of each.
        old_of, new_of: the same of weighted rows.
        sign: -1 where smaller is better.
        rows: how many weights they take.
        gained, lost: rows that only the new model, or only the old one, has right; None: rows are not right or wrong.
    """

    old: float
    new: float
    old_of: Statistic
    new_of: Statistic
    sign: float
    rows: int
    gained: int | None = None
    lost: int | None = None

    @property
    def worth(self) -> float:
        """How much better the new one is; negative is worse."""
        return self.sign * (self.new - self.old)

    def difference(self, weights: Floats) -> Floats:
        """The same of weighted rows."""
        return self.sign * (self.new_of(weights) - self.old_of(weights))


def paired(
    old: Statistic,
    new: Statistic,
    rows: int,
    *,
    falls: bool = True,
    gained: int | None = None,
    lost: int | None = None,
) -> Comparison:
    """Of two models, from the metric of each as a function of weighted rows."""
    one = np.ones((1, rows))
    sign = 1.0 if falls else -1.0
    values = float(old(one)[0]), float(new(one)[0])
    return Comparison(*values, old, new, sign, rows, gained, lost)


def mean_of(values: Floats) -> Statistic:
    """The weighted mean of a number for each row."""
    return lambda weights: (weights @ values) / weights.sum(axis=1)


def root_of(inner: Statistic) -> Statistic:
    """Its square root."""
    return lambda weights: np.sqrt(np.maximum(inner(weights), 0.0))


def by_row(values: Array) -> Floats:
    """The mean of each row."""
    means: Floats = values.reshape(len(values), -1).mean(axis=1, dtype=np.float64)
    return means


def labels_of(rows: Rows) -> Array:
    """What is true.

    Raises:
        ConfigError: nobody knows.
    """
    if rows.labels is None:
        raise ConfigError("this metric needs labels", hint=LABELS)
    return rows.labels


def beside_itself(
    perfect: float, likeness: Statistic, rows: int, *, falls: bool = True, lost: int | None = None
) -> Comparison:
    """Of a candidate and the original, from how alike they are.

    Args:
        perfect: what `likeness` is of models that are the same.
        lost: rows in which they differ, where that can be said.
    """
    gained = None if lost is None else 0
    return paired(lambda weights: np.full(len(weights), perfect), likeness, rows, falls=falls, gained=gained, lost=lost)
