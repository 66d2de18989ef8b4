"""OpenVINO as a runtime: its answers, its signature, its instances side by side, and what it refuses."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto as T
from onnx import helper

from paceline.core.errors import ModelFailed, ModelLoadError
from paceline.core.tensors import DataType
from paceline.runtimes.base import LoadedModel
from paceline.runtimes.base import load as load_model
from paceline.runtimes.options import Precision, RuntimeOptions
from support import models

pytest.importorskip("openvino", reason="needs the extra openvino")
pytestmark = pytest.mark.slow  # OpenVINO alone takes a second to import

SIZES = (64, 128, 10)


def load(path: Path, precision: Precision | None = None) -> LoadedModel:
    return load_model(path, RuntimeOptions(runtime="openvino", precision=precision))


def rows(count: int, width: int = 64) -> np.ndarray[Any, Any]:
    return np.random.default_rng(count).standard_normal((count, width)).astype(np.float32)


@pytest.fixture(scope="module")
def mlp(tmp_path_factory) -> Path:
    return models.mlp(tmp_path_factory.mktemp("models") / "mlp.onnx", SIZES)


@pytest.fixture(scope="module")
def ir(mlp) -> Path:
    """The same as OpenVINO's own files."""
    import openvino as ov

    path = mlp.with_suffix(".xml")
    ov.save_model(ov.Core().read_model(mlp), path, compress_to_fp16=False)
    return path


def test_answers_and_signature_are_those_of_onnx_runtime(mlp):
    reference, loaded = load_model(mlp), load(mlp)
    assert loaded.platform == "openvino"
    assert loaded.signature == reference.signature
    for count in (1, 5, 1, 64):
        wanted = reference.instances(1, 1)[0].run((rows(count),))
        got = loaded.instances(1, 1)[0].run((rows(count),))
        np.testing.assert_allclose(got[0], wanted[0], rtol=1e-5, atol=1e-6)


def test_its_own_files_need_no_option(mlp, ir):
    wanted = load_model(mlp).instances(1, 1)[0].run((rows(3),))[0]
    got = load_model(ir).instances(1, 1)[0].run((rows(3),))[0]
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("build", [models.two_in_two_out, models.digits, models.gather])
def test_several_inputs_and_other_types(tmp_path, build: Callable[[Path], Path]):
    path = build(tmp_path / "m.onnx")
    if build is models.digits:
        with pytest.raises(ModelLoadError, match="cannot be loaded"):  # classical models are not OpenVINO's
            load(path)
        return
    reference, loaded = load_model(path), load(path)
    assert loaded.signature == reference.signature
    inputs = tuple(
        np.arange(2 * (spec.shape[1] if len(spec.shape) > 1 else 1))
        .reshape(2, *spec.shape[1:])
        .astype(spec.datatype.dtype)
        for spec in reference.signature.inputs
    )
    wanted = reference.instances(1, 1)[0].run(inputs)
    got = loaded.instances(1, 1)[0].run(inputs)
    for one, other in zip(got, wanted, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


def test_answers_stay_when_the_next_batch_runs_and_inputs_are_left_alone(mlp):
    instance = load(mlp).instances(1, 1)[0]
    first, second = rows(2), rows(2) + 1
    kept = first.copy()
    answer = instance.run((first,))[0]
    before = answer.copy()
    instance.run((second,))
    np.testing.assert_array_equal(answer, before)
    np.testing.assert_array_equal(first, kept)


def test_large_and_small_batches_by_turns(mlp):
    """Small inputs are copied and large ones are not: neither may see the other's numbers."""
    instance, alone = load(mlp).instances(1, 1)[0], load_model(mlp).instances(1, 1)[0]
    large = rows(1024)
    frozen = rows(1024)
    frozen.flags.writeable = False
    for given in (rows(1), large, rows(1), rows(4), frozen, rows(1024) * 2, rows(4)):
        np.testing.assert_allclose(instance.run((given,))[0], alone.run((given,))[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(large, rows(1024))


def test_instances_run_side_by_side(mlp):
    loaded = load(mlp)
    instances = loaded.instances(3, 1)
    wanted = load_model(mlp).instances(1, 1)[0]
    with ThreadPoolExecutor(3) as threads:
        for _ in range(20):
            batches = [rows(count) for count in (1, 7, 33)]
            answers = list(threads.map(lambda pair: pair[0].run((pair[1],))[0], zip(instances, batches, strict=True)))
            for batch, answer in zip(batches, answers, strict=True):
                np.testing.assert_allclose(answer, wanted.run((batch,))[0], rtol=1e-5, atol=1e-6)


def test_a_precision_is_what_was_asked_for(mlp):
    exact = load_model(mlp).instances(1, 1)[0].run((rows(64),))[0]
    assert np.abs(load(mlp).instances(1, 1)[0].run((rows(64),))[0] - exact).max() < 1e-5
    half = load(mlp, "bf16").instances(1, 1)[0].run((rows(64),))[0]
    assert half.dtype == np.float32
    assert np.abs(half - exact).max() < 0.1


def test_a_model_that_raises_is_one_line_and_goes_on(mlp):
    instance = load(mlp).instances(1, 1)[0]
    with pytest.raises(ModelFailed) as caught:
        instance.run((rows(2, 5),))
    assert "incompatible" in (caught.value.detail or "")
    assert "\n" not in (caught.value.detail or "")
    assert instance.run((rows(2),))[0].shape == (2, 10)


def test_text_is_refused_by_name(tmp_path):
    path = models.identity(tmp_path / "m.onnx", T.STRING, ("N",))
    with pytest.raises(ModelLoadError) as caught:
        load(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("kept", ["nothing", "junk", "half"])
def test_2_a_file_that_is_no_model_is_one_line(ir, tmp_path, kept):
    whole = ir.read_bytes()
    path = tmp_path / "m.xml"
    path.write_bytes({"nothing": b"<net", "junk": b"<net>junk", "half": whole[: len(whole) // 2]}[kept])
    path.with_suffix(".bin").write_bytes(ir.with_suffix(".bin").read_bytes())
    with pytest.raises(ModelLoadError) as caught:
        load_model(path)
    assert str(caught.value).startswith(f"{path}: cannot be loaded: ")
    assert "\n" not in str(caught.value)


def test_103_weights_that_are_missing_or_lie_elsewhere_are_refused(ir, tmp_path):
    path = tmp_path / "model" / "m.xml"
    path.parent.mkdir()
    path.write_bytes(ir.read_bytes())
    with pytest.raises(ModelLoadError, match=r"its weights, m\.bin, are not beside it"):
        load_model(path)
    (tmp_path / "elsewhere.bin").write_bytes(ir.with_suffix(".bin").read_bytes())
    path.with_suffix(".bin").symlink_to(tmp_path / "elsewhere.bin")
    with pytest.raises(ModelLoadError, match="are not in the model's folder"):
        load_model(path)


def test_104_an_onnx_file_is_checked_before_openvino_sees_it(tmp_path):
    path = models.mlp(tmp_path / "m.onnx")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelLoadError, match="no ONNX file, or a part of one"):
        load(path)


def test_a_batch_of_one_that_the_file_fixes(tmp_path):
    node = helper.make_node("Relu", ["x"], ["y"])
    path = models.save(tmp_path / "m.onnx", [node], [("x", T.FLOAT, [1, 3])], [("y", T.FLOAT, [1, 3])])
    signature = load(path).signature
    assert signature.batched
    assert signature.inputs[0].shape == (1, 3)
    assert signature.inputs[0].datatype is DataType.FP32


def test_nothing_is_reported_to_anybody():
    code = "import sys, paceline.runtimes.openvino; print('openvino_telemetry' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert said.stdout == "False\n"
