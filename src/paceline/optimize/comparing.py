"""Does a converted model answer as the original does? Its outputs against the original's, row by row.

Rules:
- Floating-point numbers may differ by the tolerance: absolutely up to 1, and relatively above it. What is not finite
  must be the same.
- Everything else, labels and other whole numbers, must be equal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from paceline.core.errors import CannotChange
from paceline.core.tensors import Array
from paceline.optimize.result import Equality

TOLERANCE: Final = 1e-5

Mask = NDArray[np.bool_]


def compare(
    reference: Mapping[str, Array],
    got: Mapping[str, Array],
    tolerance: float = TOLERANCE,
    *,
    ties: Mask | None = None,
    notes: Sequence[str] = (),
) -> Equality:
    """How two answers to the same rows compare.

    Args:
        reference: the original's outputs by name, each of shape [rows, ...].
        got: the converted model's; of other types, as long as the kinds fit.
        ties: of shape [rows]: True for rows that may differ, for they lie on a threshold.
        notes: for people.

    Raises:
        CannotChange: the two have other outputs, or of other shapes.
    """
    found = _differences(reference, got, tolerance)
    apart = found.apart
    of_them = 0 if ties is None else int((apart & ties).sum())
    return Equality(
        rows=len(apart),
        largest_error=found.largest,
        largest_relative=found.largest_relative,
        tolerance=tolerance,
        rows_apart=int(apart.sum()),
        labels_apart=int(found.labels.sum()),
        numbers_apart=int(found.numbers.sum()),
        ties=of_them,
        notes=list(notes),
    )


def rows_apart(reference: Mapping[str, Array], got: Mapping[str, Array], tolerance: float = TOLERANCE) -> Mask:
    """Which rows differ, of shape [rows]; arguments and errors as `compare` has them."""
    return _differences(reference, got, tolerance).apart


class _Differences(NamedTuple):
    """Rows whose labels, and whose numbers, differ; the largest error, absolute and by the size of numbers over 1."""

    labels: Mask
    numbers: Mask
    largest: float
    largest_relative: float

    @property
    def apart(self) -> Mask:
        """Rows that differ in either."""
        return self.labels | self.numbers


def _differences(reference: Mapping[str, Array], got: Mapping[str, Array], tolerance: float) -> _Differences:
    _require_alike(reference, got)
    labels, numbers = np.zeros((2, next(iter(reference.values())).shape[0]), bool)
    largest = largest_relative = 0.0
    for name, wanted in reference.items():
        if wanted.dtype.kind == "f":
            errors, relative = _errors(wanted, got[name])
            numbers |= _any_in_row(relative > tolerance)
            largest = max(largest, float(errors.max(initial=0.0)))
            largest_relative = max(largest_relative, float(relative.max(initial=0.0)))
        else:
            labels |= _differ(wanted, got[name])
    return _Differences(labels, numbers, largest, largest_relative)


def _require_alike(reference: Mapping[str, Array], got: Mapping[str, Array]) -> None:
    missing = [name for name in reference if name not in got]
    if missing:
        raise CannotChange(f"the converted model has no output '{missing[0]}'; it has {', '.join(got) or 'none'}")
    for name, wanted in reference.items():
        if wanted.shape != got[name].shape:
            raise CannotChange(
                f"output '{name}' of the converted model: expected shape {list(wanted.shape)}, "
                f"got {list(got[name].shape)}"
            )


def _errors(wanted: Array, got: Array) -> tuple[Array, Array]:
    """Of each number: absolute, and by its size where that is over 1; infinite where only one is finite."""
    old, new = wanted.astype(np.float64), got.astype(np.float64)
    same = (old == new) | (np.isnan(old) & np.isnan(new))
    with np.errstate(invalid="ignore"):
        errors = np.where(same, 0.0, np.abs(old - new))
    errors = np.where(np.isnan(errors), np.inf, errors)
    return errors, errors / np.maximum(1.0, np.where(np.isfinite(old), np.abs(old), 1.0))


def _differ(wanted: Array, got: Array) -> Mask:
    if wanted.dtype.kind in "OSU" or got.dtype.kind in "OSU":
        return _any_in_row(_texts(wanted) != _texts(got))
    return _any_in_row(wanted != got)


def _texts(array: Array) -> Array:
    """As `str`: one side may hold bytes, or the numbers that the other has written out."""
    flat = [each.decode() if isinstance(each, bytes) else str(each) for each in array.reshape(-1).tolist()]
    return np.array(flat, dtype=np.str_).reshape(array.shape)


def _any_in_row(values: Array) -> Mask:
    flags = np.asarray(values, bool)
    return np.asarray(flags.any(axis=tuple(range(1, flags.ndim))))
