"""Does PyTorch's runtime take what torch.export and TorchScript write, and answer as the module does?"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'paceline[torch]'")

from paceline.core.errors import ModelFailed, ModelLoadError, RuntimeUnavailable  # noqa: E402
from paceline.core.tensors import DataType, TensorSpec  # noqa: E402
from paceline.runtimes.base import load  # noqa: E402
from paceline.runtimes.options import RuntimeOptions  # noqa: E402
from support import torch_models  # noqa: E402

pytestmark = pytest.mark.slow
PIXELS = torch_models.digits()[0]
EXAMPLE = torch.zeros(2, 64)


def spec(name: str, *shape: int, datatype: DataType = DataType.FP32) -> TensorSpec:
    return TensorSpec(name, datatype, shape)


def answer(module: Any, *arrays: Any) -> Any:
    with torch.inference_mode():
        return module(*[torch.tensor(array) for array in arrays])


class Two(torch.nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x + y, (x * y).sum(1)


class Nested(torch.nn.Module):
    def forward(self, pair: dict[str, torch.Tensor], scale: float = 2.0) -> dict[str, Any]:
        return {"sums": (pair["a"] + pair["b"], pair["a"] * scale), "none": None}


class Writes(torch.nn.Module):
    """It writes into its input."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.add_(1.0)


class Half(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2


@pytest.fixture(scope="module")
def mlp() -> torch_models.Mlp:
    return torch_models.mlp()


def test_an_exported_program_answers_as_its_module(mlp: torch_models.Mlp, tmp_path: Path):
    model = load(torch_models.exported(mlp, EXAMPLE, to=tmp_path / "mlp.pt2"))
    assert model.platform == "pytorch_export"
    assert model.signature.inputs == (spec("pixels", -1, 64),)
    assert model.signature.outputs == (spec("output", -1, 10),)
    assert model.signature.batched
    for rows in (1, 3, 64):
        (got,) = model.instances(1, 1)[0].run((PIXELS[:rows],))
        np.testing.assert_allclose(got, answer(mlp, PIXELS[:rows]).numpy(), rtol=1e-5, atol=1e-6)
        assert got.flags.c_contiguous


@pytest.mark.parametrize("save", [torch_models.exported, torch_models.traced])
def test_outputs_in_a_dict_keep_their_names(save: Callable[..., Path], tmp_path: Path):
    module, images = torch_models.cnn(), PIXELS[:5].reshape(-1, 1, 8, 8)
    model = load(save(module, torch.tensor(images[:2]), to=tmp_path / "cnn.pt2"))
    assert model.signature.inputs == (spec("image", -1, 1, 8, 8),)
    assert set(model.signature.outputs) == {spec("scores", -1, 10), spec("label", -1, datatype=DataType.INT64)}
    names = [each.name for each in model.signature.outputs]
    got = dict(zip(names, model.instances(1, 1)[0].run((images,)), strict=True))
    np.testing.assert_allclose(got["scores"], answer(module, images)["scores"].numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(got["label"], answer(module, images)["label"].numpy())


@pytest.mark.parametrize("ending", ["pt2", "pt"])
def test_outputs_in_a_tuple_are_numbered(ending: str, tmp_path: Path):
    given = torch.ones(2, 3), torch.ones(2, 3)
    path = tmp_path / f"two.{ending}"
    if ending == "pt2":
        torch_models.exported(Two(), *given, to=path)
    else:
        torch_models.traced(Two(), given, path)
    model = load(path)
    assert [each.name for each in model.signature.inputs] == ["x", "y"]
    assert model.signature.outputs == (spec("output_0", -1, 3), spec("output_1", -1))
    x, y = np.arange(6, dtype=np.float32).reshape(2, 3), np.full((2, 3), 2, np.float32)
    first, second = model.instances(1, 1)[0].run((x, y))
    np.testing.assert_array_equal(first, x + y)
    np.testing.assert_array_equal(second, [6, 24])


def test_tensors_in_containers_and_what_is_no_tensor(tmp_path: Path):
    pair = {"a": torch.ones(2, 3), "b": torch.ones(2, 3)}
    shapes = {"pair": {"a": {0: torch_models.ROWS}, "b": {0: torch_models.ROWS}}, "scale": None}
    path = tmp_path / "nested.pt2"
    torch.export.save(torch.export.export(Nested(), (pair, 3.0), dynamic_shapes=shapes), str(path))
    model = load(path)
    assert [each.name for each in model.signature.inputs] == ["pair_a", "pair_b"]
    assert [each.name for each in model.signature.outputs] == ["sums_0", "sums_1"]
    a, b = np.ones((4, 3), np.float32), np.full((4, 3), 5, np.float32)
    sums, scaled = model.instances(1, 1)[0].run((a, b))
    np.testing.assert_array_equal(sums, a + b)
    np.testing.assert_array_equal(scaled, a * 3)


def test_a_size_that_was_exported_stays(mlp: torch_models.Mlp, tmp_path: Path):
    model = load(torch_models.exported(mlp, torch.zeros(4, 64), to=tmp_path / "four.pt2", is_open=False))
    assert model.signature.inputs == (spec("pixels", 4, 64),)
    assert not model.signature.batched
    with pytest.raises(ModelFailed) as failed:
        model.instances(1, 1)[0].run((PIXELS[:5],))
    assert "4" in str(failed.value.detail)


@pytest.mark.parametrize("datatype", [DataType.FP16, DataType.FP64, DataType.BF16, DataType.INT8, DataType.BOOL])
def test_numbers_of_other_types(datatype: DataType, tmp_path: Path):
    types = {"FP16": torch.float16, "FP64": torch.float64, "BF16": torch.bfloat16, "INT8": torch.int8}
    example = torch.ones(2, 3).to(types.get(datatype.label, torch.bool))
    module = Half() if datatype is not DataType.BOOL else torch.nn.Identity()
    model = load(torch_models.exported(module, example, to=tmp_path / "other.pt2"))
    assert model.signature.inputs[0].datatype is datatype
    one = 0x3F80 if datatype is DataType.BF16 else 1
    two = {"BF16": 0x4000, "BOOL": 1}.get(datatype.label, 2)
    (got,) = model.instances(1, 1)[0].run((np.full((1, 3), one, datatype.dtype),))
    assert got.dtype == model.signature.outputs[0].datatype.dtype
    np.testing.assert_array_equal(got, np.full((1, 3), two, got.dtype))


def test_a_model_that_writes_into_its_input_does_not_reach_the_caller(tmp_path: Path):
    model = load(torch_models.exported(Writes(), torch.zeros(2, 3), to=tmp_path / "writes.pt2"))
    given = np.zeros((2, 3), np.float32)
    given.flags.writeable = False
    (got,) = model.instances(1, 1)[0].run((given,))
    np.testing.assert_array_equal(got, np.ones((2, 3)))
    assert not given.any()


def test_each_instance_computes_with_its_own_threads(mlp: torch_models.Mlp, tmp_path: Path):
    model = load(torch_models.exported(mlp, EXAMPLE, to=tmp_path / "mlp.pt2"))
    seen: dict[int, list[int]] = {1: [], 2: []}

    def run(threads: int) -> None:
        instance = model.instances(1, threads)[0]
        for _ in range(3):
            instance.run((PIXELS[:4],))
            seen[threads].append(torch.get_num_threads())

    for each in [threading.Thread(target=run, args=(count,)) for count in seen]:
        each.start()
        each.join()
    run(2)
    run(1)
    assert seen == {1: [1] * 6, 2: [2] * 6}


def test_a_scripted_module_needs_rows_beside_it(mlp: torch_models.Mlp, tmp_path: Path):
    path = torch_models.scripted(mlp, tmp_path / "digits.pt")
    with pytest.raises(ModelLoadError, match="does not tell the types and shapes of its inputs: pixels") as refused:
        load(path)
    assert "digits.examples.npz" in str(refused.value.hint)
    np.savez(tmp_path / "digits.examples.npz", pixels=PIXELS[:3], other=np.zeros(2))
    model = load(path)
    assert model.platform == "pytorch_libtorch"
    assert model.signature.inputs == (spec("pixels", -1, 64),)
    (got,) = model.instances(1, 1)[0].run((PIXELS[:7],))
    np.testing.assert_allclose(got, answer(mlp, PIXELS[:7]).numpy(), rtol=1e-5, atol=1e-6)


def test_examples_that_do_not_fit_are_told(mlp: torch_models.Mlp, tmp_path: Path):
    path = torch_models.scripted(mlp, tmp_path / "digits.pt")
    np.savez(tmp_path / "digits.examples.npz", images=PIXELS[:3])
    with pytest.raises(ModelLoadError, match=r"digits\.examples\.npz: cannot be read as rows"):
        load(path)
    np.savez(tmp_path / "digits.examples.npz", pixels=PIXELS[:3, :9])
    with pytest.raises(ModelLoadError, match="it fails on its example"):
        load(path)


def test_a_trace_that_holds_its_number_of_rows_is_not_open(tmp_path: Path):
    class Fixed(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + torch.arange(2.0).unsqueeze(1)

    model = load(torch_models.traced(Fixed(), torch.zeros(2, 3), tmp_path / "fixed.pt"))
    assert model.signature.inputs == (spec("x", 2, 3),)
    assert not model.signature.batched


def test_an_error_of_the_model_is_its_own(mlp: torch_models.Mlp, tmp_path: Path):
    for path in (
        torch_models.exported(mlp, EXAMPLE, to=tmp_path / "mlp.pt2"),
        torch_models.traced(mlp, EXAMPLE, tmp_path / "mlp.pt"),
    ):
        with pytest.raises(ModelFailed) as failed:
            load(path).instances(1, 1)[0].run((np.zeros((2, 63), np.float32),))
        assert "\n" not in str(failed.value.detail)
        assert "6" in str(failed.value.detail)


def test_a_precision_that_it_cannot_be_told_is_refused(mlp: torch_models.Mlp, tmp_path: Path):
    path = torch_models.exported(mlp, EXAMPLE, to=tmp_path / "mlp.pt2")
    with pytest.raises(RuntimeUnavailable, match="precision bf16"):
        load(path, RuntimeOptions(precision="bf16"))
