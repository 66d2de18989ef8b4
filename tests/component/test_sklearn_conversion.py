"""Do estimators of scikit-learn, and pipelines with boosters in them, answer the same in ONNX?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paceline.core.errors import CannotChange, ConfigError, UnsafeModel
from paceline.optimize.data.rows import Rows
from paceline.optimize.formats.graphs import OwnGraph
from paceline.optimize.formats.sklearn import convert
from paceline.optimize.formats.tabular import Tabular
from paceline.optimize.result import Converted
from paceline.runtimes.base import load
from paceline.workers.python.estimators import Estimator
from support.boosters import CANCER, IRIS, estimator, holes

for package in ("joblib", "skl2onnx", "skops", "treelite"):
    pytest.importorskip(package, reason="pip install 'paceline[convert]'")
pandas = pytest.importorskip("pandas")

import joblib  # noqa: E402
from sklearn import (  # noqa: E402
    calibration,
    cluster,
    compose,
    datasets,
    ensemble,
    impute,
    linear_model,
    naive_bayes,
    neural_network,
    pipeline,
    preprocessing,
    svm,
)
from sklearn.feature_extraction.text import TfidfVectorizer  # noqa: E402
from skops import io as skops_io  # noqa: E402

pytestmark = pytest.mark.slow
X, Y = IRIS
FRAME = datasets.load_iris(as_frame=True).data
NAMES = datasets.load_iris().target_names[Y]
TWO = np.c_[Y, -Y]
GROUPS = np.floor(X * 2) % 7
after_scaling = lambda last: pipeline.make_pipeline(preprocessing.StandardScaler(), last)  # noqa: E731
Forest, Histogram = ensemble.RandomForestClassifier, ensemble.HistGradientBoostingClassifier
HistogramRegressor = ensemble.HistGradientBoostingRegressor
VOTERS = [("a", naive_bayes.GaussianNB()), ("b", Histogram(max_iter=5))]

FITTED: dict[str, tuple[Any, Any, Any]] = {
    "forest": (Forest(100, random_state=0), X, NAMES),
    "forest of named columns": (Forest(12, random_state=0), FRAME, NAMES),
    "forest of numbers": (ensemble.ExtraTreesRegressor(12, random_state=0), X, Y),
    "forest with two outputs": (ensemble.RandomForestRegressor(5, random_state=0), X, TWO),
    "gradient boosting": (ensemble.GradientBoostingClassifier(n_estimators=9), X, Y),
    "scaled logistic regression": (after_scaling(linear_model.LogisticRegression()), X, NAMES),
    "the same of named columns": (after_scaling(linear_model.LogisticRegression()), FRAME, NAMES),
    "histogram": (Histogram(max_iter=9), X, Y),
    "histogram, missing values, two classes": (Histogram(max_iter=9), holes(X), Y == 1),
    "histogram, missing values that it never saw": (Histogram(max_iter=9), X, Y),
    "histogram with categories": (Histogram(max_iter=9, categorical_features=[0, 2]), GROUPS, Y),
    "histogram of named columns": (Histogram(max_iter=9), FRAME, NAMES),
    "histogram of numbers": (HistogramRegressor(max_iter=9), X, Y),
    "histogram of counts": (HistogramRegressor(max_iter=9, loss="poisson"), X, Y),
    "histogram after scaling": (after_scaling(Histogram(max_iter=9)), X, NAMES),
    "histogram that stopped early": (HistogramRegressor(early_stopping=True, n_iter_no_change=2), X, Y),
    "vote": (ensemble.VotingClassifier(VOTERS, voting="soft"), X, Y),
    "calibrated": (calibration.CalibratedClassifierCV(svm.LinearSVC(), cv=2), X, Y),
    "without probabilities": (svm.SVC(), X, Y),
    "clusters": (cluster.KMeans(3, n_init=1, random_state=0), X, None),
    "two targets": (linear_model.LinearRegression(), X, TWO),
    "yes and no": (after_scaling(linear_model.LogisticRegression()), X, Y == 1),
    "labels that are fractions": (after_scaling(linear_model.LogisticRegression()), X, Y + 0.0),
    "network": (neural_network.MLPClassifier((9,), max_iter=2000, random_state=0), X, Y),
}
BOOSTED = [
    (library, classifies, scaled)
    for library in ("xgboost", "lightgbm", "catboost")
    for classifies in (True, False)
    for scaled in (True, False)
]


def converted(fitted: Any, rows: Any, folder: Path) -> Converted:
    joblib.dump(fitted, folder / "model.joblib")
    return of_file(folder / "model.joblib", rows)


def of_file(path: Path, rows: Any, allow_pickle: bool = True) -> Converted:
    """What the step returns; its model lies beside the file."""
    columns = {"input": rows} if isinstance(rows, np.ndarray) else {name: as_rows(rows[name]) for name in rows}
    Rows(columns).save(path.parent / "rows.npz")
    return convert(model=path, rows=path.parent / "rows.npz", folder=path.parent, allow_pickle=allow_pickle)


def as_rows(series: Any) -> Any:
    return series.to_numpy(float) if series.dtype.kind in "if" else np.array(series.tolist(), np.str_)


@pytest.mark.parametrize("case", FITTED)
@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
def test_it_answers_the_same(tmp_path: Path, case: str) -> None:
    fitted, rows, targets = FITTED[case]
    fitted = fitted.fit(rows, targets)
    tried = holes(rows) if "never saw" in case else rows
    made = converted(fitted, tried, tmp_path)
    assert made.equality.rows == len(rows)
    assert made.equality.rows_apart == 0, made
    assert made.equality.largest_error < 1e-5
    signature = load(tmp_path / made.file).signature
    assert signature.batched
    assert [each.name for each in signature.inputs] == (list(rows) if rows is FRAME else ["input"])


@pytest.mark.parametrize(("library", "classifies", "scaled"), BOOSTED)
@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
def test_boosters_in_pickles_and_in_pipelines(tmp_path: Path, library: str, classifies: bool, scaled: bool) -> None:
    last = estimator(library, classifies)
    made = converted((after_scaling(last) if scaled else last).fit(X, Y), X, tmp_path)
    assert made.equality.rows_apart == 0, made
    assert made.equality.largest_error < 1e-5


def test_scaled_trees_are_exact_though_scaling_rounds(tmp_path: Path) -> None:
    rows = CANCER[0].round(2)
    made = converted(after_scaling(Forest(21, random_state=3)).fit(rows, CANCER[1]), rows, tmp_path)
    assert made.equality.rows_apart == 0, made


@pytest.mark.parametrize("names", [[0, 1], ["benign", "malign"], [7, 3]])
def test_a_vote_of_ten_trees_against_ten_goes_to_the_first_class(tmp_path: Path, names: list[Any]) -> None:
    """However the votes are added up: a sum may be 0.49999997, and another 0.50000003."""
    rows, classes = CANCER[0], np.take(names, CANCER[1])
    fitted = Forest(20, random_state=3).fit(rows[:100], classes[:100])
    assert (fitted.predict_proba(rows)[:, 0] == 0.5).sum() == 3
    made = converted(fitted, rows, tmp_path)
    assert made.equality.rows_apart == 0, made


def test_rows_that_lack_a_feature_are_answered_as_the_library_does_or_not_at_all(tmp_path: Path) -> None:
    rows = CANCER[0].copy()
    rows[:5, 3] = np.nan
    with pytest.raises(CannotChange, match=r"it answers [1-5] rows otherwise in which a feature is missing"):
        converted(Forest(20, random_state=3).fit(*CANCER), rows, tmp_path)


def test_ties_are_explained(tmp_path: Path) -> None:
    """A neighbor is as near as another: which of them counts is up to the last digit."""
    from sklearn.neighbors import KNeighborsClassifier

    made = converted(KNeighborsClassifier().fit(X, Y), X, tmp_path)
    assert made.equality.rows_apart == made.equality.ties == 1
    assert "1 of the 1 rows that differ are ties" in made.equality.notes[0]


@pytest.mark.parametrize("right", [True, False])
def test_a_tie_does_not_excuse_an_answer_that_the_library_would_not_give(tmp_path: Path, right: bool) -> None:
    """All rows lie a little above the threshold of a tree, where single precision puts them below it."""
    low, high = np.full((20, 1), 0.25), np.full((20, 1), 0.75)
    stump = HistogramRegressor(max_iter=1, learning_rate=1.0, min_samples_leaf=1, max_leaf_nodes=2)
    stump.fit(np.r_[low, high], np.r_[np.zeros(20), np.full(20, 10.0)])
    Rows({"input": np.full((50, 1), 0.5 + 1e-12)}).save(tmp_path / "rows.npz")
    tabular = Tabular(Estimator(stump), tmp_path / "rows.npz")
    assert tabular.answers["prediction"].tolist() == [10.0] * 50
    graph = OwnGraph()
    nothing = graph.node("Mul", [tabular.rows_of(graph), graph.constant(np.zeros(1, np.float32))])
    answer = graph.node("Add", [nothing, graph.constant(np.float32([0.0 if right else 3.0]))])
    model = graph.model(tabular.values("float32"), tabular.prediction(graph, answer, "float32"))
    if right:
        equality = tabular.converted(model, tmp_path).equality
        assert (equality.rows_apart, equality.ties) == (50, 50)
        return
    with pytest.raises(CannotChange, match="it answers 50 of 50 rows otherwise: by up to 7"):
        tabular.converted(model, tmp_path)


# -- columns that hold text -------------------------------------------------------------------------------------------

PEOPLE = pandas.DataFrame(
    {"age": [30.0, 40, 35, 20, 50, 60] * 5, "city": ["Bonn", "Ulm", "Bonn", "Köln", "Ulm", "Bonn"] * 5}
)
BUYS = ["no", "yes", "no", "no", "yes", "yes"] * 5


def mixed(last: Any) -> Any:
    number = pipeline.make_pipeline(impute.SimpleImputer(), preprocessing.StandardScaler())
    text = preprocessing.OneHotEncoder(handle_unknown="ignore")
    columns = compose.ColumnTransformer([("number", number, ["age"]), ("text", text, ["city"])])
    return pipeline.make_pipeline(columns, last).fit(PEOPLE, BUYS)


@pytest.mark.parametrize("last", [linear_model.LogisticRegression(), Forest(9, random_state=0)])
def test_columns_of_text_become_tensors_of_their_own(tmp_path: Path, last: Any) -> None:
    rows = pandas.concat([PEOPLE, pandas.DataFrame({"age": [33.0], "city": ["Rome"]})])
    made = converted(mixed(last), rows, tmp_path)
    assert made.equality.rows_apart == 0, made
    assert "one for each column, by name, and neither items nor lists" in made.notes[-1]
    assert "a value that is missing (null) is refused" in made.notes[-1]
    inputs = load(tmp_path / made.file).signature.inputs
    assert [(each.name, each.datatype.label, each.shape) for each in inputs] == [
        ("age", "FP32", (-1,)),
        ("city", "BYTES", (-1,)),
    ]


def test_texts_are_served_as_they_are(tmp_path: Path) -> None:
    model = pipeline.make_pipeline(TfidfVectorizer(), naive_bayes.MultinomialNB())
    joblib.dump(model.fit(["good day", "bad thing"] * 3, ["+", "-"] * 3), tmp_path / "model.joblib")
    with pytest.raises(CannotChange, match="it takes texts"):
        of_file(tmp_path / "model.joblib", np.array([["good day"]]))


# -- what is refused --------------------------------------------------------------------------------------------------


class Doubling(linear_model.LinearRegression):
    """A class that has no converter."""

    def predict(self, X: Any) -> Any:  # noqa: N803 (called so by scikit-learn)
        return 2 * super().predict(X)


def test_an_estimator_without_a_converter(tmp_path: Path) -> None:
    fitted = pipeline.make_pipeline(preprocessing.StandardScaler(), Doubling()).fit(X, Y)
    with pytest.raises(CannotChange, match=r"skl2onnx does not convert it: .*Doubling"):
        converted(fitted, X, tmp_path)


def test_an_estimator_whose_conversion_answers_otherwise(tmp_path: Path) -> None:
    fitted = linear_model.LinearRegression().fit(X, Y)
    fitted.predict = first_column
    path = tmp_path / "model.joblib"
    joblib.dump(fitted, path)
    with pytest.raises(CannotChange, match="it answers 150 of 150 rows otherwise: by up to"):
        of_file(path, X)
    assert not (tmp_path / "model.onnx").exists()


def first_column(rows: Any) -> Any:
    return np.asarray(rows)[:, 0]


def test_fault_102_a_pickle_is_not_converted_unless_that_is_allowed(tmp_path: Path) -> None:
    path = tmp_path / "model.pkl"
    joblib.dump(linear_model.LinearRegression().fit(X, Y), path)
    with pytest.raises(UnsafeModel):
        of_file(path, X, allow_pickle=False)


def test_a_skops_file_of_known_types_is_converted_without_being_allowed(tmp_path: Path) -> None:
    path = tmp_path / "model.skops"
    skops_io.dump(after_scaling(linear_model.LogisticRegression()).fit(X, Y), path)
    assert of_file(path, X, allow_pickle=False).equality.rows_apart == 0


def test_rows_of_something_else(tmp_path: Path) -> None:
    joblib.dump(linear_model.LinearRegression().fit(FRAME, Y), tmp_path / "model.joblib")
    with pytest.raises(ConfigError, match=r"the rows have no 'sepal length \(cm\)'; they have input"):
        of_file(tmp_path / "model.joblib", X)
