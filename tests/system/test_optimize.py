"""`paceline optimize`: from a model and rows to a bundle that is served, and everything that may come between."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paceline.optimize.result import Study
from paceline.testing import run_server
from support import digits
from support.schemas import problems

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
pytest.importorskip("sklearn", reason="the models are scikit-learn's")
pytest.importorskip("skl2onnx", reason="scikit-learn's models become ONNX by skl2onnx")

WAIT_S = 240.0


class Place:
    """A folder with rows, and what the command does there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        digits.save_rows(folder)

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def command(self, model: Path | str, *flags: str) -> list[str]:
        known = ["--data", "rows.npz", "--labels", "labels.npy", "--out", "out", "--batches", "1", "--budget", "60s"]
        known += ["--threads", "1"]
        return [sys.executable, "-m", "paceline", "optimize", str(model), *known, *flags]

    def start(self, model: Path | str, *flags: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(model, *flags), cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def run(self, model: Path | str, *flags: str, code: int = 0) -> tuple[str, str]:
        """What it wrote to stdout and stderr."""
        done = subprocess.run(
            self.command(model, *flags), cwd=self.folder, capture_output=True, text=True, timeout=WAIT_S
        )
        assert done.returncode == code, done.stderr
        return done.stdout, done.stderr

    def study(self, model: Path | str, *flags: str, code: int = 0) -> dict[str, Any]:
        """By name of the candidate: the document's record of it; under "" the whole."""
        document = json.loads(self.run(model, "--json", *flags, code=code)[0])
        return {"": document, **{each["candidate"]["name"]: each for each in document["candidates"]}}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def predict(url: str, model: str, pixels: np.ndarray) -> dict[str, np.ndarray]:
    """The outputs for some rows, over Open Inference."""
    with urllib.request.urlopen(f"{url}/v2/models/{model}", timeout=20) as answer:
        (tensor,) = json.load(answer)["inputs"]
    body = {
        "inputs": [
            {
                "name": tensor["name"],
                "shape": list(pixels.shape),
                "datatype": tensor["datatype"],
                "data": pixels.ravel().tolist(),
            }
        ]
    }
    request = urllib.request.Request(f"{url}/v2/models/{model}/infer", json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=20) as answer:
        outputs = json.load(answer)["outputs"]
    return {each["name"]: np.array(each["data"]).reshape(each["shape"]) for each in outputs}


def records(place: Place) -> dict[str, int]:
    """When each step was done, by its folder."""
    return {
        each.parent.name: each.stat().st_mtime_ns for each in (place.out / "study" / "steps").glob("*/outcome.json")
    }


def test_a_pickled_forest_is_converted_and_served_as_it_was(place: Place):
    forest = digits.save_forest(place.folder / "forest.joblib", trees=50)
    found = place.study(forest, "--allow-pickle")
    assert found[""]["chosen"] == "onnx"
    assert found["original"]["status"] == "baseline"
    assert found["onnx"]["judgement"]["accepted"]
    assert found["onnx"]["speeds"][0]["ratio"] > 1.05
    assert found[""]["equality"]["rows_apart"] <= found[""]["equality"]["ties"]
    pixels, _ = digits.data()
    import joblib

    expected = joblib.load(forest).predict(pixels[-50:].astype(np.float64))
    with run_server(place.out) as server:
        assert predict(server.url, "forest", pixels[-50:])["label"].tolist() == expected.tolist()


def test_an_onnx_model_is_changed_judged_and_served(place: Place):
    model = digits.save_mlp(place.folder / "digits.onnx", width=1024)
    found = place.study(model, "--max-drop", "3%", "--candidates", "pruned-25,pruned-50,int8-dynamic")
    singles = ["pruned-25", "pruned-50", "int8-dynamic"]
    for name in singles:
        assert found[name]["status"] in ("accepted", "rejected", "skipped"), found[name]["reasons"]
        assert found[name]["reasons"]
    assert found["int8-dynamic"]["judgement"]["metric"] == "accuracy"
    assert found["int8-dynamic"]["size_bytes"] < found["original"]["size_bytes"] / 2
    pixels, truth = digits.data()
    with run_server(place.out) as server:
        labels = predict(server.url, "digits", pixels[digits.TRAINED_ON :])["label"].ravel()
    right = digits.mlp(1024).predict(pixels[digits.TRAINED_ON :]) == truth[digits.TRAINED_ON :]
    assert np.mean(labels == truth[digits.TRAINED_ON :]) >= right.mean() - 0.03


def test_the_reports_are_written_and_hold_the_study(place: Place):
    model = digits.save_mlp(place.folder / "digits.onnx")
    told, _ = place.run(model, "--candidates", "int8-dynamic", "--price-per-hour", "0.5")
    assert "int8-dynamic" in told
    import msgspec

    written = (place.out / "report.json").read_bytes()
    assert problems("study", json.loads(written)) == []
    study = msgspec.json.decode(written, type=Study)
    assert study.price_per_hour == 0.5
    assert [each.candidate.name for each in study.candidates] == ["original", "int8-dynamic"]
    assert study.source["file"] == "digits.onnx"
    assert "int8-dynamic" in (place.out / "report.html").read_text()


def test_a_candidate_over_the_accuracy_budget_is_rejected_with_the_reason(place: Place):
    model = digits.save_mlp(place.folder / "digits.onnx")
    found = place.study(model, "--max-drop", "0.1%", "--candidates", "pruned-*")
    last = found["pruned-75"]
    assert last["status"] in ("rejected", "skipped")
    assert "points" in found["pruned-25"]["reasons"][0]
    assert found[""]["chosen"] == "original"


def test_without_labels_candidates_have_to_agree_with_the_original(place: Place):
    model = digits.save_mlp(place.folder / "digits.onnx")
    command = place.command(model, "--json", "--candidates", "int8-dynamic")
    del command[command.index("--labels") : command.index("--labels") + 2]
    done = subprocess.run(command, cwd=place.folder, capture_output=True, text=True, timeout=WAIT_S, check=True)
    document = json.loads(done.stdout)
    assert document["metric"] == "agreement"
    assert not document["candidates"][1]["judgement"]["labelled"]
    assert any("there are no labels" in each for each in document["warnings"])


def test_rows_that_are_all_the_same_calibrate_nothing(place: Place):
    model = digits.save_mlp(place.folder / "digits.onnx")
    np.savez(place.folder / "rows.npz", input=np.ones((100, 64), np.float32))
    np.save(place.folder / "labels.npy", np.arange(100) % 10)
    found = place.study(model, "--candidates", "pruned-25,int8-dynamic")
    assert found["pruned-25"]["status"] == "skipped"
    assert "is the same in all" in found["pruned-25"]["reasons"][0]


def test_when_nothing_helped_the_bundle_holds_the_original(place: Place):
    model = digits.save_mlp(place.folder / "digits.onnx")
    found = place.study(model, "--skip", "*")
    assert found[""]["chosen"] == "original"
    bundle = json.loads((place.out / "bundle.json").read_text())
    assert (place.out / bundle["model"]).read_bytes() == model.read_bytes()


def test_what_is_required_and_not_reached_is_the_exit_code(place: Place):
    model = digits.save_mlp(place.folder / "digits.onnx")
    _, said = place.run(model, "--skip", "*", "--require", "1.5x", code=1)
    assert "1.00 times as fast, and --require asks for 1.5 times" in said
    assert (place.out / "bundle.json").exists()


def test_a_model_that_cannot_be_converted_is_served_as_it_is(place: Place):
    import joblib
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    pixels, truth = digits.data()
    pipeline = make_pipeline(FunctionTransformer(np.log1p), KNeighborsClassifier()).fit(pixels[:200], truth[:200])
    joblib.dump(pipeline, place.folder / "odd.joblib")
    found = place.study(place.folder / "odd.joblib", "--allow-pickle")
    assert found[""]["chosen"] == "original"
    assert found["onnx"]["status"] == "failed"
    assert any("cannot be converted to ONNX" in each for each in found[""]["warnings"])
    with run_server(place.out, ["--allow-pickle"]) as server:
        expected = pipeline.predict(pixels[-20:].astype(np.float64)).tolist()
        assert predict(server.url, "odd", pixels[-20:])["label"].tolist() == expected


def test_a_study_that_was_killed_goes_on_where_it_was(place: Place):
    model = digits.save_mlp(place.folder / "digits.onnx", width=512)
    flags = "--candidates", "pruned-25,pruned-50,pruned-75,int8-dynamic", "--max-drop", "10%"
    study = place.start(model, *flags)
    until = time.monotonic() + WAIT_S
    while not list(place.out.glob("study/records/pruned-25.json")):
        assert study.poll() is None, study.communicate()
        assert time.monotonic() < until
        time.sleep(0.01)
    study.send_signal(signal.SIGKILL)
    study.communicate(timeout=20)
    assert not (place.out / "bundle.json").exists()
    before = records(place)
    found = place.study(model, *flags)
    after = records(place)
    assert before
    assert {name: after[name] for name in before} == before, "steps that were done are not done again"
    assert found["pruned-50"]["status"] in ("accepted", "rejected", "skipped")
    assert (place.out / "bundle.json").exists()


def test_an_older_bundle_is_served_until_the_new_one_is_whole(place: Place):
    forest = digits.save_forest(place.folder / "forest.joblib", trees=10)
    place.run(forest, "--allow-pickle")
    bundle, model = (
        (place.out / "bundle.json").read_bytes(),
        digits.save_forest(place.folder / "other.joblib", trees=60),
    )
    study = place.start(model, "--allow-pickle")
    until = time.monotonic() + WAIT_S
    while not list(place.out.glob("study/steps/*sklearn*/outcome.json"))[1:]:
        assert study.poll() is None, study.communicate()
        assert time.monotonic() < until
        time.sleep(0.01)
    study.send_signal(signal.SIGKILL)
    study.communicate(timeout=20)
    assert (place.out / "bundle.json").read_bytes() == bundle
    pixels, _ = digits.data()
    with run_server(place.out) as server:
        assert len(predict(server.url, "forest", pixels[:3])["label"]) == 3
    place.run(model, "--allow-pickle")
    assert json.loads((place.out / "bundle.json").read_text())["name"] == "other"
    assert len(list(place.out.glob("model-*"))) == 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_study_says_how_to_go_on(place: Place, number: int, code: int):
    model = digits.save_mlp(place.folder / "digits.onnx", width=512)
    study = place.start(model)
    until = time.monotonic() + WAIT_S
    while not list(place.out.glob("study/records/*.json")):
        assert study.poll() is None, study.communicate()
        assert time.monotonic() < until
        time.sleep(0.01)
    study.send_signal(number)
    _, said = study.communicate(timeout=30)
    assert study.returncode == code
    assert "interrupted: the same command goes on where it was" in said
    assert "Traceback" not in said
    assert not (place.out / "bundle.json").exists()


def test_two_studies_do_not_share_a_folder(place: Place):
    model = digits.save_mlp(place.folder / "digits.onnx")
    first = place.start(model)
    until = time.monotonic() + WAIT_S
    while not list(place.out.glob("study/steps/*")):
        assert first.poll() is None, first.communicate()
        assert time.monotonic() < until
        time.sleep(0.01)
    _, said = place.run(model, code=3)
    assert "another study works there" in said
    first.kill()
    first.communicate(timeout=20)


def test_a_small_budget_tries_less_and_says_so(place: Place):
    model = digits.save_mlp(place.folder / "digits.onnx", width=1024)
    began = time.monotonic()
    found = place.study(model, "--budget", "15s", "--max-drop", "10%")
    assert time.monotonic() - began < 120
    skipped = [each for each in found[""]["candidates"] if each["status"] == "skipped"]
    assert any("budget" in each["reasons"][0] for each in skipped), skipped
    assert (place.out / "bundle.json").exists()


class Runs:
    """A pickle that runs what it is told to when it is read."""

    def __init__(self, code: str) -> None:
        self._code = code

    def __reduce__(self) -> Any:
        return exec, (self._code,)


def test_a_pickle_is_refused_and_not_read(place: Place):
    (place.folder / "bad.pkl").write_bytes(pickle.dumps(Runs(f"open({str(place.folder / 'ran')!r}, 'w')")))
    _, said = place.run("bad.pkl", code=6)
    assert "--allow-pickle" in said
    assert not (place.folder / "ran").exists()


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (["--data", "no-such.npz"], 3, "no-such.npz"),
        (["--labels", "no-such.npy"], 3, "no-such.npy"),
        (["--metric", "acuracy"], 3, "unknown metric"),
        (["--max-drop", "much"], 2, "expected a drop such as 0.5%"),
        (["--max-drop", "0.5"], 3, "write 0.5%, or 50%"),
        (["--candidates", "int4"], 3, "no candidate is called 'int4'"),
        (["--only", "int4"], 3, "no candidate is called 'int4'"),
        (["--out", "/proc/x"], 3, "--out: nothing can be written in /proc/x"),
        (["--budget", "1s"], 2, "5 s or more"),
        (["--batches", "1,x"], 2, "numbers of rows"),
        (["--require", "fast"], 2, "1.5x"),
    ],
    ids=lambda each: each[0] if isinstance(each, list) else "",
)
def test_what_is_wrong_is_said(place: Place, flags: Sequence[str], code: int, words: str):
    model = digits.save_mlp(place.folder / "digits.onnx")
    _, said = place.run(model, *flags, code=code)
    assert words in said
    assert "Traceback" not in said


def test_without_rows_it_is_said_how_to_make_some(place: Place):
    model = digits.save_mlp(place.folder / "digits.onnx")
    shutil.copy(place.folder / "rows.npz", place.folder / "digits_rows.npz")
    command = [sys.executable, "-m", "paceline", "optimize", str(model)]
    done = subprocess.run(command, cwd=place.folder, capture_output=True, text=True, timeout=WAIT_S)
    assert done.returncode == 2
    assert "np.savez" in done.stderr
    assert f"--data {place.folder / 'digits_rows.npz'}" in done.stderr


def test_code_and_bundles_are_not_optimized(place: Place):
    (place.folder / "service.py").write_text("def predict(x):\n    return x\n")
    assert "code, which is served as it is" in place.run("service.py", code=3)[1]
    place.run(digits.save_mlp(place.folder / "digits.onnx"), "--skip", "*")
    assert "which was optimized before" in place.run("out", code=3)[1]


def test_help_loads_neither_numpy_nor_a_framework():
    code = (
        "import sys; from paceline.cli.main import main\n"
        "try: main(['optimize', '--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'numpy', 'onnx', 'onnxruntime', 'sklearn', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, env=dict(os.environ)
    )
    assert done.stdout.rstrip().endswith("[]")
