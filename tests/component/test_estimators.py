"""Does a fitted estimator answer as it would without us, whatever it was fitted on?"""

import json
import warnings
from typing import Any

import numpy as np
import pytest

from paceline.core.errors import ModelLoadError
from paceline.workers.frames import Setup
from paceline.workers.python.estimators import Estimator, service_of
from paceline.workers.python.forests import hasten
from paceline.workers.python.service import Failed, TensorService

pandas = pytest.importorskip("pandas")
pytest.importorskip("sklearn")

from sklearn import (  # noqa: E402
    calibration,
    clone,
    cluster,
    compose,
    datasets,
    ensemble,
    linear_model,
    model_selection,
    naive_bayes,
    neighbors,
    pipeline,
    preprocessing,
    svm,
    tree,
)
from sklearn.feature_extraction.text import TfidfVectorizer  # noqa: E402
from sklearn.impute import SimpleImputer  # noqa: E402

X, Y = datasets.load_iris(return_X_y=True)
NAMES = datasets.load_iris().target_names[Y]
FRAME = datasets.load_iris(as_frame=True).data
WIDE = pandas.DataFrame(np.tile(X, 20), columns=[f"column {number}" for number in range(80)])
SCALED = pipeline.make_pipeline(preprocessing.StandardScaler(), linear_model.LogisticRegression())
FOREST = ensemble.RandomForestClassifier(12, random_state=0)

FITTED: dict[str, tuple[Any, Any, Any]] = {
    "forest": (FOREST, X, NAMES),
    "forest of named columns": (FOREST, FRAME, NAMES),
    "forest of many named columns": (FOREST, WIDE, Y),
    "forest of numbers": (ensemble.ExtraTreesRegressor(12, random_state=0), X, Y),
    "forest in a pipeline": (pipeline.make_pipeline(preprocessing.StandardScaler(), FOREST), X, Y),
    "forest with two outputs": (ensemble.RandomForestRegressor(5, random_state=0), X, np.c_[Y, -Y]),
    "boosted trees": (ensemble.AdaBoostClassifier(n_estimators=3, random_state=0), X, Y),
    "histogram trees": (ensemble.HistGradientBoostingClassifier(max_iter=3), FRAME, Y),
    "tree": (tree.DecisionTreeClassifier(random_state=0), X, NAMES),
    "vote": (
        ensemble.VotingClassifier([("a", naive_bayes.GaussianNB()), ("b", FOREST)], voting="soft"),
        X,
        Y,
    ),
    "search": (model_selection.GridSearchCV(FOREST, {"max_depth": [2]}, cv=2), X, Y),
    "calibrated": (calibration.CalibratedClassifierCV(svm.LinearSVC(), cv=2), X, Y),
    "without probabilities": (svm.SVC(), X, Y),
    "pipeline": (SCALED, X, NAMES),
    "pipeline of named columns": (SCALED, FRAME, NAMES),
    "neighbours": (neighbors.KNeighborsClassifier(), X, NAMES),
    "clusters": (cluster.KMeans(3, n_init=1, random_state=0), X, None),
    "two targets": (linear_model.LinearRegression(), X, np.c_[Y, -Y]),
    "yes and no": (naive_bayes.GaussianNB(), X, Y == 1),
}


@pytest.mark.parametrize("case", FITTED)
def test_numbers_are_tensors_and_the_answers_those_of_the_estimator(case: str) -> None:
    estimator, rows, targets = FITTED[case]
    fitted = estimator.fit(rows, targets)
    some = rows[::17]
    expected = [fitted.predict(some)]
    if hasattr(fitted, "predict_proba"):
        expected.append(fitted.predict_proba(some))
    service = service_of(Estimator(fitted), [])
    assert isinstance(service, TensorService)
    ready = service.setup_tensors(Setup(1))
    columns = np.asarray(some, np.float64)
    inputs = (columns,) if len(ready.inputs) == 1 else tuple(columns.T.copy())
    for array in inputs:
        array.flags.writeable = False  # as in shared memory
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that the columns have no names: `setup_tensors` has seen to it
        outputs = service.predict_tensors(inputs)
    assert len(outputs) == len(expected) == len(ready.outputs)
    for got, wanted, tensor in zip(outputs, expected, ready.outputs, strict=True):
        assert got.tolist() == (wanted.astype(str) if got.dtype == object else wanted).tolist()
        assert tensor.shape == [-1, *got.shape[1:]]
    if len(expected) == 2:
        assert ready.outputs[1].labels == [str(label) for label in fitted.classes_]


@pytest.mark.parametrize(("case", "names"), [("forest", ["input"]), ("forest of many named columns", ["input"])])
def test_columns_without_names_or_too_many_are_one_tensor(case: str, names: list[str]) -> None:
    estimator, rows, targets = FITTED[case]
    about = service_of(Estimator(estimator.fit(rows, targets)), []).about
    assert [(each.name, each.datatype, each.shape) for each in about.inputs] == [("input", "FP64", [-1, rows.shape[1]])]
    assert names == [each.name for each in about.inputs]


def test_named_columns_are_tensors_of_their_own() -> None:
    service = service_of(Estimator(FOREST.fit(FRAME, NAMES)), ["a note"])
    assert isinstance(service, TensorService)
    assert [each.name for each in service.about.inputs] == list(FRAME.columns)
    assert service.about.says == ["RandomForestClassifier (sklearn): 4 numbers -> label, probabilities", "a note"]
    (example,) = service.setup_tensors(Setup(1)).examples
    assert json.loads(bytes(example)) == dict.fromkeys(FRAME.columns, 0.0)


def test_no_part_starts_threads_of_its_own() -> None:
    forest = ensemble.RandomForestClassifier(3, n_jobs=-1).fit(X, Y)
    inner = pipeline.make_pipeline(preprocessing.StandardScaler(), ensemble.ExtraTreesClassifier(3, n_jobs=2)).fit(X, Y)
    for fitted, part in ((forest, forest), (inner, inner[-1])):
        service_of(Estimator(fitted), []).setup_tensors(Setup(1))
        assert part.n_jobs == 1


def test_an_estimator_that_takes_no_zeros_has_an_example_of_ones() -> None:
    powers = pipeline.make_pipeline(preprocessing.PowerTransformer("box-cox"), linear_model.LinearRegression())
    service: Any = service_of(Estimator(powers.fit(X + 1, Y)), [])
    (example,) = service.setup_tensors(Setup(1)).examples
    assert json.loads(bytes(example)) == [1, 1, 1, 1]


# -- columns that hold text -----------------------------------------------------------------------------------

PEOPLE = pandas.DataFrame({"age": [30.0, 40, None, 20, 50, 60], "city": ["Bonn", "Ulm", "Bonn", None, "Ulm", "Bonn"]})
BUYS = ["no", "yes", "no", "no", "yes", "yes"]


def mixed() -> Any:
    """A pipeline that picks columns by name."""
    number = pipeline.make_pipeline(SimpleImputer(), preprocessing.StandardScaler())
    text = preprocessing.OneHotEncoder(handle_unknown="ignore")
    columns = compose.ColumnTransformer([("number", number, ["age"]), ("text", text, ["city"])])
    return pipeline.make_pipeline(columns, linear_model.LogisticRegression()).fit(PEOPLE, BUYS)


def test_columns_of_text_are_objects_by_name() -> None:
    fitted = mixed()
    service: Any = service_of(Estimator(fitted), [])
    assert service.about.inputs == []
    assert service.setup(Setup(1)) == [{"age": 0.0, "city": "Bonn"}]
    items = [{"city": "Ulm", "age": 35}, {"age": None, "city": "Rome"}, [50, "Bonn"]]
    rows = pandas.DataFrame([[35, "Ulm"], [None, "Rome"], [50, "Bonn"]], columns=PEOPLE.columns)
    expected = [
        {"label": label, "probabilities": dict(zip(["no", "yes"], both, strict=True))}
        for label, both in zip(fitted.predict(rows), fitted.predict_proba(rows).tolist(), strict=True)
    ]
    assert service.predict(items) == expected


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ({"age": 1}, "the item: 'city' is missing; the columns are age, city"),
        ({"age": 1, "city": "Ulm", "town": 1}, "the item: 'town' is no column; the columns are age, city"),
        ([1], "the item: expected an object by column, or a list of 2 values, got a list of 1"),
        ("Ulm", "the item: expected an object by column, or a list of 2 values, got a text"),
        (None, "the item: expected an object by column, or a list of 2 values, got null"),
        ({"age": [1], "city": "Ulm"}, "age: expected a number or a text, got a list"),
    ],
)
def test_an_item_that_does_not_fit_fails_alone(item: Any, said: str) -> None:
    service: Any = service_of(Estimator(mixed()), [])
    service.setup(Setup(1))
    good = {"age": 1, "city": "Ulm"}
    first, failed, last = service.predict([good, item, good])
    assert failed == Failed(said, "invalid_item")
    assert first == last == service.predict([good])[0]


def test_lists_that_hold_text() -> None:
    encoder = preprocessing.OneHotEncoder(handle_unknown="ignore")
    rows = np.array([["a", 1], ["b", 2]] * 3, object)
    service: Any = service_of(Estimator(pipeline.make_pipeline(encoder, svm.LinearSVC()).fit(rows, [0, 1] * 3)), [])
    assert service.setup(Setup(1)) == [["a", 1]]
    assert service.predict([["b", 2], ["a", 1]]) == [{"label": 1}, {"label": 0}]


def test_texts_are_items_as_they_are() -> None:
    model = pipeline.make_pipeline(TfidfVectorizer(), naive_bayes.MultinomialNB())
    service: Any = service_of(Estimator(model.fit(["good day", "bad thing"] * 3, ["+", "-"] * 3)), [])
    assert service.setup(Setup(1)) == ["text"]
    assert [each["label"] for each in service.predict(["a bad one", "good"])] == ["-", "+"]


# -- forests --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["RandomForest", "ExtraTrees"])
@pytest.mark.parametrize("task", ["Classifier", "Regressor"])
def test_a_hastened_forest_answers_bit_for_bit_as_before(kind: str, task: str) -> None:
    forest = getattr(ensemble, kind + task)(30, random_state=1).fit(X, Y)
    method = "predict_proba" if task == "Classifier" else "predict"
    rows = np.random.default_rng(5).normal(3, 3, (500, 4))
    before = getattr(forest, method)(rows)
    assert hasten(forest)
    assert (getattr(forest, method)(rows) == before).all()
    with pytest.raises(ValueError, match="4 features"):
        getattr(forest, method)(rows[:, :2])


def test_what_is_no_forest_or_none_that_we_know_stays_as_it_was() -> None:
    class Own(ensemble.RandomForestClassifier):
        pass

    assert not hasten(tree.DecisionTreeClassifier().fit(X, Y))
    assert not hasten(Own(3).fit(X, Y))
    assert not hasten(ensemble.RandomForestRegressor(3).fit(X, np.c_[Y, Y]))
    assert not hasten(ensemble.RandomForestRegressor(3))


@pytest.mark.parametrize("estimator", [FOREST, SCALED, pipeline.make_pipeline(TfidfVectorizer(), svm.LinearSVC())])
def test_an_estimator_that_is_not_fitted_is_refused(estimator: Any):
    with pytest.raises(ModelLoadError, match="expected a fitted estimator, got one that is not"):
        service_of(Estimator(clone(estimator)), [])
