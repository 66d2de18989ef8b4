"""TensorFlow Serving's own client, with TensorFlow in an environment of its own, against a real server process."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from paceline.testing import run_server
from support import models
from support.repositories import put, times

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-tfs" / "bin" / "python"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON.exists(), reason="no .venv-tfs with tensorflow-serving-api: run `make tfs-client`"),
]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the client got from a repository of two models, and of two others after it has replaced them."""
    root = tmp_path_factory.mktemp("tfs")
    put(root, "half", 3, build=models.half_plus_two)
    put(root, "flowers", 1, build=models.flowers)
    put(root, "twice", 1, build=lambda path: times(path, 2))
    flags = ["--model-control-mode", "explicit", "--load-model", "half,flowers", "--warmup-s", "0.05"]
    with run_server(root, flags) as server:
        script = ROOT / "tests" / "clients" / "tfs_stubs.py"
        command = [str(PYTHON), str(script), f"{server.host}:{server.port}", str(root)]
        # Neither this process's paths nor TensorFlow's own remarks belong there.
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": ""}
        result = subprocess.run(command, capture_output=True, text=True, timeout=100, env=environment, check=False)
    assert result.returncode == 0, result.stderr
    document: dict[str, Any] = json.loads(result.stdout)
    return document


def test_tensors_come_and_go_in_the_forms_that_tensorflow_makes(found: dict[str, Any]):
    assert found["typed"] == {"float_val": [2.5], "ndarray": [2.5], "spec": ["half", 3, "serving_default"]}
    assert found["content_was_raw"]
    assert found["content"]["float_val"] == [2.5, 3.0, 4.5]


def test_refusals_are_the_reference_servers(found: dict[str, Any]):
    assert found["unknown"] == ["NOT_FOUND", "Servable not found for request: Latest(nothing)"]
    assert found["signature"] == ["FAILED_PRECONDITION", 'Serving signature key "other" not found.']


def test_models_describe_themselves(found: dict[str, Any]):
    assert found["metadata"] == ["float32", [-1], ["y"], "tensorflow/serving/predict"]
    assert found["status"] == [[3, "AVAILABLE"]]


def test_examples_are_classified_and_regressed(found: dict[str, Any]):
    assert max(found["classes"], key=found["classes"].__getitem__) == "setosa"
    assert sum(found["classes"].values()) == pytest.approx(1.0)
    assert found["regressed"] == [2.5, 4.5]


def test_a_reload_replaces_the_models(found: dict[str, Any]):
    assert found["reloaded"] == 0
    assert found["gone"] == ["NOT_FOUND", "Could not find any versions of model flowers"]
    assert found["labelled"] == {"float_val": [4.0], "ndarray": [[4.0]], "spec": ["twice", 1, "serving_default"]}
