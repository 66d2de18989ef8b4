"""Does what PyTorch's exporters write say the same as the program it came from?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'paceline[torch]'")
pytest.importorskip("onnxscript", reason="onnxscript is not installed: pip install 'paceline[torch]'")

from paceline.core.errors import CannotChange, ConfigError, StepFailed, UnsafeModel  # noqa: E402
from paceline.core.tensors import TensorSpec  # noqa: E402
from paceline.optimize.data.rows import Rows  # noqa: E402
from paceline.optimize.formats.torch import convert  # noqa: E402
from paceline.optimize.processes import steps  # noqa: E402
from paceline.optimize.result import Converted  # noqa: E402
from paceline.optimize.studying.source import Steps, export_factory, open_source  # noqa: E402
from paceline.optimize.wanted import Budget  # noqa: E402
from paceline.runtimes.base import load  # noqa: E402
from support import torch_models  # noqa: E402
from support.studies import Silent  # noqa: E402

pytestmark = pytest.mark.slow
PIXELS = torch_models.digits()[0]
FACTORY = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.drop = torch.nn.Dropout()
        self.layer = torch.nn.Linear(64, 10)

    def forward(self, pixels, scale=1.0):
        return self.drop(self.layer(pixels)) * scale

class Sized(Net):
    def forward(self, pixels):
        return self.layer(pixels) + float(pixels.shape[0])

class Two(torch.nn.Module):
    def forward(self, a, b):
        return a + b

class Branches(Net):
    def forward(self, pixels):
        return self.layer(pixels) if pixels.sum().item() > 0 else pixels

def make():
    return Net()

def fails():
    raise OSError("no weights")

def nothing():
    return 3

number = 3
"""
READING = """
import numpy
import torch
from sizes import OUTPUTS

def make():
    torch.manual_seed(0)
    layer = torch.nn.Linear(64, OUTPUTS)
    with torch.no_grad():
        layer.bias.copy_(torch.tensor(numpy.load("weights.npy")))
    return layer
"""


def rows(tmp_path: Path, **arrays: np.ndarray) -> Path:
    path = tmp_path / "rows.npz"
    Rows(arrays).save(path)
    return path


def converted(model: Path, given: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "converted"
    folder.mkdir()
    found = convert(model=model, rows=given, folder=folder, allow_pickle=False)
    assert found.equality.rows_apart == 0, found
    assert found.equality.largest_error < 1e-4
    return folder / found.file


def test_an_exported_cnn_keeps_names_types_and_open_rows(tmp_path: Path):
    images = PIXELS.reshape(-1, 1, 8, 8)
    path = torch_models.exported(torch_models.cnn(), torch.tensor(images[:2]), to=tmp_path / "cnn.pt2")
    onnx = load(converted(path, rows(tmp_path, image=images[:300]), tmp_path))
    native = load(path)
    assert onnx.signature == native.signature
    assert onnx.signature.inputs[0].shape == (-1, 1, 8, 8)
    for count in (1, 2, 65):
        got, wanted = (each.instances(1, 1)[0].run((images[:count],)) for each in (onnx, native))
        for left, right in zip(got, wanted, strict=True):
            np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("is_traced", [True, False])
def test_torchscript_becomes_onnx(is_traced: bool, tmp_path: Path):
    path = tmp_path / "mlp.pt"
    if is_traced:
        torch_models.traced(torch_models.mlp(), torch.zeros(1, 64), path)
    else:
        torch_models.scripted(torch_models.mlp(), path)
        np.savez(tmp_path / "mlp.examples.npz", pixels=PIXELS[:1])
    onnx = load(converted(path, rows(tmp_path, pixels=PIXELS[:300]), tmp_path))
    assert onnx.signature == load(path).signature


def test_weights_lie_in_the_file_itself(tmp_path: Path):
    path = torch_models.exported(torch_models.mlp(), torch.zeros(2, 64), to=tmp_path / "mlp.pt2")
    file = converted(path, rows(tmp_path, pixels=PIXELS[:3]), tmp_path)
    assert [each.name for each in file.parent.iterdir()] == ["model.onnx"]


def test_a_fixed_batch_stays_fixed_and_all_rows_are_compared(tmp_path: Path):
    path = torch_models.exported(torch_models.mlp(), torch.zeros(4, 64), to=tmp_path / "four.pt2", is_open=False)
    found = convert(model=path, rows=rows(tmp_path, pixels=PIXELS[:10]), folder=tmp_path, allow_pickle=False)
    assert (found.equality.rows, found.equality.rows_apart) == (10, 0)
    assert load(tmp_path / found.file).signature.inputs[0].shape == (4, 64)


def test_a_model_exported_while_it_was_trained_is_pointed_out(tmp_path: Path):
    path = torch_models.exported(torch_models.mlp().train(), torch.zeros(2, 64), to=tmp_path / "mlp.pt2")
    found = convert(model=path, rows=rows(tmp_path, pixels=PIXELS[:9]), folder=tmp_path, allow_pickle=False)
    assert "model.eval()" in found.notes[0]


def test_an_output_without_rows_cannot_be_judged(tmp_path: Path):
    class Sum(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.sum()

    path = torch_models.exported(Sum(), torch.zeros(2, 3), to=tmp_path / "sum.pt2")
    with pytest.raises(CannotChange, match="3 rows in"):
        convert(model=path, rows=rows(tmp_path, x=np.zeros((3, 3), np.float32)), folder=tmp_path, allow_pickle=False)


def test_a_pickle_is_not_converted(tmp_path: Path):
    torch.save(torch_models.mlp().state_dict(), tmp_path / "weights.pt")
    with pytest.raises(UnsafeModel):
        convert(model=tmp_path / "weights.pt", rows=rows(tmp_path, x=PIXELS), folder=tmp_path, allow_pickle=True)


def test_it_runs_as_a_step(tmp_path: Path):
    path = torch_models.exported(torch_models.mlp(), torch.zeros(2, 64), to=tmp_path / "mlp.pt2")
    given = rows(tmp_path, pixels=PIXELS[:20])
    arguments = {"model": path, "rows": given, "allow_pickle": False}
    found = steps.run("formats.torch:convert", Converted, arguments, tmp_path / "step", timeout_s=100)
    assert found.equality.rows_apart == 0
    assert (tmp_path / "step" / found.file).is_file()


# -- a factory --------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _beside_the_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def factory(tmp_path: Path, name: str, given: Path, code: str = FACTORY) -> tuple[Path, list[str]]:
    """Run in a process of its own: user code is not imported into this one."""
    (tmp_path / "nets.py").write_text(code)
    run = Steps(tmp_path / "steps", Budget(100.0), Silent())
    return export_factory(open_source(f"nets:{name}", allow_pickle=False), given, run)


def test_a_factory_s_module_is_exported_for_inference_with_open_rows(tmp_path: Path):
    path, notes = factory(tmp_path, "make", rows(tmp_path, anything=PIXELS.astype(np.float64)))
    assert notes == []
    model = load(path)
    assert model.signature.inputs == (TensorSpec("pixels", model.signature.inputs[0].datatype, (-1, 64)),)
    run = model.instances(1, 1)[0].run
    np.testing.assert_array_equal(run((PIXELS[:5],))[0], run((PIXELS[:5],))[0])  # no dropout
    converted(path, rows(tmp_path, pixels=PIXELS[:50]), tmp_path)


def test_what_a_factory_reads_may_change_and_what_does_not_gives_the_same_file(tmp_path: Path):
    given = rows(tmp_path, pixels=PIXELS[:2])
    (tmp_path / "sizes.py").write_text("OUTPUTS = 3\n")
    answers, files = [], []
    for bias in (1.0, 1.0, 2.0):
        np.save(tmp_path / "weights.npy", np.full(3, bias, np.float32))
        path, _ = factory(tmp_path, "make", given, READING)
        files.append(path.read_bytes())
        answers.append(load(path).instances(1, 1)[0].run((PIXELS[:1],))[0])
    assert files[0] == files[1] != files[2]
    np.testing.assert_allclose(answers[2] - answers[0], np.ones((1, 3)), atol=1e-6)
    (tmp_path / "sizes.py").write_text("OUTPUTS = 30\n")
    with pytest.raises(StepFailed, match="30"):
        factory(tmp_path, "make", given, READING)


def test_a_module_that_computes_with_the_number_of_rows_keeps_it(tmp_path: Path):
    path, notes = factory(tmp_path, "Sized", rows(tmp_path, pixels=PIXELS[:4]))
    assert "fixes the batch size at 1" in notes[0]
    assert load(path).signature.inputs[0].shape == (1, 64)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("missing", "has no attribute 'missing'"),
        ("nothing", r"expected a function that returns a torch\.nn\.Module, got int"),
        ("number", "expected a function, got int"),
        ("Two", r"forward takes 'a', 'b'; the rows have 'pixels' FP32 \[64\]"),
    ],
)
def test_what_is_wrong_with_a_factory_is_told(name: str, says: str, tmp_path: Path):
    with pytest.raises(ConfigError, match=says):
        factory(tmp_path, name, rows(tmp_path, pixels=PIXELS[:4]))


def test_a_factory_that_raises_is_told(tmp_path: Path):
    with pytest.raises(StepFailed, match="no weights"):
        factory(tmp_path, "fails", rows(tmp_path, pixels=PIXELS[:4]))


def test_rows_that_forward_fails_on_are_told_beside_what_it_takes(tmp_path: Path):
    with pytest.raises(ConfigError, match="forward fails on the rows") as caught:
        factory(tmp_path, "make", rows(tmp_path, image=PIXELS[:4].reshape(-1, 8, 8, 1)))
    assert "; forward takes 'pixels', 'scale'; the rows have 'image' FP32 [8, 8, 1]" in caught.value.message
    assert "torch.export" not in caught.value.message


def test_what_torch_export_cannot_follow_is_no_failure(tmp_path: Path):
    with pytest.raises(CannotChange, match=r"torch\.export cannot follow the module"):
        factory(tmp_path, "Branches", rows(tmp_path, pixels=PIXELS[:4]))


def test_a_factory_may_lie_in_a_package(tmp_path: Path):
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "two.py").write_text(FACTORY)
    run = Steps(tmp_path / "steps", Budget(100.0), Silent())
    source = open_source("pack.two:make", allow_pickle=False)
    path, _ = export_factory(source, rows(tmp_path, pixels=PIXELS[:4]), run)
    assert load(path).signature.outputs[0].shape == (-1, 10)
