"""Candidates in processes of their own: do they answer as serving does, and what if they cannot?"""

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto as T
from onnx import helper

from paceline.core.errors import ConfigError, ModelLoadError, StepFailed, UnsafeModel
from paceline.optimize.data import matching
from paceline.optimize.data.rows import Rows
from paceline.optimize.measure import in_turn
from paceline.optimize.processes.predictor import Predictor, fixed_batch
from paceline.runtimes.onnx import OnnxModel
from paceline.runtimes.options import RuntimeOptions
from support import digits, models

pytestmark = pytest.mark.slow
DEFAULT = RuntimeOptions()


def rows(count: int = 50, width: int = 64, dtype: type = np.float32) -> Rows:
    return Rows({"x": np.random.default_rng(0).standard_normal((count, width)).astype(dtype)})


def children() -> set[int]:
    """Processes that this one has started, and which run."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[1]) == os.getpid() and fields[0] != "Z":
            found.add(int(stat.parent.name))
    return found


def test_it_answers_as_the_runtime_does_whatever_the_batch(tmp_path: Path):
    model, given = models.mlp(tmp_path / "m.onnx"), rows()
    direct = OnnxModel(model, DEFAULT).instances(1, 1)[0].run((given.inputs["x"],))[0]
    with Predictor(model, DEFAULT, threads=1) as predictor:
        for batch in (1, 7, 50, 64):
            assert np.allclose(predictor.predict(given, batch=batch)["y"], direct, atol=1e-6)


def test_rows_are_brought_into_the_types_of_the_model(tmp_path: Path):
    with Predictor(models.mlp(tmp_path / "m.onnx"), DEFAULT, threads=1) as predictor:
        wide = predictor.predict(rows(dtype=np.float64), batch=8)["y"]
        assert wide.dtype == np.float32
        assert np.allclose(wide, predictor.predict(rows(), batch=8)["y"], atol=1e-6)


def test_a_table_is_put_in_the_order_of_many_columns_that_become_one_matrix(tmp_path: Path):
    pandas, sklearn = pytest.importorskip("pandas"), pytest.importorskip("sklearn.linear_model")
    joblib = pytest.importorskip("joblib")
    names = [f"column {number}" for number in range(80)]
    frame = pandas.DataFrame(np.random.default_rng(0).standard_normal((60, 80)), columns=names)
    fitted = sklearn.LinearRegression().fit(frame, frame @ np.arange(80.0))
    joblib.dump(fitted, tmp_path / "model.joblib")
    frame[names[::-1]].to_csv(tmp_path / "rows.csv", index=False)
    frame.rename(columns={"column 7": "seven"}).to_csv(tmp_path / "other.csv", index=False)
    with Predictor(tmp_path / "model.joblib", DEFAULT, threads=1, allow_pickle=True) as predictor:
        inputs = predictor.signature.inputs
        given = matching.read(tmp_path / "rows.csv", None, inputs)
        assert np.allclose(predictor.predict(given, batch=8)["prediction"], fitted.predict(frame))
    with pytest.raises(ConfigError, match="missing: 'column 7'; unknown: 'seven'"):
        matching.read(tmp_path / "other.csv", None, inputs)


def test_a_model_of_one_row_runs_as_often_as_there_are_rows(tmp_path: Path):
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    model = models.save(tmp_path / "one.onnx", nodes, [("x", T.FLOAT, [1, 4])], [("y", T.FLOAT, [1, 4])])
    given = rows(5, 4)
    with Predictor(model, DEFAULT, threads=1) as predictor:
        assert fixed_batch(predictor.signature) == 1
        assert np.array_equal(predictor.predict(given, batch=3)["y"], np.maximum(given.inputs["x"], 0))
        assert len(predictor.time(given, batch=3, seconds=0.01)) >= 1


def test_text_comes_and_goes(tmp_path: Path):
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    model = models.save(tmp_path / "text.onnx", nodes, [("x", T.STRING, ["N"])], [("y", T.STRING, ["N"])])
    words = np.array(["stage", "wielersport", "København"])
    with Predictor(model, DEFAULT, threads=1) as predictor:
        assert predictor.predict(Rows({"x": words}), batch=2)["y"].tolist() == words.tolist()


def test_times_are_of_single_runs_and_longer_for_more_rows(tmp_path: Path):
    with Predictor(models.mlp(tmp_path / "m.onnx", (64, 2048, 10)), DEFAULT, threads=1) as predictor:
        one, many = (predictor.time(rows(), batch=batch, seconds=0.1) for batch in (1, 1024))
    assert len(one) > len(many) >= 1
    assert np.median(many) > np.median(one)


def test_candidates_are_timed_in_turn(tmp_path: Path):
    small, large = models.mlp(tmp_path / "s.onnx"), models.mlp(tmp_path / "l.onnx", (64, 4096, 4096, 10))
    with Predictor(large, DEFAULT, threads=1) as slow, Predictor(small, DEFAULT, threads=1) as fast:
        old, new = in_turn([slow, fast], rows(), batch=8, seconds=0.5)
    assert len(old.rounds) == len(new.rounds) >= 3
    assert new.speed(old).ratio_low > 1.0


def test_an_estimator_is_asked_in_a_worker_and_ends_with_its_predictor(tmp_path: Path):
    pytest.importorskip("sklearn", reason="the model is scikit-learn's")
    forest = digits.save_forest(tmp_path / "forest.joblib")
    pixels, _ = digits.data()
    before = children()
    with Predictor(forest, DEFAULT, threads=1, allow_pickle=True) as predictor:
        answers = predictor.predict(Rows({"input": pixels[:20].astype(np.float64)}), batch=8)
        assert answers["label"].shape == (20,)
        assert answers["probabilities"].shape == (20, 10)
        assert len(children() - before) == 1
    assert children() <= before


def test_a_service_of_items_is_asked_with_items(tmp_path: Path):
    (tmp_path / "service.py").write_text(
        "def predict(batch: list) -> list:\n"
        "    return [{'twice': 2 * each['a'], 'word': each['b'].upper()} for each in batch]\n"
    )
    given = Rows({"a": np.array([1.0, 2.5]), "b": np.array(["x", "y"])})
    with Predictor(tmp_path / "service.py", DEFAULT, threads=1) as predictor:
        answers = predictor.predict(given, batch=2)
    assert answers["twice"].tolist() == [2.0, 5.0]
    assert answers["word"].tolist() == ["X", "Y"]


def test_what_cannot_be_loaded_says_why(tmp_path: Path):
    (tmp_path / "broken.onnx").write_bytes(b"not a model at all")
    with pytest.raises(ModelLoadError, match=r"broken\.onnx: cannot be loaded"):
        Predictor(tmp_path / "broken.onnx", DEFAULT, threads=1)


def test_a_pickle_is_not_read_unless_that_is_allowed(tmp_path: Path):
    pytest.importorskip("sklearn", reason="the model is scikit-learn's")
    with pytest.raises(UnsafeModel):
        Predictor(digits.save_forest(tmp_path / "forest.pkl"), DEFAULT, threads=1)


def test_rows_of_another_width_are_an_error_and_it_lives_on(tmp_path: Path):
    with Predictor(models.mlp(tmp_path / "m.onnx"), DEFAULT, threads=1) as predictor:
        with pytest.raises(StepFailed, match="unexpected shape"):
            predictor.predict(rows(width=63), batch=1)
        assert predictor.predict(rows(), batch=8)["y"].shape == (50, 10)


def test_a_process_that_dies_is_told_of(tmp_path: Path):
    before = children()
    with Predictor(models.mlp(tmp_path / "m.onnx"), DEFAULT, threads=1) as predictor:
        (pid,) = children() - before
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(StepFailed, match="died while predicting: killed by SIGKILL"):
            predictor.predict(rows(), batch=1)


def test_a_model_that_hangs_is_killed_at_its_deadline(tmp_path: Path):
    (tmp_path / "service.py").write_text(
        "import time\n\ndef predict(batch: list) -> list:\n    time.sleep(1000)\n    return batch\n"
    )
    with Predictor(tmp_path / "service.py", DEFAULT, threads=1, timeout_s=60.0) as predictor:
        predictor.timeout_s = 1.0
        began = time.monotonic()
        with pytest.raises(StepFailed):
            predictor.predict(Rows({"a": np.zeros(2)}), batch=1)
        assert time.monotonic() - began < 60
