"""Keras models and SavedModels, behind a real server: as they are, and converted."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from paceline.optimize.data.rows import Rows
from paceline.optimize.processes import steps
from paceline.optimize.result import Converted
from paceline.testing import run_server
from support import keras_models

pytest.importorskip("tensorflow.python", reason=keras_models.EXTRA)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return keras_models.make(tmp_path_factory.mktemp("keras"))


@pytest.fixture(scope="module")
def predicted(folder: Path) -> np.ndarray:
    """What `model.predict` said of the images."""
    scores: np.ndarray = np.load(folder / "cnn.npy")
    return scores


@pytest.fixture(scope="module")
def onnx(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network, converted in a process of its own as a study does it."""
    made, rows = tmp_path_factory.mktemp("onnx"), folder / "rows.npz"
    Rows(keras_models.inputs("cnn")).save(rows)
    arguments = {"model": folder / "cnn.keras", "rows": rows, "allow_pickle": False}
    converted = steps.run("formats.keras:convert", Converted, arguments, made, timeout_s=100)
    assert converted.equality.rows_apart == 0
    return made / converted.file


@pytest.fixture(scope="module", params=["cnn.keras", "cnn", "repository", "onnx"])
def client(request: pytest.FixtureRequest, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator:
    """A client of a server of the network, in each of its forms."""
    model = folder / request.param
    flags = ["--warmup-s", "0.05", "--name", "cnn"]
    if request.param == "onnx":
        model = request.getfixturevalue("onnx")
    if request.param == "repository":
        # As TensorFlow Serving has it: a folder of models, with versions.
        model, flags = tmp_path_factory.mktemp("models"), flags[:2]
        shutil.copytree(folder / "cnn", model / "cnn" / "7")
    with run_server(model, flags) as server, httpx.Client(base_url=f"http://{server.host}:{server.port}") as asking:
        yield asking


def images() -> np.ndarray:
    return keras_models.inputs("cnn")["image"]


def test_plain_json(client: httpx.Client, predicted: np.ndarray) -> None:
    answer = client.post("/predict", json=images()[0].tolist())
    assert answer.status_code == 200, answer.text
    np.testing.assert_allclose(answer.json(), predicted[0], atol=1e-5)


def test_open_inference_protocol(client: httpx.Client, predicted: np.ndarray) -> None:
    about = client.get("/v2/models/cnn").json()
    assert about["inputs"] == [{"name": "image", "datatype": "FP32", "shape": [-1, 8, 8, 1]}]
    assert about["outputs"] == [{"name": "output_0", "datatype": "FP32", "shape": [-1, 10]}]
    tensor = {"name": "image", "datatype": "FP32", "shape": list(images().shape), "data": images().ravel().tolist()}
    (output,) = client.post("/v2/models/cnn/infer", json={"inputs": [tensor]}).json()["outputs"]
    np.testing.assert_allclose(np.reshape(output["data"], output["shape"]), predicted, atol=1e-5)


def test_tensorflow_serving(client: httpx.Client, predicted: np.ndarray) -> None:
    answer = client.post("/v1/models/cnn:predict", json={"instances": images().tolist()}).json()
    np.testing.assert_allclose(answer["predictions"], predicted, atol=1e-5)


# -- what does not start ----------------------------------------------------------------------------------------


def refused(*command: object) -> tuple[int, str]:
    """Exit code and stderr of a server that must not start."""
    env = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}  # tf2onnx sets it
    done = subprocess.run(
        [sys.executable, *map(str, command)], capture_output=True, text=True, timeout=60, check=False, env=env
    )
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        ("lambda.keras", 6, "holds a Lambda layer"),
        ("read", 6, "when it runs, ReadFile reads files"),
        ("old.h5", 4, "HDF5, the format of old Keras, is not read"),
        ("cut.keras", 4, "cannot be read: File is not a zip file"),
    ],
)
def test_fault_102_a_model_that_is_not_opened_ends_the_start(folder: Path, name: str, code: int, said: str) -> None:
    if name == "cut.keras":
        (folder / name).write_bytes((folder / "cnn.keras").read_bytes()[:3000])
    found, stderr = refused("-m", "paceline", "serve", folder / name, "--port", "0")
    assert found == code
    assert stderr.startswith(f"error: {folder / name}: ")
    assert said in stderr
    assert len(stderr.splitlines()) == 2  # nothing of TensorFlow's
    assert "\nhint: " in stderr


@pytest.mark.parametrize("name", ["cnn.keras", "cnn"])
def test_without_tensorflow_the_extra_is_named(folder: Path, name: str) -> None:
    start = "import sys; sys.modules['tensorflow'] = None; from paceline.cli.main import main; main()"
    found, stderr = refused("-c", start, "serve", folder / name, "--port", "0")
    assert found == 4
    assert stderr.startswith("error: TensorFlow cannot be imported: ")
    assert stderr.endswith("hint: pip install 'paceline[tensorflow]'\n")
