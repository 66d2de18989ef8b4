"""`paceline inspect` and `paceline doctor` as a user runs them: real processes, their output, their exit codes."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from support import models
from support.inspected import in_another_process
from support.schemas import problems

pytestmark = pytest.mark.slow


@pytest.fixture
def paceline(tmp_path: Path):
    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("PACELINE_", "OMP_"))}
        return subprocess.run(
            [sys.executable, "-m", "paceline", *arguments],
            cwd=tmp_path,
            env={**clean, **variables},
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run


class Creates:
    """Creates a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self):
        return os.system, (f"touch {self._path}",)


def test_inspect_shows_a_model(paceline, tmp_path):
    models.mlp(tmp_path / "mlp.onnx")
    done = paceline("inspect", "mlp.onnx")
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line.split(maxsplit=1) for line in done.stdout.splitlines()]
    assert ["inputs", "x FP32 [N, 64]"] in lines
    assert ["safety", "safe: nothing in it runs code of its own"] in lines
    assert ["serve", "paceline serve mlp.onnx"] in lines


def test_inspect_writes_one_document(paceline, tmp_path):
    models.mlp(tmp_path / "mlp.onnx")
    document = json.loads(paceline("inspect", "mlp.onnx", "--json").stdout)
    assert (document["document"], document["schema"]) == ("inspection", 1)
    assert document["inputs"] == [{"name": "x", "datatype": "FP32", "shape": ["N", 64]}]
    assert problems("inspect", document) == []
    (tmp_path / "models" / "mlp" / "1").mkdir(parents=True)
    models.mlp(tmp_path / "models" / "mlp" / "1" / "model.onnx")
    (tmp_path / "service.py").write_text("def predict(batch):\n    return batch\n")
    for path in ("models", "service.py"):
        document = json.loads(paceline("inspect", path, "--json").stdout)
        assert problems("inspect", document) == []
        assert document["inputs"] is None


def test_fault_102_inspecting_runs_nothing(paceline, tmp_path):
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(Creates(tmp_path / "created")))
    done = paceline("inspect", "model.pkl")
    assert done.returncode == 0
    assert ".system: runs commands, called while it is loaded" in done.stdout
    assert paceline("inspect", "model.pkl", "--strict").returncode == 6
    assert paceline("inspect", "model.pkl", "--strict", "--json").returncode == 6
    assert not (tmp_path / "created").exists()


def test_names_from_a_file_do_not_write_to_the_terminal(paceline, tmp_path):
    (tmp_path / "model.pkl").write_bytes(b"cevil\x1b]0;mine\x07\nx[bold]\n)R.")
    done = paceline("inspect", "model.pkl")
    assert done.returncode == 0
    assert "\x1b" not in done.stdout
    assert r"evil\x1b]0;mine\x07.x[bold]" in done.stdout


def test_what_cannot_be_read_ends_with_4(paceline, tmp_path):
    (tmp_path / "broken.onnx").write_bytes(b"\xff" * 100)
    for name, said in (("none.onnx", "no such file"), ("broken.onnx", "it is no ONNX file")):
        done = paceline("inspect", name)
        assert done.returncode == 4
        assert (done.stdout, done.stderr.startswith(f"error: {name}: ")) == ("", True)
        assert said in done.stderr
    assert paceline("inspect").returncode == 2


FRAMEWORKS = {
    "keras": """
import keras
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
model.save("m.keras")
model.export("saved", verbose=False)
""",
    "torch": """
import torch
program = torch.export.export(torch.nn.Linear(4, 2), (torch.zeros(2, 4),))
torch.export.save(program, "m.pt2")
""",
}


@pytest.mark.parametrize(
    ("name", "library"),
    [("mlp.onnx", None), ("model.pkl", None), ("m.keras", "keras"), ("saved", "keras"), ("m.pt2", "torch")],
)
def test_inspect_loads_no_framework(tmp_path, name, library):
    models.mlp(tmp_path / "mlp.onnx")
    (tmp_path / "model.pkl").write_bytes(pickle.dumps({"a": 1}))
    if library is not None:
        if find_spec(library) is None:
            pytest.skip(f"{library} is not installed")
        in_another_process(FRAMEWORKS[library], tmp_path)
    code = (
        "import sys, paceline.cli.main as cli\n"
        "try: cli.main(['inspect', sys.argv[1]])\n"
        "except SystemExit as end: print(end.code, file=sys.stderr)\n"
        "loaded = {'onnx', 'onnxruntime', 'sklearn', 'joblib', 'torch', 'tensorflow', 'keras'} & set(sys.modules)\n"
        "print(sorted(loaded), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, name], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.stderr == "0\n[]\n", done.stderr


def test_doctor_examines_this_machine(paceline):
    done = paceline("doctor")
    assert (done.returncode, done.stderr) == (0, "")
    for title in ("Cores", "Processor", "Memory", "Environment", "Software"):
        assert f"\n{title}\n" in f"\n{done.stdout}"
    assert "note" in done.stdout.splitlines()[-1]


def test_doctor_writes_one_document(paceline):
    document = json.loads(paceline("doctor", "--json").stdout)
    assert problems("doctor", document) == []
    assert document["machine"].keys() == {"processor", "architecture", "cores", "cores_why", "memory_bytes"}
    levels = [finding["level"] for group in document["groups"] for finding in group["findings"]]
    assert (document["problems"], document["notes"]) == (levels.count("problem"), levels.count("note"))
    hints = [each["hint"] for group in document["groups"] for each in group["findings"] if each["level"] != "ok"]
    assert all(hints)


def test_doctor_finds_a_variable_that_lies(paceline):
    done = paceline("doctor", "--strict", OMP_NUM_THREADS="4096")
    assert done.returncode == 1
    assert "OMP_NUM_THREADS=4096" in done.stdout
    assert "hint: unset OMP_NUM_THREADS" in done.stdout


def test_doctor_measures_when_it_is_asked_to(paceline):
    document = json.loads(paceline("doctor", "--measure", "--json").stdout)
    measured = {finding["check"]: finding["text"] for finding in document["groups"][-1]["findings"]}
    assert document["groups"][-1]["title"] == "Measured"
    assert "GB/s" in measured["memory bandwidth"]
    assert "GFLOP/s" in measured["f32 products"]
    assert "GOP/s" in measured["int8 products"]
