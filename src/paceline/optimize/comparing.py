"""Does a converted model answer as the original does? Its outputs against the original's, row by row.

Rules:
- Floating-point numbers may differ by the tolerance: absolutely up to 1, and relatively above it. What is not finite
  must be the same.
- Everything else, labels and other whole numbers, must be equal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

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
    apart, largest = _apart(reference, got, tolerance)
    of_them = 0 if ties is None else int((apart & ties).sum())
    return Equality(
        rows=len(apart),
        largest_error=largest,
        tolerance=tolerance,
        rows_apart=int(apart.sum()),
        ties=of_them,
        notes=list(notes),
    )


def rows_apart(reference: Mapping[str, Array], got: Mapping[str, Array], tolerance: float = TOLERANCE) -> Mask:
    """Which rows differ, of shape [rows]; arguments and errors as `compare` has them."""
    return _apart(reference, got, tolerance)[0]


def _apart(reference: Mapping[str, Array], got: Mapping[str, Array], tolerance: float) -> tuple[Mask, float]:
    """The rows that differ, and the largest error."""
    _require_alike(reference, got)
    apart = np.zeros(next(iter(reference.values())).shape[0], bool)
    largest = 0.0
    for name, wanted in reference.items():
        if wanted.dtype.kind == "f":
            differs, error = _numbers_apart(wanted, got[name], tolerance)
            largest = max(largest, error)
        else:
            differs = _differ(wanted, got[name])
        apart |= differs
    return apart, largest


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


def _numbers_apart(wanted: Array, got: Array, tolerance: float) -> tuple[Mask, float]:
    """Rows that differ by more than the tolerance, and the largest error; infinite where only one is finite."""
    old, new = wanted.astype(np.float64), got.astype(np.float64)
    same = (old == new) | (np.isnan(old) & np.isnan(new))
    with np.errstate(invalid="ignore"):
        errors = np.where(same, 0.0, np.abs(old - new))
    errors = np.where(np.isnan(errors), np.inf, errors)
    allowed = tolerance * np.maximum(1.0, np.where(np.isfinite(old), np.abs(old), 1.0))
    return _any_in_row(errors > allowed), float(errors.max(initial=0.0))


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
