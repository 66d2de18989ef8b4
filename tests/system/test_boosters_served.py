"""Is a file of XGBoost, LightGBM or CatBoost served as it is and converted, with the same answers?"""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paceline.optimize.data.rows import Rows
from paceline.testing import RunningServer, run_server
from support.boosters import FILES, IRIS, estimator, save, trained
from support.wire import ask, post

pytest.importorskip("treelite", reason="pip install 'paceline[convert]'")
pytestmark = pytest.mark.slow
FLAGS = ["--instances", "1", "--warmup-s", "0.05"]
ROWS = IRIS[0][::15]


def predict(server: RunningServer, document: Any, target: str) -> Any:
    answer = ask(server, post(json.dumps(document).encode(), target=target))
    assert answer.status == 200, answer.body
    return json.loads(answer.body)


def tensors(server: RunningServer, rows: Any) -> dict[str, Any]:
    """Outputs over the Open Inference Protocol."""
    metadata = json.loads(ask(server, b"GET /v2/models/model HTTP/1.1\r\nhost: here\r\n\r\n").body)
    (given,) = metadata["inputs"]
    body = {"inputs": [{**given, "shape": list(rows.shape), "data": rows.ravel().tolist()}]}
    outputs = predict(server, body, "/v2/models/model/infer")["outputs"]
    return {each["name"]: np.array(each["data"]).reshape(each["shape"]) for each in outputs}


def convert(path: Path, library: str) -> Path:
    folder = path.parent / "converted"
    folder.mkdir()
    Rows({"input": IRIS[0]}).save(folder / "rows.npz")
    step = import_module(f"paceline.optimize.formats.{library}").convert
    made = step(model=path, rows=folder / "rows.npz", folder=folder, allow_pickle=False)
    assert made.equality.rows_apart == 0
    return folder / str(made.file)


@pytest.mark.parametrize("library", FILES)
def test_both_forms_answer_as_the_library(tmp_path: Path, library: str) -> None:
    path, fitted = trained(library, tmp_path, IRIS)
    wanted = fitted.predict_proba(ROWS)
    answers = []
    for file in (path, convert(path, library)):
        with run_server(file, FLAGS) as server:
            item = predict(server, ROWS[0].tolist(), "/predict")
            assert list(item) == ["label", "probabilities"]
            assert list(item["probabilities"]) == ["0", "1", "2"]
            assert list(item["probabilities"].values()) == pytest.approx(wanted[0].tolist(), abs=1e-5)
            answers.append(tensors(server, ROWS))
    for each in answers:
        assert each["label"].tolist() == fitted.predict(ROWS).reshape(-1).tolist()
        np.testing.assert_allclose(each["probabilities"], wanted, atol=1e-5)


def test_wrong_features_are_the_clients_fault(tmp_path: Path) -> None:
    path, _ = trained("xgboost", tmp_path, IRIS)
    with run_server(path, FLAGS) as server:
        for wrong in ([1.0, 2.0, 3.0], [1.0, 2.0, 3.0, 4.0, 5.0], ["a", 2.0, 3.0, 4.0]):
            answer = ask(server, post(json.dumps(wrong).encode(), target="/predict"))
            assert answer.status == 400, answer.body
        assert predict(server, ROWS[0].tolist(), "/predict")["label"] == 0


def test_named_columns_are_asked_for_by_name(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(IRIS[0], columns=["a", "b", "c", "d"])
    path = save(estimator("lightgbm", True).fit(frame, IRIS[1]), tmp_path)
    with run_server(path, FLAGS) as server:
        item = dict(zip("dcba", ROWS[-1].tolist()[::-1], strict=True))
        assert predict(server, item, "/predict")["label"] == 2


@pytest.mark.parametrize("library", FILES)
def test_a_file_that_is_cut_off_does_not_start(tmp_path: Path, library: str) -> None:
    path, _ = trained(library, tmp_path, IRIS)
    path.write_bytes(path.read_bytes()[:2000])
    command = [sys.executable, "-m", "paceline", "serve", str(path), "--port", "0"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 4, result.stderr
    assert f"error: {path.name}: cannot be loaded by {library}: " in result.stderr
    assert "live on" not in result.stderr
    assert "Traceback" not in result.stderr


def test_json_that_is_no_model_does_not_start(tmp_path: Path) -> None:
    path = tmp_path / "model.json"
    path.write_text('{"version": 3}')
    command = [sys.executable, "-m", "paceline", "serve", str(path), "--port", "0"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 4, result.stderr
    assert "not a format that can be served" in result.stderr
