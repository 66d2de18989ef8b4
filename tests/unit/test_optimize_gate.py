"""The accuracy gate: what it accepts, what it refuses, and what it says."""

import re
from functools import cache

import numpy as np
import pytest
from benchmarks import gate as planted
from hypothesis import given
from hypothesis import strategies as st

from paceline.core.errors import ConfigError
from paceline.optimize.data.rows import Rows
from paceline.optimize.judging import gate, metrics
from paceline.optimize.judging.gate import Drop
from paceline.optimize.result import Judgement

ACCURACY, F1, RMSE, AGREEMENT, RELATIVE = (
    metrics.METRICS[name] for name in ("accuracy", "f1", "rmse", "agreement", "relative_error")
)


def labelled(count: int, wrong: int = 0) -> tuple[dict[str, np.ndarray], Rows]:
    """A model that says the classes of so many rows, the first few wrong."""
    truth = np.arange(count) % 2
    said = truth.copy()
    said[:wrong] = 1 - said[:wrong]
    return {"label": said}, Rows({"X": np.zeros((count, 1), np.float32)}, truth)


def judged(count: int, *, gained: int = 0, lost: int = 0, drop: str = "1%") -> Judgement:
    old, rows = labelled(count, wrong=gained)
    new = {"label": old["label"].copy()}
    new["label"][: gained + lost] = 1 - new["label"][: gained + lost]
    return gate.judge(old=old, new=new, rows=rows, metric=ACCURACY, max_drop=gate.parse_drop(drop))


def test_a_small_drop_on_many_rows_is_accepted():
    found = judged(5000, gained=5, lost=15)
    assert found.accepted
    assert found.difference == pytest.approx(-0.002)
    assert -found.allowed < found.low < found.difference < found.high
    assert found.rows_needed is None
    assert found.reason == "accuracy falls by 0.2 points, and is at worst 0.41 points lower: 1 point is allowed"


def test_a_large_drop_is_refused_and_more_rows_would_not_help():
    found = judged(5000, lost=100)
    assert not found.accepted
    assert found.rows_needed is None
    assert found.reason == "accuracy falls by 2 points, and 1 point is allowed"


def test_too_few_rows_refuse_and_it_is_said_how_many_would_do():
    found = judged(200, gained=2, lost=3)
    assert not found.accepted
    assert found.rows_needed
    assert f"about {found.rows_needed:,} rows could show it" in found.reason
    times = found.rows_needed // 200 + 1
    assert judged(200 * times, gained=2 * times, lost=3 * times).accepted
    assert not judged(
        found.rows_needed // 2, gained=found.rows_needed // 200, lost=3 * found.rows_needed // 400
    ).accepted


def test_classes_that_did_not_change_on_few_rows_prove_little():
    assert not judged(100).accepted
    assert gate.least_rows(ACCURACY, 0.01) == 381
    assert judged(100).rows_needed == 390  # an estimate, of two digits
    assert judged(381).accepted
    assert not judged(380).accepted


def test_numbers_that_are_the_same_but_for_rounding_are_accepted_on_any_number_of_rows():
    scores = np.random.default_rng(0).dirichlet(np.ones(3), 12).astype(np.float32)
    rows = Rows({"X": np.zeros((12, 1))}, scores.argmax(axis=1))
    found = gate.judge(old={"p": scores}, new={"p": scores + np.float32(3e-7)}, rows=rows, metric=ACCURACY)
    assert found.accepted
    assert (found.low, found.high, found.method) == (0.0, 0.0, "same answers")
    moved = gate.judge(old={"p": scores}, new={"p": scores + np.float32(1e-3)}, rows=rows, metric=ACCURACY)
    assert not moved.accepted


def test_one_class_that_changes_is_not_the_same():
    old, _ = labelled(100)
    scores = {"p": np.ones((100, 2), np.float32) / 2, **old}
    new = {"p": scores["p"], "label": np.where(np.arange(100) == 7, 1 - old["label"], old["label"])}
    assert not gate.are_same(scores, new)
    assert gate.are_same(scores, dict(scores))


@pytest.mark.parametrize(
    ("new", "said"),
    [
        ({"other": np.zeros(50)}, "it does not answer 'y'"),
        ({"y": np.zeros((50, 2))}, r"shape \[50, 2\], the original's \[50\]"),
        ({"y": np.where(np.arange(50) < 3, np.nan, 1.0)}, "not finite in 3 of 50 rows"),
        ({"y": np.full(50, np.inf)}, "not finite in 50 of 50 rows"),
    ],
)
def test_answers_that_cannot_be_compared_are_refused(new: dict[str, np.ndarray], said: str):
    rows = Rows({"X": np.zeros(50)}, np.arange(50.0))
    found = gate.judge(old={"y": np.arange(50.0)}, new=new, rows=rows, metric=RMSE)
    assert not found.accepted
    assert re.search(said, found.reason)
    assert np.isfinite([found.old, found.new, found.difference, found.low, found.high]).all()


def test_an_original_that_answers_nan_is_an_error_that_names_the_input():
    rows = Rows({"X": np.array([[1.0], [np.nan], [2.0]])}, np.arange(3.0))
    old = {"y": np.array([1.0, np.nan, 2.0])}
    with pytest.raises(ConfigError, match="answers NaN: 'y', in 1 of 3 rows") as caught:
        gate.judge(old=old, new=old, rows=rows, metric=RMSE)
    assert caught.value.hint == "the row's input 'X' has missing values: leave such rows out"


def test_a_metric_that_these_rows_do_not_define_is_an_error():
    scores = np.random.default_rng(0).uniform(size=40)
    old = {"p": np.stack([1 - scores, scores], axis=1)}
    with pytest.raises(ConfigError, match="ROC AUC is not defined on these 40 rows"):
        gate.judge(old=old, new=old, rows=Rows({"X": scores}, np.zeros(40, int)), metric=metrics.METRICS["roc_auc"])


def test_fewer_rows_than_a_bootstrap_needs_are_refused():
    truth = np.arange(20.0)
    rows = Rows({"X": truth}, truth)
    found = gate.judge(old={"y": truth + 1.0}, new={"y": truth + 1.001}, rows=rows, metric=RMSE)
    assert not found.accepted
    assert found.rows_needed == gate.LEAST_ROWS
    assert "on 20 rows: too few, at least 30 are needed" in found.reason


def test_for_errors_a_share_is_of_the_original_and_a_number_is_a_number():
    truth = np.random.default_rng(0).normal(size=400)
    rows = Rows({"X": truth}, truth)
    old, new = {"y": truth + 2.0}, {"y": truth + 2.01}
    for drop, allowed in ((Drop(0.01, share=True), 0.02), (Drop(0.008, share=False), 0.008)):
        found = gate.judge(old=old, new=new, rows=rows, metric=RMSE, max_drop=drop)
        assert found.allowed == pytest.approx(allowed)
        assert found.difference == pytest.approx(-0.01)
        assert found.accepted == (allowed > 0.01)
    assert found.reason == "RMSE rises by 0.01, and 0.008 is allowed"


def test_without_labels_less_is_allowed_and_it_is_said():
    old, rows = labelled(2000)
    unlabelled = Rows(rows.inputs)
    new = {"label": np.where(np.arange(2000) < 15, 1 - old["label"], old["label"])}
    assert gate.judge(old=old, new=new, rows=rows, metric=ACCURACY).allowed == 0.01
    found = gate.judge(old=old, new=new, rows=unlabelled, metric=AGREEMENT)
    assert (found.allowed, found.labelled, found.accepted) == (0.005, False, False)
    assert found.method == "exact interval (Clopper-Pearson): 15 rows differ"
    assert gate.judge(old=old, new=old, rows=unlabelled, metric=AGREEMENT).accepted
    assert any("there are no labels" in said for said in gate.advice(old, unlabelled, AGREEMENT))


def test_advice_before_anything_is_tried():
    old, rows = labelled(200)
    assert gate.advice(old, rows, ACCURACY) == [
        "200 rows are few: to accept a candidate that answers at all differently, at least 381 are needed"
    ]
    guesses = {"label": np.zeros(1000, int)}
    shuffled = Rows({"X": np.zeros(1000)}, np.arange(1000) % 4)
    assert "do the labels belong to these rows?" in gate.advice(guesses, shuffled, ACCURACY)[0]
    old, rows = labelled(1000)
    assert gate.advice(old, rows, ACCURACY) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.5%", Drop(0.005, share=True)),
        (" 1 % ", Drop(0.01, share=True)),
        ("0.005", Drop(0.005, share=False)),
        ("0", Drop(0.0, share=False)),
        (".25", Drop(0.25, share=False)),
    ],
)
def test_drops_are_read(text: str, expected: Drop):
    assert gate.parse_drop(text) == expected


@pytest.mark.parametrize(
    ("text", "hint"),
    [("0.5", "write 0.5%, or 50%, as you mean it"), ("0.2", "write 0.2%, or 20%"), ("2", "write 2%, as you mean it")],
)
def test_a_plain_number_that_may_mean_two_things_is_refused_where_a_metric_ends_at_1(text: str, hint: str):
    drop = gate.parse_drop(text)
    with pytest.raises(ConfigError, match=f"--max-drop {text}: a plain number is in the units of") as caught:
        drop.allowed(ACCURACY, 0.9)
    assert hint in (caught.value.hint or "")
    assert drop.allowed(RMSE, 50.0) == float(text)
    assert gate.parse_drop(f"{text}%").allowed(ACCURACY, 0.9) == float(text) / 100.0
    assert gate.parse_drop("50%").allowed(ACCURACY, 0.9) == 0.5


@pytest.mark.parametrize("text", ["", "five", "-1%", "100%", "1e-3", "1%%", "nan"])
def test_what_is_no_drop_is_refused(text: str):
    with pytest.raises(ConfigError, match="expected a drop"):
        gate.parse_drop(text)


@given(
    count=st.integers(1, 3000),
    gained=st.integers(0, 40),
    lost=st.integers(0, 40),
    drop=st.sampled_from(["1%", "5%", "0"]),
)
def test_what_is_accepted_is_so_for_a_reason(count: int, gained: int, lost: int, drop: str):
    gained, lost = min(gained, count // 3), min(lost, count // 3)
    found = judged(count, gained=gained, lost=lost, drop=drop)
    assert found.accepted == (found.low > -found.allowed)
    assert found.low <= found.difference <= found.high
    assert not (found.accepted and found.rows_needed)
    assert found.rows_needed is None or found.rows_needed > count * 0.99
    if found.accepted and gained + 1 < count // 3:  # who gains more is no worse
        assert judged(count, gained=gained + 1, lost=lost, drop=drop).accepted


def test_worse_is_never_better_for_the_gate():
    accepted = [judged(2000, lost=lost).accepted for lost in range(0, 40, 4)]
    assert accepted == sorted(accepted, reverse=True)
    assert accepted[0]
    assert not accepted[-1]


# -- false accepts ----------------------------------------------------------------------------------------------------


@cache
def populations() -> dict[str, planted.Population]:
    return {each.metric: each for each in planted.populations()}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("metric", "rows"),
    [
        *[(name, 100) for name in ("f1_macro", "log_loss", "cosine", "rmse", "mae", "r2", "relative_error")],
        *[(name, rows) for name in ("accuracy", "agreement", "f1", "roc_auc") for rows in (100, 400)],
    ],
)
def test_a_drop_just_above_the_budget_is_accepted_in_one_of_twenty_cases_at_most(metric: str, rows: int):
    budget = planted.BUDGETS.get(metric, planted.BUDGET)
    assert planted.accepted(populations()[metric], budget, rows, 200, seed=1) <= planted.MOST_ACCEPTED


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["accuracy", "agreement", "rmse", "relative_error"])
def test_without_a_drop_enough_rows_are_accepted(metric: str):
    budget = planted.BUDGETS.get(metric, planted.BUDGET)
    assert planted.accepted(populations()[metric], budget, 5000, 20, seed=2, drop=0.0) >= 0.9


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ([[np.inf], [0.1], [0.2]], [[3e38], [99.0], [99.0]], False),
        ([[-np.inf], [0.1], [0.2]], [[-np.inf], [0.1], [0.2]], True),
        ([[1e6, 0.5], [1e6, 0.4]], [[1e6, 0.6], [1e6, 0.4]], False),
        ([[1e6, 0.5], [1e6, 0.4]], [[1e6 + 1, 0.5], [1e6, 0.4]], True),
    ],
)
def test_answers_are_the_same_column_by_column(old: list[list[float]], new: list[list[float]], same: bool):
    assert gate.are_same({"y": np.array(old)}, {"y": np.array(new)}) is same
