"""Real ONNX models through the runtime and the warm-up: what kind of model is it, and does it answer as it should?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto as T

from paceline.core.errors import InvalidRequest, ModelFailed, ModelLoadError, RuntimeUnavailable
from paceline.core.tensors import DataType
from paceline.engine.warmup import Prepared, Wishes, prepare
from paceline.runtimes.base import load
from support import models

QUICK = Wishes(budget_s=0.02)
ELEMENTS = {
    DataType.BOOL: T.BOOL,
    DataType.UINT8: T.UINT8,
    DataType.UINT16: T.UINT16,
    DataType.UINT32: T.UINT32,
    DataType.UINT64: T.UINT64,
    DataType.INT8: T.INT8,
    DataType.INT16: T.INT16,
    DataType.INT32: T.INT32,
    DataType.INT64: T.INT64,
    DataType.FP16: T.FLOAT16,
    DataType.FP32: T.FLOAT,
    DataType.FP64: T.DOUBLE,
    DataType.BF16: T.BFLOAT16,
    DataType.BYTES: T.STRING,
}


def extremes(datatype: DataType) -> np.ndarray:
    """Four rows of the values that a wrong conversion would change."""
    dtype = datatype.dtype
    if datatype is DataType.BYTES:
        values = ["", "plain", "na\u00efve \U0001f6b2", "a\nb"]
    elif datatype is DataType.BOOL:
        values = [True, False, False, True]
    elif datatype is DataType.BF16:
        values = [0x0000, 0x3F80, 0xC2F7, 0x7F7F]
    elif datatype.is_integer:
        values = [np.iinfo(dtype).min, 0, 1, np.iinfo(dtype).max]
    else:
        values = [np.finfo(dtype).min, 0.1, np.finfo(dtype).tiny, np.finfo(dtype).max]
    return np.array(values, dtype).reshape(4, 1)


def prepared(path: Path, wishes: Wishes = QUICK) -> Prepared:
    return prepare(load(path), 1, wishes)


@pytest.mark.parametrize("datatype", DataType, ids=lambda datatype: datatype.label)
def test_every_datatype_goes_in_and_comes_out_unchanged(tmp_path: Path, datatype: DataType) -> None:
    ready = prepared(models.identity(tmp_path / "m.onnx", ELEMENTS[datatype], ("N", 1)))
    assert ready.signature.inputs[0].datatype is ready.signature.outputs[0].datatype is datatype
    assert ready.signature.batched
    given = extremes(datatype)
    (output,) = ready.instances[0].run((given,))
    assert output.dtype == datatype.dtype
    assert output.tolist() == given.tolist()


def test_bytes_elements_may_come_as_bytes(tmp_path: Path) -> None:
    ready = prepared(models.identity(tmp_path / "m.onnx", T.STRING, ("N", 1)))
    given = np.array([["caf\u00e9".encode()], ["text"]], object)
    assert ready.instances[0].run((given,))[0].tolist() == [["caf\u00e9"], ["text"]]
    with pytest.raises(InvalidRequest, match="not valid UTF-8"):
        ready.instances[0].run((np.array([[b"\xff"]], object),))


def test_several_inputs_and_outputs_keep_the_order_of_the_file(tmp_path: Path) -> None:
    ready = prepared(models.two_in_two_out(tmp_path / "m.onnx"))
    assert [spec.name for spec in ready.signature.inputs] == ["a", "b"]
    assert [spec.name for spec in ready.signature.outputs] == ["sum", "doubled"]
    a, b = np.array([[0.5, 1.5]], np.float32), np.array([[1, 2]], np.int64)
    added, doubled = ready.instances[0].run((a, b))
    assert added.tolist() == [[1.5, 3.5]]
    assert doubled.tolist() == [[2, 4]]


def test_fixed_and_open_dimensions_are_told_apart(tmp_path: Path) -> None:
    ready = prepared(models.identity(tmp_path / "m.onnx", T.FLOAT, ("N", 3, "W", 2)))
    assert ready.signature.inputs[0].shape == (-1, 3, -1, 2)
    assert ready.signature.batched
    assert ready.example[0].shape[:2] == (1, 3)


def test_a_batch_dimension_fixed_at_1_takes_any_number_of_rows_one_by_one(tmp_path: Path) -> None:
    ready = prepared(models.identity(tmp_path / "m.onnx", T.FLOAT, (1, 3)))
    assert ready.signature.batched
    assert ready.max_batch_rows == 1
    assert ready.signature.inputs[0].shape == ready.signature.outputs[0].shape == (-1, 3)
    assert ready.reasons["batching"] == "one row at a time: the batch dimension is fixed at 1"


def test_another_fixed_batch_dimension_is_served_as_it_is(tmp_path: Path) -> None:
    ready = prepared(models.identity(tmp_path / "m.onnx", T.FLOAT, (8, 3)))
    assert not ready.signature.batched
    assert ready.signature.inputs[0].shape == (8, 3)
    assert ready.reasons["batching"] == "off: the batch dimension is fixed at 8"


def test_a_model_without_batch_dimension_is_served_unbatched_and_it_is_said_so(tmp_path: Path) -> None:
    ready = prepared(models.total(tmp_path / "m.onnx"), Wishes(max_batch_rows=8, budget_s=0.02))
    assert not ready.signature.batched
    assert ready.max_batch_rows == 1
    assert ready.reasons["batching"] == "off: the model has no batch dimension"
    assert ready.instances[0].run((np.ones(4, np.float32),))[0] == 4.0


@pytest.mark.parametrize("build", [models.softmax_over_rows, models.centred])
def test_rows_that_influence_one_another_are_not_batched(tmp_path: Path, build) -> None:
    ready = prepared(build(tmp_path / "m.onnx"))
    assert not ready.signature.batched
    assert ready.max_batch_rows == 1
    assert ready.reasons["batching"] == "off: rows influence one another in output 'y'"


def test_rows_of_integers_that_influence_one_another_are_noticed_too(tmp_path: Path) -> None:
    ready = prepared(models.centred(tmp_path / "m.onnx", T.INT64))
    assert ready.reasons["batching"] == "off: rows influence one another in output 'y'"


def test_equal_example_rows_do_not_hide_that_rows_influence_one_another(tmp_path: Path) -> None:
    loaded = load(models.centred(tmp_path / "m.onnx"))
    ready = prepare(loaded, 1, QUICK, (np.ones((1, 3), np.float32),))
    assert ready.reasons["batching"] == "off: rows influence one another in output 'y'"


def test_independent_rows_are_batched_and_it_is_said_so(tmp_path: Path) -> None:
    ready = prepared(models.mlp(tmp_path / "m.onnx"))
    assert ready.signature.batched
    assert ready.reasons["batching"] == "on: rows together and apart give the same answers"
    assert [rows for rows, _ in ready.profile] == sorted({rows for rows, _ in ready.profile})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("build", "labels", "width"),
    [
        (models.flowers, ("setosa", "versicolor", "virginica"), 4),
        (models.digits_of_three, ("2", "7", "10"), 2),
    ],
)
def test_maps_of_classical_models_become_labelled_columns(tmp_path: Path, build, labels, width) -> None:
    ready = prepared(build(tmp_path / "m.onnx"))
    label, scores = ready.signature.outputs
    assert scores.labels == labels
    assert scores.shape == (-1, 3)
    assert scores.datatype is DataType.FP32
    assert ready.signature.batched
    given = np.random.default_rng(0).standard_normal((5, width)).astype(np.float32)
    classes, columns = ready.instances[0].run((given,))
    assert columns.shape == (5, 3)
    assert columns.sum(axis=1) == pytest.approx(1.0, abs=1e-5)
    assert [labels[index] for index in columns.argmax(axis=1)] == [str(name) for name in classes]
    assert label.labels == ()


def test_a_sequence_of_equal_tensors_becomes_one_tensor(tmp_path: Path) -> None:
    ready = prepared(models.row_sequence(tmp_path / "m.onnx"))
    assert ready.signature.batched
    assert len(ready.signature.outputs[0].shape) == 2
    given = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert ready.instances[0].run((given,))[0].tolist() == given.tolist()


def test_a_sequence_of_different_tensors_is_a_bad_output(tmp_path: Path) -> None:
    instance = load(models.ragged_sequence(tmp_path / "m.onnx")).instances(1, 1)[0]
    with pytest.raises(ModelFailed) as caught:
        instance.run((np.ones((2, 3), np.float32),))
    assert caught.value.code == "bad_model_output"


def test_inputs_that_no_protocol_can_carry_are_refused_at_load(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"'x' has type map\(.*cannot be served"):
        load(models.takes_a_map(tmp_path / "m.onnx"))


def test_the_words_of_the_model_are_kept_as_detail(tmp_path: Path) -> None:
    instance = load(models.gather(tmp_path / "m.onnx")).instances(1, 1)[0]
    with pytest.raises(ModelFailed) as caught:
        instance.run((np.array([99], np.int64),))
    assert caught.value.code == "model_failed"
    assert "indices" in (caught.value.detail or "")
    assert "\n" not in (caught.value.detail or "")


# -- fault 1, 2: files that cannot be served ------------------------------------------------------------------


def test_1_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError) as caught:
        load(tmp_path / "none.onnx")
    assert str(caught.value) == f"{tmp_path}/none.onnx: no such model file"


@pytest.mark.parametrize("kept", ["nothing", "junk", "half", "folder"])
def test_2_a_file_that_is_no_model_is_one_line(tmp_path: Path, kept: str) -> None:
    path = models.mlp(tmp_path / "m.onnx")
    whole = path.read_bytes()
    if kept == "folder":
        path.unlink()
        path.mkdir()
    else:
        path.write_bytes({"nothing": b"", "junk": b"no model at all", "half": whole[: len(whole) // 2]}[kept])
    with pytest.raises(ModelLoadError) as caught:
        load(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert message.count(str(path)) == 1
    assert "\n" not in message


def test_files_of_another_kind_say_what_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"weights")
    with pytest.raises(RuntimeUnavailable) as caught:
        load(tmp_path / "model.bin")
    assert "ONNX (*.onnx)" in (caught.value.hint or "")
    assert "LightGBM (*.txt, *.lgb)" in (caught.value.hint or "")


def test_a_wrong_request_writes_nothing_to_stderr(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    instance = load(models.gather(tmp_path / "m.onnx")).instances(1, 1)[0]
    with pytest.raises(ModelFailed):
        instance.run((np.array([99], np.int64),))
    assert capfd.readouterr() == ("", "")
