"""Bundles and model folders behind real servers: what is served, with which settings, and what is said."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paceline.runtimes.base import load
from paceline.runtimes.options import RuntimeOptions
from paceline.testing import RunningServer, run_server
from support import models
from support.bundles import edit, make
from support.repositories import put, wait
from support.served import Served

pytestmark = pytest.mark.slow

ROW = np.linspace(-1, 1, 64, dtype=np.float32)
QUICK = ["--warmup-s", "0"]


def refuse_to_start(*arguments: str | Path) -> tuple[int, str]:
    command = [sys.executable, "-m", "paceline", "serve", *map(str, arguments), "--port", "0"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert "live on" not in result.stderr
    return result.returncode, result.stderr


def expected(path: Path) -> list[float]:
    answer: list[float] = load(path).instances(1, 1)[0].run((ROW[None],))[0][0].tolist()
    return answer


def document(server: RunningServer) -> dict[str, Any]:
    """What it has written to stdout."""
    wait(lambda: _lines(server, json=True))
    found: dict[str, Any] = json.loads(_lines(server, json=True)[0])
    return found


def panel(server: RunningServer) -> str:
    """What it has written to stderr."""
    return "\n".join(_lines(server, json=False))


def _lines(server: RunningServer, *, json: bool) -> list[str]:
    return [line for line in server.output.splitlines() if line.startswith("{") is json]


def predicted(server: RunningServer, path: str = "/predict", row: np.ndarray = ROW) -> Any:
    return Served("", Path(), server).post(path, row.tolist()).json


def metadata(server: RunningServer, name: str) -> dict[str, Any]:
    found: dict[str, Any] = Served("", Path(), server).get(f"/v2/models/{name}").json
    return found


def test_a_bundle_is_one_model_with_its_name_and_its_settings(tmp_path):
    folder = make(tmp_path / "optimized", settings={"threads": 1, "max_batch_size": 9})
    with run_server(folder, [*QUICK, "--json"]) as server:
        np.testing.assert_allclose(
            predicted(server, "/models/small/predict"), expected(folder / "model-1/small.onnx"), rtol=1e-5
        )
        said = document(server)
        assert "warning" not in panel(server)
    assert said["model"] == "small"
    assert said["bundle"] == "model-1/small.onnx, made of small.pkl on 2026-11-21T15:00:00+00:00"
    assert said["settings"]["max_batch_size"] == {"value": 9, "reason": "as configured (bundle)"}
    assert said["settings"]["threads"] == {"value": 1, "reason": "as configured (bundle)"}
    assert "warnings" not in said


def test_the_example_that_is_shown_is_the_bundle_s(tmp_path):
    folder = make(tmp_path / "optimized", example=json.dumps([0.25, *[1.0] * 63]))
    with run_server(folder, QUICK) as server:
        served = Served("", Path(), server)
        assert served.get("/example").json == [0.25, *[1.0] * 63]
        assert "-d '[0.25,1,1," in panel(server)


def test_the_example_of_a_service_in_a_bundle_is_its_item(tmp_path):
    pandas, joblib = pytest.importorskip("pandas"), pytest.importorskip("joblib")
    from sklearn.compose import make_column_transformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    frame = pandas.DataFrame({"age": [30.0, 40.0, 50.0], "town": ["Gent", "Oslo", "Gent"]})
    encoder = make_column_transformer((OneHotEncoder(), ["town"]), remainder="passthrough")
    fitted = make_pipeline(encoder, LogisticRegression()).fit(frame, [0, 1, 0])
    item = {"age": 41.5, "town": "Oslo"}
    folder = make(
        tmp_path / "optimized", lambda path: joblib.dump(fitted, path), "model-1/town.joblib", example=json.dumps(item)
    )
    with run_server(folder, [*QUICK, "--allow-pickle"]) as server:
        assert Served("", Path(), server).get("/example").json == item
        assert "warning" not in panel(server)


def test_a_flag_wins_over_the_bundle(tmp_path):
    folder = make(tmp_path / "optimized", settings={"max_batch_size": 9})
    with run_server(folder, [*QUICK, "--json", "--name", "mine", "--max-batch-size", "4"]) as server:
        said = document(server)
    assert said["model"] == "mine"
    assert said["settings"]["max_batch_size"] == {"value": 4, "reason": "as configured (flag --max-batch-size)"}


def test_121_another_machine_and_another_file_are_said_once_and_served(tmp_path):
    folder = make(tmp_path / "optimized", settings={"max_batch_size": 9}, versions={"onnxruntime": "1.0"})
    edit(folder, "provenance.machine.cores", 4096)
    models.mlp(folder / "model-1/small.onnx", seed=1)
    with run_server(folder, [*QUICK, "--json"]) as server:
        np.testing.assert_allclose(predicted(server, "/predict"), expected(folder / "model-1/small.onnx"), rtol=1e-5)
        said = document(server)
        shown = panel(server)
    warnings = said["warnings"]
    assert len(warnings) == 4
    assert warnings[0] == "bundle: model-1/small.onnx: not as it was measured: its SHA-256 is another"
    assert warnings[1].startswith("bundle: cores: measured with 4096, here ")
    assert warnings[2].startswith("bundle: onnxruntime: measured with 1.0, here ")
    assert warnings[3] == "bundle: not used, for they were measured with another: max_batch_size 9"
    assert all(shown.count(line) == 1 for line in warnings)
    assert said["settings"]["max_batch_size"]["reason"] != "as configured (bundle)"


def test_a_version_of_a_repository_may_be_a_bundle(tmp_path):
    repository = tmp_path / "models"
    put(repository, "double", 2)
    make(repository / "small" / "1", settings={"max_batch_size": 9})
    with run_server(repository, [*QUICK, "--json", "--repository-poll-s", "0.1"]) as server:
        said = {each["model"]: each for each in document(server)["models"]}
        assert said["small"]["settings"]["max_batch_size"] == {"value": 9, "reason": "as configured (bundle)"}
        assert "bundle" not in said["double"]
        # The next version is a bundle from elsewhere: it serves, and the log says what is different.
        coming = make(tmp_path / "coming", lambda path: models.mlp(path, seed=2))
        edit(coming, "provenance.machine.processor", "Z80")
        shutil.copytree(coming, repository / "small" / ".2")
        os.rename(repository / "small" / ".2", repository / "small" / "2")
        wait(lambda: metadata(server, "small")["versions"] == ["2"])
        assert "'small': bundle: processor: measured with Z80, here " in panel(server)
        np.testing.assert_allclose(
            predicted(server, "/models/small/predict"), expected(coming / "model-1/small.onnx"), rtol=1e-5
        )


def test_103_121_a_hostile_bundle_is_refused_before_the_port_is_open(tmp_path):
    folder = make(tmp_path / "optimized")
    models.mlp(tmp_path / "elsewhere.onnx")
    edit(folder, "model", "../elsewhere.onnx")
    code, said = refuse_to_start(folder)
    assert code == 4
    assert said.startswith(
        f"error: {folder}/bundle.json: '../elsewhere.onnx' is not in the bundle's folder, and is not read\n"
    )


def test_102_a_pickle_in_a_bundle_needs_the_same_permission_as_any_other(tmp_path):
    joblib = pytest.importorskip("joblib", reason="needs the extra sklearn")
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression

    data = load_iris()
    fitted = LogisticRegression(max_iter=500).fit(data.data, data.target)
    folder = make(tmp_path / "optimized", lambda path: joblib.dump(fitted, path), "model-1/iris.joblib")
    code, said = refuse_to_start(folder)
    assert code == 6
    assert "--allow-pickle" in said
    with run_server(folder, [*QUICK, "--allow-pickle", "--json"]) as server:
        answer = predicted(server, row=data.data[0])
        assert answer["label"] == 0
        assert document(server)["bundle"].startswith("model-1/iris.joblib, made of small.pkl")


def test_files_that_no_runtime_reads_say_which_are_read(tmp_path):
    (tmp_path / "model.xyz").write_bytes(b"x")
    code, said = refuse_to_start(tmp_path / "model.xyz")
    assert code == 4
    assert said.startswith(f"error: {tmp_path}/model.xyz: not a format that can be served\n")
    for name in ("ONNX (*.onnx)", "OpenVINO IR (*.xml)", "Keras (*.keras)", "a folder with saved_model.pb", "*.py"):
        assert name in said


# -- OpenVINO -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ir(tmp_path_factory) -> Path:
    ov = pytest.importorskip("openvino", reason="needs the extra openvino")
    folder = tmp_path_factory.mktemp("openvino")
    model = ov.Core().read_model(models.mlp(folder / "mlp.onnx"))
    ov.save_model(model, folder / "mlp.xml", compress_to_fp16=False)
    return folder / "mlp.xml"


def test_openvino_files_are_served_and_found_in_a_repository(ir, tmp_path):
    version = tmp_path / "models" / "digits" / "1"
    version.mkdir(parents=True)
    for suffix in (".xml", ".bin"):
        shutil.copy(ir.with_suffix(suffix), version / f"model{suffix}")
    wanted = expected(ir.with_suffix(".onnx"))
    for target, name in ((ir, "mlp"), (tmp_path / "models", "digits")):
        with run_server(target, QUICK) as server:
            said = metadata(server, name)
            assert said["platform"] == "openvino"
            assert said["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 64]}]
            np.testing.assert_allclose(predicted(server, f"/models/{name}/predict"), wanted, rtol=1e-4, atol=1e-5)


def test_onnx_is_served_by_openvino_when_it_is_asked_for(ir):
    wanted = expected(ir.with_suffix(".onnx"))
    with run_server(ir.with_suffix(".onnx"), [*QUICK, "--runtime", "openvino"]) as server:
        assert metadata(server, "mlp")["platform"] == "openvino"
        answer = predicted(server)
        np.testing.assert_allclose(answer, wanted, rtol=1e-4, atol=1e-5)


def test_a_bundle_says_which_runtime_runs_it(ir, tmp_path):
    options = RuntimeOptions(runtime="openvino", precision="f32")
    folder = make(tmp_path / "optimized", options=options)
    with run_server(folder, QUICK) as server:
        assert metadata(server, "small")["platform"] == "openvino"


def test_only_the_runtime_that_was_chosen_is_imported(tmp_path):
    models.mlp(tmp_path / "m.onnx")
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from paceline.config.resolve import resolve\n"
        "from paceline.engine.loading import read\n"
        f"read(Path({str(tmp_path / 'm.onnx')!r}), resolve({{}}, {{}}, None))\n"
        "print([name for name in ('onnx', 'openvino', 'tensorflow', 'torch', 'sklearn') if name in sys.modules])\n"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert said.stdout == "[]\n"
