"""Real Keras models and SavedModels through the runtime, and through the conversion to ONNX."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from paceline.core.errors import CannotChange, ModelFailed, ModelLoadError, UnsafeModel
from paceline.core.tensors import DataType, Tensors
from paceline.optimize.data.rows import Rows
from paceline.optimize.formats import keras as keras_format
from paceline.optimize.formats import savedmodel
from paceline.optimize.result import Converted
from paceline.runtimes.base import load
from paceline.runtimes.options import RuntimeOptions
from paceline.runtimes.tensorflow import TensorFlowModel
from support import keras_models

pytest.importorskip("tensorflow.python", reason=keras_models.EXTRA)

pytestmark = pytest.mark.slow

CONVERTIBLE = ("cnn", "two", "lstm", "gru", "tokens", "words", "attention", "twice")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return keras_models.make(tmp_path_factory.mktemp("keras"))


def as_tensors(name: str) -> Tensors:
    arrays = keras_models.inputs(name).values()
    return tuple(array.astype(object) if array.dtype.kind == "U" else array for array in arrays)


def converted(model: Path, rows: Rows, folder: Path) -> Converted:
    rows.save(folder / "rows.npz")
    convert = keras_format.convert if model.suffix == ".keras" else savedmodel.convert
    return convert(model=model, rows=folder / "rows.npz", folder=folder, allow_pickle=False)


# -- the signature ----------------------------------------------------------------------------------------------


def test_inputs_keep_the_order_that_keras_has(folder: Path) -> None:
    signature = load(folder / "two.keras").signature
    assert [(spec.name, spec.datatype, spec.shape) for spec in signature.inputs] == [
        ("zeta", DataType.FP32, (-1, 4)),
        ("alpha", DataType.INT32, (-1, 3)),
    ]
    assert [(spec.name, spec.shape) for spec in signature.outputs] == [("output_0", (-1, 2)), ("output_1", (-1, 3))]
    assert signature.batched


def test_open_dimensions_stay_open(folder: Path) -> None:
    assert load(folder / "tokens.keras").signature.inputs[0].shape == (-1, -1)


def test_a_keras_file_and_its_saved_model_answer_alike(folder: Path) -> None:
    file, exported = load(folder / "cnn.keras"), load(folder / "cnn")
    assert file.signature == exported.signature
    assert file.platform == exported.platform == "tensorflow_savedmodel"
    images = as_tensors("cnn")
    for model in (file, exported):
        (scores,) = model.instances(1, 1)[0].run(images)
        np.testing.assert_allclose(scores, np.load(folder / "cnn.npy"), atol=1e-5)


# -- running ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("branches", [1, 2])
def test_instances_with_any_threads_give_the_same_answers_side_by_side(
    folder: Path, threads: int, branches: int
) -> None:
    images = as_tensors("cnn")
    (expected,) = load(folder / "cnn").instances(1, 1)[0].run(images)
    model = TensorFlowModel(folder / "cnn", RuntimeOptions(inter_op_threads=branches))
    with ThreadPoolExecutor(4) as pool:
        runs = [pool.submit(instance.run, images) for instance in model.instances(2, threads) for _ in range(10)]
        for each in runs:
            np.testing.assert_allclose(each.result(timeout=30)[0], expected, atol=1e-5)


def test_rows_of_any_number_run_in_one_session(folder: Path) -> None:
    instance = load(folder / "cnn").instances(1, 1)[0]
    (image,) = as_tensors("cnn")
    (all_at_once,) = instance.run((image,))
    for rows in (0, 1, 7):
        (scores,) = instance.run((image[:rows],))
        assert scores.shape == (rows, 10)
        np.testing.assert_allclose(scores, all_at_once[:rows], atol=1e-5)


def test_text_goes_in_as_str_or_bytes_and_comes_out_as_bytes(folder: Path) -> None:
    model = load(folder / "upper")
    assert [spec.name for spec in model.signature.outputs] == ["length", "upper"]
    given = np.array(["abc", "d\u00e9".encode()], object)
    length, upper = model.instances(1, 1)[0].run((given,))
    assert (length.tolist(), upper.tolist()) == ([3, 3], [b"ABC", "D\u00e9".encode()])


def test_bfloat16_goes_in_and_out_as_bit_patterns(folder: Path) -> None:
    model = load(folder / "half")
    assert model.signature.inputs[0].datatype is DataType.BF16
    (doubled,) = model.instances(1, 1)[0].run((np.array([[0x3F80, 0x4000]], np.uint16),))  # 1 and 2
    assert doubled.dtype == np.uint16
    assert doubled.tolist() == [[0x4000, 0x4080]]


def test_what_the_model_does_not_take_is_its_failure_in_one_line(folder: Path) -> None:
    instance = load(folder / "two.keras").instances(1, 1)[0]
    zeta, alpha = as_tensors("two")
    with pytest.raises(ModelFailed, match="the model raised an error") as raised:
        instance.run((zeta, alpha[:1]))
    assert raised.value.detail
    assert "\n" not in raised.value.detail
    assert instance.run((zeta, alpha))[0].shape == (keras_models.ROWS, 2)


# -- what cannot be served --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "error", "said"),
    [
        ("lambda.keras", UnsafeModel, "holds a Lambda layer"),
        ("own_layer.keras", UnsafeModel, "needs a class of your own: Doubled"),
        ("own_activation.keras", UnsafeModel, "needs code of your own: function 'doubled'"),
        ("read", UnsafeModel, "when it runs, ReadFile reads files"),
        ("unsigned", ModelLoadError, "has no signature 'serving_default'"),
        ("any_rank", ModelLoadError, "'x' has any number of dimensions"),
    ],
)
def test_a_model_that_is_not_opened_says_why(folder: Path, name: str, error: type[ModelLoadError], said: str) -> None:
    with pytest.raises(ModelLoadError, match=said) as raised:
        load(folder / name)
    assert type(raised.value) is error
    assert str(raised.value).startswith(str(folder / name))
    assert raised.value.hint


@pytest.mark.parametrize("keep", [0, 100, 0.5])
def test_a_cut_off_saved_model_is_refused(folder: Path, tmp_path: Path, keep: float) -> None:
    graph = (folder / "cnn" / "saved_model.pb").read_bytes()
    (tmp_path / "saved_model.pb").write_bytes(graph[: int(keep if keep > 1 else keep * len(graph))])
    with pytest.raises(ModelLoadError, match="cannot be loaded"):
        load(tmp_path)


def test_a_saved_model_without_its_weights_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").write_bytes((folder / "cnn" / "saved_model.pb").read_bytes())
    with pytest.raises(ModelLoadError, match="cannot be loaded"):
        load(tmp_path)


def test_weights_of_another_shape_are_a_clear_error(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "mixed.keras"
    keras_models.mix(folder / "cnn.keras", weights=folder / "two.keras", into=path)
    with pytest.raises(ModelLoadError, match=r"mixed\.keras: cannot be loaded") as raised:
        load(path)
    assert "saved with Keras 3." in str(raised.value.hint)


# -- conversion -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CONVERTIBLE)
def test_a_converted_keras_model_is_equal_and_called_the_same(folder: Path, tmp_path: Path, name: str) -> None:
    rows = Rows(keras_models.inputs(name))
    made = converted(folder / f"{name}.keras", rows, tmp_path)
    assert (made.equality.rows, made.equality.rows_apart) == (keras_models.ROWS, 0)
    assert made.equality.largest_error < 1e-5
    native, onnx = load(folder / f"{name}.keras").signature, load(tmp_path / made.file).signature
    for ours, theirs in ((onnx.inputs, native.inputs), (onnx.outputs, native.outputs)):
        assert {spec.name: (spec.datatype, spec.shape) for spec in ours} == {
            spec.name: (spec.datatype, spec.shape) for spec in theirs
        }


def test_a_converted_saved_model_is_equal_too(folder: Path, tmp_path: Path) -> None:
    made = converted(folder / "cnn", Rows(keras_models.inputs("cnn")), tmp_path)
    assert (made.equality.rows, made.equality.rows_apart) == (keras_models.ROWS, 0)
    (scores,) = load(tmp_path / made.file).instances(1, 1)[0].run(as_tensors("cnn"))
    np.testing.assert_allclose(scores, load(folder / "cnn").instances(1, 1)[0].run(as_tensors("cnn"))[0], atol=1e-5)


def test_an_operator_that_onnx_has_not_is_named(folder: Path, tmp_path: Path) -> None:
    rows = Rows({"x": np.array(["a", "bc"])})
    with pytest.raises(CannotChange, match="StringLength"):
        converted(folder / "upper", rows, tmp_path)


@pytest.mark.parametrize("name", ["lambda.keras", "read"])
def test_an_unsafe_model_is_not_converted(folder: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(UnsafeModel):
        converted(folder / name, Rows({"x": np.zeros((1, 2), np.float32)}), tmp_path)
    assert not (tmp_path / "model.onnx").exists()
