"""Is a pickled model served only when that is allowed, and does it answer as it would without a server?"""

import json
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas
import pytest
from sklearn import base, compose, datasets, ensemble, linear_model, pipeline, preprocessing
from skops import io as skops_io

from paceline.testing import RunningServer, run_server
from support import oip
from support.wire import ask, get, post

pytestmark = pytest.mark.slow
X, Y = datasets.load_iris(return_X_y=True)
NAMES = datasets.load_iris().target_names[Y]
ALLOWED = ["--allow-pickle", "--instances", "1", "--warmup-s", "0.05"]


class Payload:
    """What it holds runs when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self._file,)


class Doubling(base.RegressorMixin, base.BaseEstimator):
    """A type that skops does not know."""

    def predict(self, rows: Any) -> Any:
        return np.sum(rows, axis=1) * 2


def refused(path: Path, *flags: str) -> tuple[int, str]:
    """Exit code and stderr of a server that must not start."""
    command = [sys.executable, "-m", "paceline", "serve", str(path), "--port", "0", *flags]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert "live on" not in result.stderr
    assert "Traceback" not in result.stderr
    return result.returncode, result.stderr


def forest() -> ensemble.RandomForestClassifier:
    return ensemble.RandomForestClassifier(20, n_jobs=-1, random_state=0).fit(X, NAMES)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    path = tmp_path_factory.mktemp("models") / "iris.pkl"
    path.write_bytes(pickle.dumps(forest()))
    with run_server(path, ALLOWED) as running:
        yield running


def predict(server: RunningServer, item: Any, target: str = "/predict") -> Any:
    answer = ask(server, post(json.dumps(item).encode(), target=target))
    assert answer.status == 200, answer.body
    return json.loads(answer.body)


# -- refusing -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["pkl", "pickle", "joblib", "PKL"])
def test_fault_102_a_pickle_is_refused_and_never_executed(tmp_path: Path, suffix: str) -> None:
    touched, path = tmp_path / "touched", tmp_path / f"model.{suffix}"
    path.write_bytes(pickle.dumps(Payload(touched)))
    code, said = refused(path)
    assert code == 6
    assert said.splitlines() == [
        f"error: model.{suffix}: a pickle runs whatever code it holds when it is loaded",
        "hint: give --allow-pickle, if it comes from people whose code you would run",
    ]
    assert not touched.exists()


def test_fault_102_types_that_skops_does_not_know_are_named_and_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.skops"
    skops_io.dump(Doubling(), path)
    code, said = refused(path)
    assert code == 6
    assert f"{Doubling.__module__}.Doubling" in said


def test_a_skops_file_of_known_types_needs_no_flag(tmp_path: Path) -> None:
    path = tmp_path / "line.skops"
    fitted = linear_model.LinearRegression().fit(X, Y)
    skops_io.dump(fitted, path)
    with run_server(path, ["--instances", "1", "--warmup-s", "0.05"]) as server:
        assert predict(server, X[0].tolist()) == pytest.approx(fitted.predict(X[:1])[0])


@pytest.mark.parametrize(
    ("content", "code", "said"),
    [
        (b"no pickle", 4, "model.pkl: cannot be loaded: "),
        (pickle.dumps(forest())[:5000], 4, "model.pkl: cannot be loaded: "),
        (pickle.dumps({"model": 1}), 4, "model.pkl: expected an object that has predict, got dict"),
        (b"cnowhere_to_be_found.part\nModel\n.", 4, "hint: pip install nowhere_to_be_found"),
        (b"c__main__\nModel\n.", 4, "put the definition in a module beside it"),
    ],
    ids=["garbage", "truncated", "a dict", "a missing library", "a class of a script"],
)
def test_what_cannot_be_loaded_says_why(tmp_path: Path, content: bytes, code: int, said: str) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(content)
    ended, text = refused(path, "--allow-pickle")
    assert ended == code, text
    assert said in text


# -- serving --------------------------------------------------------------------------------------------------


def test_plain_json(server: RunningServer) -> None:
    expected = forest().predict_proba(X[:100:50])
    assert predict(server, X[::50][:2].tolist(), "/batch-predict") == [
        {"label": NAMES[50 * row], "probabilities": dict(zip(np.unique(NAMES), expected[row].tolist(), strict=True))}
        for row in range(2)
    ]
    assert json.loads(ask(server, get("/example")).body) == [0, 0, 0, 0]
    answer = ask(server, post(b"[1, 2, 3]"))
    assert answer.status == 400
    assert "Expected [-1,4], got [1,3]" in json.loads(answer.body)["error"]


def test_open_inference_and_tensorflow_serving(server: RunningServer) -> None:
    rows = X[::60]
    with oip.connect(server.url) as client:
        tensor = {"name": "input", "datatype": "FP64", "shape": [3, 4], "data": rows.ravel().tolist()}
        outputs = oip.infer(client, "iris", {"inputs": [tensor]}).json()["outputs"]
        assert [(each["name"], each["datatype"], each["shape"]) for each in outputs] == [
            ("label", "BYTES", [3]),
            ("probabilities", "FP64", [3, 3]),
        ]
        assert outputs[0]["data"] == NAMES[::60].tolist()
        answer = client.post("/v1/models/iris:predict", json={"instances": rows.tolist()}).json()
        assert [each["label"] for each in answer["predictions"]] == NAMES[::60].tolist()


def test_named_columns_are_the_fields_of_an_item(tmp_path: Path) -> None:
    path = tmp_path / "iris.joblib"
    frame = datasets.load_iris(as_frame=True).data
    fitted = pipeline.make_pipeline(preprocessing.StandardScaler(), linear_model.LogisticRegression()).fit(frame, Y)
    joblib.dump(fitted, path)
    with run_server(path, ALLOWED) as server:
        item = frame.iloc[70].to_dict()
        assert predict(server, dict(reversed(item.items())))["label"] == fitted.predict(frame.iloc[70:71])[0]
        del item["petal width (cm)"]
        answer = ask(server, post(json.dumps(item).encode()))
        assert answer.status == 400
        assert "petal width (cm)" in json.loads(answer.body)["error"]


def test_columns_of_text_fail_item_by_item(tmp_path: Path) -> None:
    path = tmp_path / "city.joblib"
    frame = pandas.DataFrame({"age": [30.0, 40, 35, 20], "city": ["Bonn", "Ulm", "Ulm", "Bonn"]})
    text = compose.make_column_transformer((preprocessing.OneHotEncoder(), ["city"]), remainder="passthrough")
    fitted = pipeline.make_pipeline(text, linear_model.LogisticRegression()).fit(frame, [0, 1, 1, 0])
    joblib.dump(fitted, path)
    with run_server(path, ALLOWED) as server:
        good, bad, last = predict(
            server, [{"age": 40, "city": "Ulm"}, {"age": 30}, {"age": 20, "city": "Bonn"}], "/batch-predict"
        )
        for answer, row in ((good, [40, "Ulm"]), (last, [20, "Bonn"])):
            expected = fitted.predict_proba(pandas.DataFrame([row], columns=frame.columns))[0]
            assert list(answer["probabilities"].values()) == expected.tolist()
        assert bad["error"] == "the item: 'city' is missing; the columns are age, city"


def test_a_class_that_lies_beside_the_model_is_found(tmp_path: Path) -> None:
    (tmp_path / "halves.py").write_text(
        "class Half:\n    def predict(self, items):\n        return [x / 2 for x in items]\n"
    )
    script = "import pickle, halves; pickle.dump(halves.Half(), open('half.pkl', 'wb'))"
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True, timeout=20)
    with run_server(tmp_path / "half.pkl", ALLOWED) as server:
        assert predict(server, [3, 4], "/batch-predict") == [1.5, 2.0]


def test_another_version_of_scikit_learn_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "old.pkl"
    monkeypatch.setattr(base, "__version__", "1.0.2")
    path.write_bytes(pickle.dumps(forest()))
    monkeypatch.undo()
    with run_server(path, ALLOWED) as server:
        said = [line for line in server.output.splitlines() if "was made with scikit-learn 1.0.2" in line]
        assert any("predictions may differ" in line for line in said)
        assert predict(server, X[0].tolist())["label"] == NAMES[0]


def test_the_example(tmp_path: Path) -> None:
    script = Path(__file__).parents[2] / "examples" / "sklearn_pickle" / "train.py"
    subprocess.run([sys.executable, script], cwd=tmp_path, check=True, timeout=60)
    with run_server(tmp_path / "iris.pkl", ALLOWED) as server:
        item = {"sepal_length": 5.9, "sepal_width": 3, "petal_length": 5.1, "petal_width": 1.8}
        assert predict(server, item)["label"] == "virginica"
