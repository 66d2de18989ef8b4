"""Are PyTorch's files served as they are, optimized, and refused when they are pickles?"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'paceline[torch]'")

from paceline.testing import run_server  # noqa: E402
from support import oip, torch_models  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
PIXELS, LABELS = torch_models.digits()
FACTORY = """
import torch

def make():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(64, 10), torch.nn.Softmax(1))
"""


def answers(path: Path, rows: np.ndarray, name: str = "pixels") -> np.ndarray:
    """What a server of this file says over the Open Inference Protocol, and the same item by item."""
    tensor = {"name": name, "datatype": "FP32", "shape": list(rows.shape), "data": rows.ravel().tolist()}
    flags = ["--warmup-s", "0.05", "--name", "digits"]
    with run_server(path, flags, cwd=path.parent) as server, oip.connect(server.url) as client:
        document, _ = oip.split(oip.infer(client, "digits", {"inputs": [tensor]}))
        alone = client.post("/predict", json=rows[0].tolist()).json()
    (output,) = document["outputs"]
    assert output["name"] == "output"
    got = np.array(output["data"], np.float32).reshape(output["shape"])
    np.testing.assert_allclose(got[0], alone, rtol=1e-4, atol=1e-5)
    return got


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "paceline", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=110, check=False)


@pytest.mark.parametrize("ending", ["pt2", "pt"])
def test_a_program_is_served_as_it_is(ending: str, tmp_path: Path):
    module, path = torch_models.mlp(), tmp_path / f"digits.{ending}"
    if ending == "pt2":
        torch_models.exported(module, torch.zeros(2, 64), to=path)
    else:
        torch_models.traced(module, torch.zeros(2, 64), path)
    with torch.inference_mode():
        wanted = module(torch.tensor(PIXELS[:5])).numpy()
    np.testing.assert_allclose(answers(path, PIXELS[:5]), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("given", ["digits.pt2", "nets:make"])
def test_what_was_optimized_answers_as_the_original(given: str, tmp_path: Path):
    pytest.importorskip("onnxscript", reason="onnxscript is not installed: pip install 'paceline[torch]'")
    if given == "nets:make":
        (tmp_path / "nets.py").write_text(FACTORY)
        torch.manual_seed(0)
        module = torch.nn.Sequential(torch.nn.Linear(64, 10), torch.nn.Softmax(1))
        name = "input"
    else:
        module, name = torch_models.mlp(), "pixels"
        torch_models.exported(module, torch.zeros(2, 64), to=tmp_path / given)
    np.savez(tmp_path / "rows.npz", **{name: PIXELS[:600]})
    np.save(tmp_path / "labels.npy", LABELS[:600])
    rows = ["--data", "rows.npz", "--labels", "labels.npy"]
    little = ["--candidates", "onnx", "--budget", "90s", "--batches", "1"]
    done = run("optimize", given, *rows, *little, "--out", "out", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    study = json.loads(done.stdout)
    tried = {each["candidate"]["name"]: each for each in study["candidates"]}
    assert tried["original"]["status"] == "baseline"
    assert tried["onnx"]["judgement"]["accepted"], tried["onnx"]
    assert study["equality"]["rows_apart"] == 0
    with torch.inference_mode():
        wanted = module.eval()(torch.tensor(PIXELS[:3])).numpy()
    np.testing.assert_allclose(answers(tmp_path / "out", PIXELS[:3], name), wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("flags", [(), ("--allow-pickle",)])
def test_a_pickled_module_ends_the_start_with_its_own_code(flags: tuple[str, ...], tmp_path: Path):
    torch.save(torch.nn.Linear(2, 1), tmp_path / "module.pt")
    done = run("serve", "module.pt", "--port", "0", *flags, cwd=tmp_path)
    assert done.returncode == 6, done.stderr
    assert "a pickle of torch.save" in done.stderr
    assert "hint: export the model: torch.export.save" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_pytorch_the_extra_is_named(tmp_path: Path):
    path = torch_models.exported(torch.nn.ReLU(), torch.zeros(2, 3), to=tmp_path / "relu.pt2")
    program = (
        "import sys; sys.modules['torch'] = None\n"
        f"sys.argv = ['paceline', 'serve', {str(path)!r}, '--port', '0']\n"
        "from paceline.cli.main import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path
    )
    assert done.returncode == 4, done.stderr
    assert "PyTorch cannot be imported" in done.stderr
    assert "pip install 'paceline[torch]'" in done.stderr
