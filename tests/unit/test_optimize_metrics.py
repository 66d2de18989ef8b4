"""Metrics are scikit-learn's, of rows however they are weighted; and the one that fits a model is found."""

from functools import cache

import numpy as np
import pytest
from sklearn import metrics as sklearn
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from paceline.core.errors import ConfigError
from paceline.optimize.data.rows import Rows
from paceline.optimize.judging import metrics

Outputs = dict[str, np.ndarray]


@cache
def classified(load) -> tuple[Outputs, Outputs, Rows]:
    """Scores of a good and of a worse model of rows that neither has seen."""
    rows, truth = load(return_X_y=True)
    seen = np.arange(len(rows)) % 2 == 0
    scores = []
    for strength in (0.1, 1e-4):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=500))
        scores.append(model.fit(rows[seen], truth[seen]).predict_proba(rows[~seen]))
    return {"p": scores[0]}, {"p": scores[1]}, Rows({"X": rows[~seen]}, truth[~seen])


@cache
def regressed() -> tuple[Outputs, Outputs, Rows]:
    rows, truth = load_diabetes(return_X_y=True)
    said = [Ridge(alpha).fit(rows[::2], truth[::2]).predict(rows[1::2])[:, None] for alpha in (0.1, 10.0)]
    return {"variable": said[0]}, {"variable": said[1]}, Rows({"X": rows[1::2]}, truth[1::2])


BINARY = {
    "accuracy": lambda truth, p, w: sklearn.accuracy_score(truth, p.argmax(1), sample_weight=w),
    "f1": lambda truth, p, w: sklearn.f1_score(truth, p.argmax(1), sample_weight=w),
    "f1_macro": lambda truth, p, w: sklearn.f1_score(truth, p.argmax(1), average="macro", sample_weight=w),
    "roc_auc": lambda truth, p, w: sklearn.roc_auc_score(truth, p[:, 1], sample_weight=w),
    "log_loss": lambda truth, p, w: sklearn.log_loss(truth, p, sample_weight=w),
}
MANY = {
    **{name: BINARY[name] for name in ("accuracy", "f1_macro", "log_loss")},
    "f1": BINARY["f1_macro"],
    "roc_auc": lambda truth, p, w: sklearn.roc_auc_score(truth, p, multi_class="ovr"),
}
NUMBERS = {
    "rmse": lambda truth, said, w: sklearn.root_mean_squared_error(truth, said, sample_weight=w),
    "mae": lambda truth, said, w: sklearn.mean_absolute_error(truth, said, sample_weight=w),
    "r2": lambda truth, said, w: sklearn.r2_score(truth, said, sample_weight=w),
}


@pytest.mark.parametrize(
    ("made", "name", "theirs"),
    [
        *[pytest.param(lambda: classified(load_breast_cancer), *each, id=f"two-{each[0]}") for each in BINARY.items()],
        *[pytest.param(lambda: classified(load_digits), *each, id=f"ten-{each[0]}") for each in MANY.items()],
        *[pytest.param(regressed, *each, id=each[0]) for each in NUMBERS.items()],
    ],
)
def test_values_are_those_of_scikit_learn(made, name: str, theirs):
    old, new, rows = made()
    found = metrics.METRICS[name].compare(old, new, rows)
    for value, outputs in ((found.old, old), (found.new, new)):
        assert value == pytest.approx(theirs(rows.labels, next(iter(outputs.values())), None), rel=1e-6)
    assert (found.worth < 0.0) == (found.new < found.old if metrics.METRICS[name].falls else found.new > found.old)


@pytest.mark.parametrize("name", ["accuracy", "roc_auc", "log_loss"])
def test_rows_may_be_weighted(name: str):
    old, new, rows = classified(load_breast_cancer)
    weights = np.random.default_rng(0).integers(0, 4, (3, rows.count)).astype(np.float64)
    found = metrics.METRICS[name].compare(old, new, rows)
    sign = 1.0 if metrics.METRICS[name].falls else -1.0
    for given, difference in zip(weights, found.difference(weights), strict=True):
        was, now = (BINARY[name](rows.labels, each["p"], given) for each in (old, new))
        assert difference == pytest.approx(sign * (now - was), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("name", list(NUMBERS))
def test_rows_of_numbers_may_be_weighted(name: str):
    old, new, rows = regressed()
    weights = np.random.default_rng(0).integers(0, 4, (3, rows.count)).astype(np.float64)
    found = metrics.METRICS[name].compare(old, new, rows)
    expected = [NUMBERS[name](rows.labels, new["variable"], each) for each in weights]
    assert found.new_of(weights) == pytest.approx(expected, rel=1e-6)


def test_ties_of_scores_count_half():
    scores = np.array([0.1, 0.5, 0.5, 0.5, 0.9, 0.5])
    truth = np.array([0, 0, 1, 1, 1, 0])
    outputs = {"p": np.stack([1 - scores, scores], axis=1)}
    found = metrics.METRICS["roc_auc"].compare(outputs, outputs, Rows({"X": scores}, truth))
    assert found.old == pytest.approx(sklearn.roc_auc_score(truth, scores))


# -- which one fits ---------------------------------------------------------------------------------------------------

LABEL = {"label": np.array([0, 1, 1, 0])}
PROBABILITIES = {"p": np.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [0.7, 0.3]])}
SIGMOID = {"out": np.array([[0.1], [0.8], [0.6], [0.3]], np.float32)}
NUMBER = {"variable": np.array([[3.5], [120.0], [88.1], [40.0]])}
LOGITS = {"logits": np.array([[2.0, -1.0], [0.0, 3.0], [1.0, 1.5], [4.0, 0.0]])}
WIDE = {"dense_3": np.array([[2.0, -1.0], [0.0, 3.0], [1.0, 1.5], [4.0, 0.0]])}
UNIT = {"out": np.array([[0.6, 0.8], [1.0, 0.0], [0.0, -1.0], [0.8, 0.6]], np.float32)}
TOKENS = {"last_hidden_state": np.ones((4, 3, 8), np.float32)}
CLASSES, VALUES = np.array([0, 1, 0, 0]), np.array([3.1, 110.2, 90.0, 44.5])


@pytest.mark.parametrize(
    ("outputs", "labels", "expected"),
    [
        (LABEL, CLASSES, "accuracy"),
        (PROBABILITIES, CLASSES, "accuracy"),
        (PROBABILITIES, np.array(["no", "yes", "no", "no"]), "accuracy"),
        (WIDE, CLASSES.astype(float), "accuracy"),
        (SIGMOID, CLASSES, "accuracy"),
        (NUMBER, VALUES, "rmse"),
        (NUMBER, np.array([3, 110, 90, 44]), "rmse"),
        (SIGMOID, np.array([0.1, 0.7, 0.5, 0.2]), "rmse"),
        (LABEL, None, "agreement"),
        (PROBABILITIES, None, "agreement"),
        (LOGITS, None, "agreement"),
        (WIDE, None, "relative_error"),
        (NUMBER, None, "relative_error"),
        (UNIT, None, "cosine"),
        (TOKENS, None, "cosine"),
    ],
)
def test_the_metric_that_fits(outputs: Outputs, labels: np.ndarray | None, expected: str):
    assert metrics.choose(outputs, Rows({"X": np.zeros((4, 1))}, labels)).name == expected


@pytest.mark.parametrize(
    ("outputs", "labels", "accuracy"),
    [
        (PROBABILITIES, np.array(["no", "yes", "no", "no"]), 0.75),
        (PROBABILITIES, np.array([3, 7, 3, 3]), 0.75),
        (LOGITS, np.array([0.0, 1.0, 1.0, 0.0]), 1.0),
        (SIGMOID, np.array([False, True, True, True]), 0.75),
        ({"label": np.array([[b"a"], [b"b"], [b"b"], [b"a"]], object)}, np.array(["a", "b", "a", "a"]), 0.75),
        ({"label": np.array(["1", "0", "0", "1"])}, np.array([1, 0, 0, 0]), 0.75),
    ],
)
def test_classes_are_those_of_the_labels(outputs: Outputs, labels: np.ndarray, accuracy: float):
    found = metrics.METRICS["accuracy"].compare(outputs, outputs, Rows({"X": np.zeros(4)}, labels))
    assert found.old == accuracy


@pytest.mark.parametrize(
    ("name", "outputs", "labels", "said"),
    [
        ("accuracy", NUMBER, CLASSES, "no output says a class"),
        ("accuracy", LABEL, np.array(["cat", "dog", "cat", "cat"]), "none of the classes"),
        ("accuracy", PROBABILITIES, np.array([1, 2, 3, 4]), "do not fit the model's 2 columns"),
        ("accuracy", LABEL, VALUES, "labels that are classes"),
        ("roc_auc", LABEL, CLASSES, "no output holds scores"),
        ("rmse", PROBABILITIES, CLASSES, "no output has a number for each label"),
        ("rmse", NUMBER, np.array(["a", "b", "a", "a"]), "numbers, as the model predicts, got words: a, b"),
        ("accuracy", LABEL, None, "needs labels"),
        ("cosine", LABEL, None, "no output holds numbers"),
        ("cosine", {"y": np.ones(4)}, None, "no output is a vector"),
        ("agreement", NUMBER, None, "no output says a class"),
    ],
)
def test_a_metric_that_does_not_fit_is_refused(name: str, outputs: Outputs, labels: np.ndarray | None, said: str):
    with pytest.raises(ConfigError, match=said):
        metrics.METRICS[name].compare(outputs, outputs, Rows({"X": np.zeros(4)}, labels))


@pytest.mark.parametrize(
    ("outputs", "hint"), [(NUMBER, "choose another column of labels"), (LABEL, "--metric accuracy compares classes")]
)
def test_words_for_numbers_need_another_column_unless_the_model_says_classes(outputs: Outputs, hint: str):
    with pytest.raises(ConfigError) as caught:
        metrics.METRICS["rmse"].compare(outputs, outputs, Rows({"X": np.zeros(4)}, np.array(["a", "b", "a", "a"])))
    assert caught.value.hint == hint


def test_a_metric_by_name():
    assert metrics.named("f1", labelled=True).name == "f1"
    with pytest.raises(ConfigError, match="unknown metric 'acuracy'"):
        metrics.named("acuracy", labelled=True)
    with pytest.raises(ConfigError, match="needs labels"):
        metrics.named("accuracy", labelled=False)


def test_likeness_without_labels():
    old = {"p": np.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [0.7, 0.3]])}
    new = {"p": np.array([[0.8, 0.2], [0.6, 0.4], [0.4, 0.6], [0.7, 0.3]])}
    rows = Rows({"X": np.zeros(4)})
    assert metrics.METRICS["agreement"].compare(old, new, rows).new == 0.75
    vectors = {"v": np.array([[3.0, 4.0], [1.0, 0.0], [0.0, 0.0], [1.0, 1.0]])}
    turned = {"v": np.array([[6.0, 8.0], [0.0, 2.0], [0.0, 0.0], [-1.0, -1.0]])}
    assert metrics.METRICS["cosine"].compare(vectors, turned, rows).new == pytest.approx((1 + 0 + 1 - 1) / 4)
    numbers, moved = {"y": np.array([0.0, 2.0, 4.0, 6.0])}, {"y": np.array([0.1, 2.0, 3.9, 6.0])}
    found = metrics.METRICS["relative_error"].compare(numbers, moved, rows)
    assert (found.old, found.new) == (0.0, pytest.approx(0.05 / 2.0))


def test_scores_of_tokens_agree_where_all_of_a_row_do():
    old = {"out": np.eye(5)[np.array([[0, 1, 2], [3, 4, 0]])]}
    new = {"out": np.eye(5)[np.array([[0, 1, 2], [3, 4, 1]])]}
    assert metrics.METRICS["agreement"].compare(old, new, Rows({"X": np.zeros(2)})).new == 0.5
