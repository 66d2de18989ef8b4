"""Which units does a layer need least, and how do the others make up for them? Asked of the calibration rows.

Rules:
- Nothing is trained: the layer that reads the units has a closed answer, ridge regression of what it put out before
  on the units that are left.
- The least needed unit is the one without which that answer is worst by the least. Units that others can stand in for
  go first, be they large or small.

Source: Hassibi and Stork, "Optimal Brain Surgeon" (1993), the increase of the squared error |w|^2 / [H^-1]; for the
units of a layer, with its inputs' second moments as H, as in Kurtic et al., "ZipLM" (2023).
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from paceline.optimize.transforms.units import Indices

Matrix = NDArray[np.float64]

_ROUNDS: Final = 4
# Of the mean of the diagonal: rows are fewer than units, at times, and noisy always.
_RIDGE: Final = 1e-2


class Moments:
    """Sums over rows, from which means and second moments follow.

    Args:
        width: how many numbers a row has.

    Attributes:
        rows: that were counted.
    """

    def __init__(self, width: int) -> None:
        self._products = np.zeros((width, width))
        self._sums = np.zeros(width)
        self.rows = 0

    def add(self, numbers: NDArray[np.floating]) -> None:
        """Count rows; of shape [..., width]."""
        flat = numbers.reshape(-1, self._sums.size)
        # A batch is small enough for products in the tensor's own precision.
        self._products += flat.T @ flat
        self._sums += flat.sum(axis=0, dtype=np.float64)
        self.rows += len(flat)

    @property
    def mean(self) -> Matrix:
        """Of each number."""
        return self._sums / self.rows

    def second(self, *, centered: bool) -> Matrix:
        """Mean products of two numbers; about their means, or about 0."""
        products = self._products / self.rows
        return products - np.outer(self.mean, self.mean) if centered else products


def fewest(second: Matrix, weights: Matrix, units: Indices, keep: int) -> tuple[Indices, Matrix]:
    """Choose units, and fit the weights of the layer that reads them.

    Args:
        second: second moments of the numbers that the layer reads, [numbers, numbers].
        weights: of the layer, [numbers, outputs].
        units: to which unit each number belongs, from 0.
        keep: how many units stay.

    Returns:
        The units that stay, ascending, and the weights for their numbers, in the order of `weights`.
    """
    ridge = _RIDGE * float(np.trace(second)) / len(second) or 1.0
    # Ridge regression towards the weights as they are, which stay where the rows say nothing.
    wanted = second @ weights + ridge * weights
    left: Indices = np.arange(int(units.max()) + 1)
    for size in np.linspace(len(left), keep, _ROUNDS + 1).astype(int)[1:]:
        numbers = np.flatnonzero(np.isin(units, left))
        inverse = _inverse(second, numbers, ridge)
        costs = np.bincount(units[numbers], np.square(inverse @ wanted[numbers]).sum(axis=1) / np.diag(inverse))
        left = np.sort(left[np.argsort(-costs[left], kind="stable")[:size]])
    numbers = np.flatnonzero(np.isin(units, left))
    return left, _inverse(second, numbers, ridge) @ wanted[numbers]


def _inverse(second: Matrix, numbers: Indices, ridge: float) -> Matrix:
    return np.asarray(np.linalg.inv(second[np.ix_(numbers, numbers)] + ridge * np.eye(len(numbers))), np.float64)
