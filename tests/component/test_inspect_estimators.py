"""`paceline inspect` on pickles, joblib and skops files, and boosters' own files, as the libraries write them."""

from __future__ import annotations

import json
import os
import pickle
import zipfile

import numpy as np
import pytest

from paceline.inspection.dispatch import inspect
from support.inspected import tensors


def forest():
    from sklearn.datasets import load_iris
    from sklearn.ensemble import RandomForestClassifier

    data = load_iris()
    return RandomForestClassifier(n_estimators=5, random_state=0).fit(data.data, data.target)


@pytest.mark.slow
@pytest.mark.parametrize("compress", [0, 3, ("gzip", 3), ("bz2", 3), ("lzma", 3), ("xz", 3)])
def test_a_forest_of_joblib_is_followed_through_its_arrays(tmp_path, compress):
    joblib = pytest.importorskip("joblib", reason="the extra sklearn is not installed")
    joblib.dump(forest(), tmp_path / "forest.joblib", compress=compress)
    report = inspect(tmp_path / "forest.joblib")
    assert report.safety == "safe", report.findings
    assert report.operators["sklearn.tree._tree.Tree"] == 5
    assert report.about["object"] == "sklearn.ensemble._forest.RandomForestClassifier"
    assert tensors(report) == [("input", "FP64", [-1, 4])]
    assert report.serve is not None
    assert report.serve.endswith("forest.joblib --allow-pickle")


@pytest.mark.slow
def test_many_kinds_of_estimators_are_known_to_be_harmless(tmp_path):
    joblib = pytest.importorskip("joblib", reason="the extra sklearn is not installed")
    from sklearn.compose import ColumnTransformer
    from sklearn.datasets import load_iris
    from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier, IsolationForest
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.linear_model import LogisticRegression, SGDClassifier
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
    from sklearn.svm import SVC

    data = load_iris()
    names = data.target_names[data.target]  # text labels: arrays of objects
    estimators = [
        GradientBoostingClassifier(n_estimators=3), HistGradientBoostingClassifier(max_iter=3), SVC(),
        IsolationForest(n_estimators=5),
        KNeighborsClassifier(algorithm="kd_tree"), GaussianProcessRegressor(optimizer=None),
        MLPClassifier(max_iter=5000),
        SGDClassifier(), make_pipeline(FunctionTransformer(np.log1p), StandardScaler(), LogisticRegression()),
        make_pipeline(ColumnTransformer([("kind", OneHotEncoder(), [0])], remainder="passthrough"), SGDClassifier()),
    ]  # fmt: skip
    for index, estimator in enumerate(estimators):
        target = data.target if isinstance(estimator, GaussianProcessRegressor) else names.astype(object)
        fitted = estimator.fit(data.data, target)
        for path in (tmp_path / f"{index}.pkl", tmp_path / f"{index}.joblib"):
            with path.open("wb") as file:
                (pickle.dump if path.suffix == ".pkl" else joblib.dump)(fitted, file)
            report = inspect(path)
            assert report.safety == "safe", (estimator, report.findings)
            assert tensors(report) == [("input", "FP64", [-1, 4])]
    texts = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(["good day", "bad night"] * 5, [0, 1] * 5)
    joblib.dump(texts, tmp_path / "texts.joblib")
    report = inspect(tmp_path / "texts.joblib")
    assert (report.safety, [each[0] for each in tensors(report)]) == ("safe", ["item", "prediction"])


@pytest.mark.slow
def test_a_harmful_object_inside_of_a_model(tmp_path):
    joblib = pytest.importorskip("joblib", reason="the extra sklearn is not installed")
    model = forest()
    model.estimators_[2].extra_ = Touches(str(tmp_path / "created"))
    joblib.dump(model, tmp_path / "forest.joblib", compress=3)
    report = inspect(tmp_path / "forest.joblib")
    assert report.safety == "unsafe"
    assert "os.mkdir" in [each.name.replace("posix", "os") for each in report.imports if each.verdict == "dangerous"]
    assert not (tmp_path / "created").exists()


class Touches:
    """Makes a folder when it is loaded."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_file_of_skops_lists_its_types(tmp_path):
    io = pytest.importorskip("skops.io", reason="the extra sklearn is not installed")
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression

    data = load_iris()
    io.dump(LogisticRegression(max_iter=500).fit(data.data, data.target), tmp_path / "m.skops")
    report = inspect(tmp_path / "m.skops")
    assert report.safety == "safe"
    assert report.operators == {"sklearn.linear_model._logistic.LogisticRegression": 1}
    assert tensors(report) == [("input", "FP64", [-1, 4])]
    schema = {"__class__": "system", "__module__": "os", "__loader__": "FunctionNode", "content": {}}
    with zipfile.ZipFile(tmp_path / "bad.skops", "w") as archive:
        archive.writestr("schema.json", json.dumps({"content": [schema]}))
    assert inspect(tmp_path / "bad.skops").safety == "unsafe"


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["json", "ubj"])
@pytest.mark.parametrize("booster", ["gbtree", "dart"])
def test_models_of_xgboost(tmp_path, ending, booster):
    xgboost = pytest.importorskip("xgboost", reason="the extra xgboost is not installed")
    from sklearn.datasets import load_iris

    data = load_iris(as_frame=True)
    path = tmp_path / f"model.{ending}"
    model = xgboost.XGBClassifier(n_estimators=4, booster=booster, n_jobs=1).fit(data.data, data.target)
    model.save_model(path)
    report = inspect(path)
    assert report.made_by == f"XGBoost {xgboost.__version__}"
    assert (report.about["trees"], report.about["classes"]) == (12, 3)
    nodes = model.get_booster().trees_to_dataframe()
    assert report.about["nodes"] == len(nodes)
    assert report.about["objective"] == "multi:softprob"
    assert "petal length (cm)" in str(report.about["columns"])
    assert [each[1:] for each in tensors(report)] == [
        *[("FP64", [-1])] * 4, ("INT64", [-1]), ("FP64", [-1, 3])
    ]  # fmt: skip
    assert report.safety == "safe"


@pytest.mark.slow
@pytest.mark.parametrize(("objective", "told"), [("binary:logistic", 2), ("reg:squarederror", None)])
def test_two_classes_of_xgboost_and_none(tmp_path, objective, told):
    xgboost = pytest.importorskip("xgboost", reason="the extra xgboost is not installed")
    rows = np.arange(20.0).reshape(10, 2)
    data = xgboost.DMatrix(rows, np.arange(10) % 2)
    xgboost.train({"objective": objective, "nthread": 1}, data, 2).save_model(tmp_path / "m.ubj")
    assert inspect(tmp_path / "m.ubj").about.get("classes") == told


@pytest.mark.slow
@pytest.mark.parametrize(("objective", "told"), [("binary", 2), ("regression", None)])
def test_two_classes_of_lightgbm_and_none(tmp_path, objective, told):
    lightgbm = pytest.importorskip("lightgbm", reason="the extra lightgbm is not installed")
    rows = np.arange(200.0).reshape(100, 2)
    data = lightgbm.Dataset(rows, np.arange(100) % 2)
    made = lightgbm.train({"objective": objective, "verbose": -1, "num_threads": 1}, data, 2)
    made.save_model(tmp_path / "m.txt")
    assert inspect(tmp_path / "m.txt").about.get("classes") == told


@pytest.mark.slow
def test_models_of_lightgbm(tmp_path):
    lightgbm = pytest.importorskip("lightgbm", reason="the extra lightgbm is not installed")
    from sklearn.datasets import load_iris

    data = load_iris()
    model = lightgbm.LGBMClassifier(n_estimators=4, verbose=-1, n_jobs=1).fit(data.data, data.target)
    model.booster_.save_model(tmp_path / "model.txt")
    report = inspect(tmp_path / "model.txt")
    assert (report.about["trees"], report.about["classes"]) == (12, 3)
    assert report.about["leaves"] == int(sum(tree["num_leaves"] for tree in model.booster_.dump_model()["tree_info"]))
    assert tensors(report)[0] == ("input", "FP64", [-1, 4])


@pytest.mark.slow
def test_models_of_catboost(tmp_path):
    catboost = pytest.importorskip("catboost", reason="the extra catboost is not installed")
    from sklearn.datasets import load_iris

    data = load_iris()
    model = catboost.CatBoostClassifier(
        iterations=4, depth=3, verbose=0, thread_count=1, allow_writing_files=False
    ).fit(data.data, data.target)
    model.save_model(str(tmp_path / "model.cbm"))
    report = inspect(tmp_path / "model.cbm")
    assert report.made_by == f"CatBoost {catboost.__version__}"
    assert (report.about["trees"], report.about["outputs"]) == (4, 3)
    assert report.about["leaves"] == 4 * 2**3 * 3
    assert report.about["objective"] == "MultiClass"
