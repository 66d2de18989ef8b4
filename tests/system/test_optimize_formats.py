"""From each library's own file: trained, converted, judged, served, compared. As a user would, on the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from paceline.testing import run_server
from support import boosters, keras_models, oip

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
SHOWN = 5


class Given(NamedTuple):
    """A model, and what its library says.

    Attributes:
        wanted: of the first rows; the output of that name.
    """

    path: Path
    rows: np.ndarray
    labels: np.ndarray
    output: str
    wanted: np.ndarray


def boosted(folder: Path, library: str) -> Given:
    path, fitted = boosters.trained(library, folder)
    rows, labels = boosters.CANCER
    return Given(path, rows, labels, "probabilities", fitted.predict_proba(rows[:SHOWN]))


def estimated(folder: Path, kind: str) -> Given:
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows, labels = boosters.CANCER
    if kind == "joblib":
        joblib = pytest.importorskip("joblib")
        fitted = HistGradientBoostingClassifier(max_iter=12).fit(rows, labels)
        joblib.dump(fitted, folder / "model.joblib")
    else:
        io = pytest.importorskip("skops.io", reason="pip install 'paceline[sklearn]'")
        fitted = make_pipeline(StandardScaler(), LogisticRegression()).fit(rows, labels)
        io.dump(fitted, folder / "model.skops")
    return Given(folder / f"model.{kind}", rows, labels, "probabilities", fitted.predict_proba(rows[:SHOWN]))


def drawn(folder: Path, name: str) -> Given:
    pytest.importorskip("tensorflow", reason=keras_models.EXTRA)
    pytest.importorskip("tf2onnx", reason=keras_models.EXTRA)
    keras_models.make(folder)
    rows = keras_models.inputs("cnn")["image"]
    scores = np.load(folder / "cnn.npy")
    return Given(folder / name, rows, scores.argmax(axis=1), "output_0", scores[:SHOWN])


FORMATS: dict[str, tuple[Callable[[Path, str], Given], str, list[str]]] = {
    "xgboost": (boosted, "xgboost", []),
    "lightgbm": (boosted, "lightgbm", []),
    "catboost": (boosted, "catboost", []),
    "joblib": (estimated, "joblib", ["--allow-pickle"]),
    "skops": (estimated, "skops", []),
    "keras": (drawn, "cnn.keras", []),
    "savedmodel": (drawn, "cnn", []),
}


def studied(folder: Path, given: Given, *flags: str) -> dict[str, Any]:
    np.save(folder / "rows.npy", given.rows)
    np.save(folder / "labels.npy", given.labels)
    command = [sys.executable, "-m", "paceline", "optimize", str(given.path), "--data", "rows.npy", *flags]
    command += ["--labels", "labels.npy", "--candidates", "onnx", "--batches", "1", "--budget", "3m", "--json"]
    command += ["--out", "out"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr
    study: dict[str, Any] = json.loads(done.stdout)
    return study


def served(path: Path, rows: np.ndarray, flags: list[str]) -> dict[str, np.ndarray]:
    """The outputs of these rows, over the Open Inference Protocol."""
    with (
        run_server(path, ["--warmup-s", "0.05", "--name", "model", *flags]) as server,
        oip.connect(server.url) as client,
    ):
        (about,) = client.get("/v2/models/model").json()["inputs"]
        sent = {**about, "shape": list(rows.shape), "data": rows.ravel().tolist()}
        document, _ = oip.split(oip.infer(client, "model", {"inputs": [sent]}))
    return {each["name"]: np.array(each["data"]).reshape(each["shape"]) for each in document["outputs"]}


@pytest.mark.parametrize("kind", FORMATS)
def test_a_converted_model_passes_the_gate_and_answers_as_its_library(tmp_path: Path, kind: str):
    make, name, flags = FORMATS[kind]
    given = make(tmp_path, name)
    (tmp_path / "out" / "model-of-mine").mkdir(parents=True)
    study = studied(tmp_path, given, *flags)
    tried = {each["candidate"]["name"]: each for each in study["candidates"]}
    assert tried["onnx"]["judgement"]["accepted"], tried["onnx"]
    assert study["equality"]["rows_apart"] == 0, study["equality"]
    assert (tmp_path / "out" / "model-of-mine").is_dir(), "what others have put there stays"
    # The converted model itself, whether or not it was the faster one on this machine; and what the bundle holds.
    for path in (tmp_path / "out" / tried["onnx"]["file"], tmp_path / "out"):
        outputs = served(path, given.rows[:SHOWN], flags)
        np.testing.assert_allclose(outputs[given.output], given.wanted, atol=1e-4)
