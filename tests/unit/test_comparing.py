"""Are the answers of two models told apart where they differ, and only there?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from paceline.core.errors import CannotChange
from paceline.optimize.comparing import compare


def of(**outputs: Any) -> dict[str, Any]:
    return {name: np.array(values) for name, values in outputs.items()}


def test_equal_answers_of_other_types_are_equal() -> None:
    old = of(label=["a", "b"], probabilities=[[0.1, 0.9], [0.5, 0.5]])
    new = {
        "label": np.array([b"a", "b"], object),
        "probabilities": old["probabilities"].astype(np.float32),
    }
    found = compare(old, new)
    assert (found.rows, found.rows_apart) == (2, 0)
    assert 0 < found.largest_error < 1e-7


def test_rows_apart_are_counted_once_and_their_ties() -> None:
    old = of(label=[0, 1, 2, 3], scores=[0.0, 1.0, 2.0, 3.0])
    new = of(label=[0, 2, 2, 2], scores=[0.0, 1.5, 2.0, 3.0])
    found = compare(old, new, ties=np.array([True, True, False, False]), notes=["why"])
    assert (found.rows_apart, found.ties, found.largest_error, found.notes) == (2, 1, 0.5, ["why"])
    assert (found.labels_apart, found.numbers_apart) == (2, 1)


@pytest.mark.parametrize(
    ("wanted", "got", "apart"),
    [(1000.0, 1000.005, 0), (1000.0, 1000.02, 1), (1e-9, 9e-6, 0), (0.0, 2e-5, 1), (-1000.0, -1000.005, 0)],
)
def test_the_tolerance_is_absolute_below_one_and_relative_above(wanted: float, got: float, apart: int) -> None:
    found = compare(of(y=[wanted]), of(y=[got]), 1e-5)
    assert (found.rows_apart, found.numbers_apart, found.labels_apart) == (apart, apart, 0)
    assert (found.largest_relative > 1e-5) == bool(apart)


@pytest.mark.parametrize(
    ("wanted", "got", "error"),
    [
        (np.nan, np.nan, 0.0),
        (np.inf, np.inf, 0.0),
        (np.inf, -np.inf, np.inf),
        (np.nan, 1.0, np.inf),
        (1.0, np.inf, np.inf),
        (np.inf, 1e300, np.inf),
    ],
)
def test_what_is_not_finite_must_be_the_same(wanted: float, got: float, error: float) -> None:
    found = compare(of(y=[wanted, 1.0]), of(y=[got, 1.0]))
    assert (found.largest_error, found.rows_apart) == (error, int(error > 0))


def test_labels_are_equal_or_not_however_near() -> None:
    found = compare(of(label=[7, 8]), of(label=[7, 9]))
    assert (found.rows_apart, found.largest_error) == (1, 0.0)


def test_no_rows_are_equal() -> None:
    assert compare({"y": np.zeros((0, 3))}, {"y": np.zeros((0, 3))}).rows_apart == 0


@pytest.mark.parametrize(
    ("got", "said"),
    [
        (of(z=[1.0]), "no output 'y'; it has z"),
        ({}, "no output 'y'; it has none"),
        (of(y=[[1.0]]), r"expected shape \[1\], got \[1, 1\]"),
    ],
)
def test_other_outputs_are_no_conversion(got: dict[str, Any], said: str) -> None:
    with pytest.raises(CannotChange, match=said):
        compare(of(y=[1.0]), got)
