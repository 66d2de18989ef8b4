"""Quantized models: the same interface, smaller weights, answers that stay close; and the operators that stay float."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto as T
from onnx import helper

from paceline.config.processor import Processor
from paceline.core.errors import CannotChange
from paceline.optimize.data.rows import Rows
from paceline.optimize.search.facts import read
from paceline.optimize.transforms import exclude, quantize
from support import models, trained

pytestmark = pytest.mark.slow

VNNI = Processor("one with VNNI", "x86_64", frozenset({"avx512_vnni"}))
OLD = Processor("one without", "x86_64", frozenset({"avx2"}))


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> trained.Trained:
    return trained.digits_mlp(tmp_path_factory.mktemp("digits"), hidden=(128, 96))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> trained.Trained:
    return trained.digits_cnn(tmp_path_factory.mktemp("pictures"))


def run(model: Path, rows: Rows) -> dict[str, np.ndarray]:
    session = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    names = [node.name for node in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(rows.inputs)), strict=True))


def interface(model: Path) -> list[tuple[str, str, list]]:
    session = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    return [(node.name, node.type, node.shape) for node in (*session.get_inputs(), *session.get_outputs())]


def kinds(model: Path) -> list[str]:
    return [node.op_type for node in onnx.load(str(model)).graph.node]


def error(new: np.ndarray, old: np.ndarray) -> float:
    return float(np.linalg.norm(new - old) / np.linalg.norm(old))


@pytest.mark.parametrize("per_channel", [False, True])
def test_dynamic_keeps_the_interface_and_the_answers(digits: trained.Trained, tmp_path: Path, per_channel: bool):
    made = quantize.dynamic(model=digits.model, rows=digits.calibration, folder=tmp_path, per_channel=per_channel)
    file = tmp_path / made.file
    assert interface(file) == interface(digits.model)
    assert "MatMulInteger" in kinds(file)
    assert file.stat().st_size < 0.4 * digits.model.stat().st_size
    assert error(run(file, digits.rows)["y"], run(digits.model, digits.rows)["y"]) < 0.03
    assert made.notes[0].startswith("3 tensors of weights in 8 bits")


@pytest.mark.parametrize("method", ["minmax", "entropy", "percentile"])
def test_static_keeps_the_interface_and_the_answers(digits: trained.Trained, tmp_path: Path, method: str):
    made = quantize.static(model=digits.model, rows=digits.calibration, folder=tmp_path, method=method)
    file = tmp_path / made.file
    assert interface(file) == interface(digits.model)
    assert [each.name for each in tmp_path.iterdir()] == ["model.onnx"]
    assert file.stat().st_size < 0.4 * digits.model.stat().st_size
    assert error(run(file, digits.rows)["y"], run(digits.model, digits.rows)["y"]) < 0.03
    assert digits.accuracy(file) > digits.accuracy(digits.model) - 0.02


@pytest.mark.parametrize("per_channel", [False, True])
def test_biases_of_two_dimensions_are_quantized(digits: trained.Trained, tmp_path: Path, per_channel: bool):
    model = onnx.load(str(digits.model))
    read_as_bias = {node.input[2] for node in model.graph.node if node.op_type == "Gemm"}
    biases = [each for each in model.graph.initializer if each.name in read_as_bias]
    for each in biases:
        each.dims.insert(0, 1)  # as skl2onnx writes them
    assert len(biases) == 3
    onnx.save(model, str(tmp_path / "wide.onnx"))
    folder = tmp_path / "made"
    folder.mkdir()
    made = quantize.static(
        model=tmp_path / "wide.onnx", rows=digits.calibration, folder=folder, per_channel=per_channel
    )
    assert error(run(folder / made.file, digits.rows)["y"], run(digits.model, digits.rows)["y"]) < 0.03


def test_what_the_model_puts_out_keeps_all_its_bits(digits: trained.Trained, tmp_path: Path):
    made = quantize.static(model=digits.model, rows=digits.calibration, folder=tmp_path)
    graph = onnx.load(str(tmp_path / made.file)).graph
    assert next(node for node in graph.node if "y" in node.output).op_type == "Gemm"
    assert len(np.unique(run(tmp_path / made.file, digits.rows)["y"])) > 1000  # 8 bits would leave 256


def test_convolutions_are_quantized_with_what_lies_between_them(pictures: trained.Trained, tmp_path: Path):
    made = quantize.static(model=pictures.model, rows=pictures.calibration, folder=tmp_path)
    file = tmp_path / made.file
    assert interface(file) == interface(pictures.model)
    assert error(run(file, pictures.rows)["y"], run(pictures.model, pictures.rows)["y"]) < 0.05
    assert pictures.accuracy(file) > pictures.accuracy(pictures.model) - 0.02
    graph = onnx.load(str(file)).graph
    makers = {name: node for node in graph.node for name in node.output}
    pool = next(node for node in graph.node if node.op_type == "MaxPool")
    assert makers[pool.input[0]].op_type == "DequantizeLinear"


def test_seven_bits_where_the_processor_would_overflow(digits: trained.Trained, tmp_path: Path):
    quantize.static(model=digits.model, rows=digits.calibration, folder=tmp_path, reduce_range=True)
    stored = [each for each in onnx.load(str(tmp_path / "model.onnx")).graph.initializer if each.data_type == T.INT8]
    weights = [onnx.numpy_helper.to_array(each) for each in stored if len(each.dims) == 2]
    assert len(weights) == 3
    assert all(np.abs(each.astype(int)).max() <= 64 for each in weights)


def test_a_model_of_an_old_opset_is_brought_up(digits: trained.Trained, tmp_path: Path):
    old = onnx.load(str(digits.model))
    old.opset_import[0].version = 11  # in which these operators are the same
    onnx.save(old, str(tmp_path / "old.onnx"))
    made = quantize.static(model=tmp_path / "old.onnx", rows=digits.calibration, folder=tmp_path)
    assert error(run(tmp_path / made.file, digits.rows)["y"], run(digits.model, digits.rows)["y"]) < 0.03


def test_weights_beside_the_file_are_read(digits: trained.Trained, tmp_path: Path):
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    apart = tmp_path / "in" / "apart.onnx"
    onnx.save(onnx.load(str(digits.model)), str(apart), save_as_external_data=True, location="weights.bin")
    made = quantize.static(model=apart, rows=digits.calibration, folder=tmp_path / "out")
    assert error(run(tmp_path / "out" / made.file, digits.rows)["y"], run(digits.model, digits.rows)["y"]) < 0.03


def test_rows_in_double_precision_are_fed_as_the_model_takes_them(digits: trained.Trained, tmp_path: Path):
    rows = Rows({"x": digits.rows.inputs["x"].astype(np.float64)})
    rows.save(tmp_path / "rows.npz")
    made = quantize.static(model=digits.model, rows=tmp_path / "rows.npz", folder=tmp_path)
    assert "DequantizeLinear" in kinds(tmp_path / made.file)


def test_a_batch_that_the_file_fixes_is_fed_as_such(digits: trained.Trained, tmp_path: Path):
    fixed = onnx.load(str(digits.model))
    for each in (*fixed.graph.input, *fixed.graph.output):
        each.type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(fixed, str(tmp_path / "fixed.onnx"))
    made = quantize.static(model=tmp_path / "fixed.onnx", rows=digits.calibration, folder=tmp_path)
    assert interface(tmp_path / made.file)[0][2] == [1, 64]


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (np.ones((1, 64), np.float32), "at least 2 are needed"),
        (np.ones((50, 64), np.float32), "'x' is the same in all 50 rows"),
        (np.full((50, 64), np.nan, np.float32), "NaN or infinite in 50 of 50 rows"),
        (np.vstack([np.full((1, 64), np.nan), np.eye(64)]).astype(np.float32), "in 1 of 65 rows"),
    ],
)
def test_rows_that_say_nothing_of_ranges_are_refused(
    digits: trained.Trained, tmp_path: Path, rows: np.ndarray, reason: str
):
    Rows({"x": rows}).save(tmp_path / "rows.npz")
    with pytest.raises(CannotChange, match=reason):
        quantize.static(model=digits.model, rows=tmp_path / "rows.npz", folder=tmp_path)


def test_rows_without_an_input_are_refused(digits: trained.Trained, tmp_path: Path):
    Rows({"other": np.eye(64, dtype=np.float32)}).save(tmp_path / "rows.npz")
    with pytest.raises(CannotChange, match="lack the input 'x'"):
        quantize.static(model=digits.model, rows=tmp_path / "rows.npz", folder=tmp_path)


@pytest.mark.parametrize("change", [quantize.dynamic, quantize.static])
def test_a_model_without_products_is_refused(tmp_path: Path, change):
    models.log_of(tmp_path / "log.onnx")
    Rows({"x": np.random.default_rng(0).random((50, 2), np.float32)}).save(tmp_path / "rows.npz")
    with pytest.raises(CannotChange, match="multiplies"):
        change(model=tmp_path / "log.onnx", rows=tmp_path / "rows.npz", folder=tmp_path)


@pytest.fixture(scope="module")
def spoiled(digits: trained.Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits' model, whose second layer is written so that 8 bits spoil it: one unit a thousand times the others,
    and weights that make up for it."""
    model = onnx.load(str(digits.model))
    arrays = {each.name: onnx.numpy_helper.to_array(each).copy() for each in model.graph.initializer}
    for name in ("w0", "b0"):
        arrays[name][..., 0] *= 1000
    arrays["w1"][0] /= 1000
    for each in model.graph.initializer:
        each.CopyFrom(onnx.numpy_helper.from_array(arrays[each.name], each.name))
    file = tmp_path_factory.mktemp("spoiled") / "spoiled.onnx"
    onnx.save(model, str(file))
    return file


def test_the_worst_operator_stays_in_float(digits: trained.Trained, spoiled: Path, tmp_path: Path):
    wanted = run(spoiled, digits.rows)["y"]
    (tmp_path / "whole").mkdir()
    whole = quantize.static(model=spoiled, rows=digits.calibration, folder=tmp_path / "whole")
    before = error(run(tmp_path / "whole" / whole.file, digits.rows)["y"], wanted)

    made = exclude.mixed(model=spoiled, rows=digits.calibration, folder=tmp_path, error=0.03, most=0.7)
    file = tmp_path / made.file
    after = error(run(file, digits.rows)["y"], wanted)
    assert before > 0.1 > 3 * after, made.notes
    assert made.notes[0].startswith("left in float: Gemm_2; outputs differ by")

    graph = onnx.load(str(file)).graph
    stored = {each.name: each for each in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    gemms = {node.name: node for node in graph.node if node.op_type == "Gemm"}
    assert stored[gemms["Gemm_2"].input[1]].data_type == T.FLOAT
    assert makers[gemms["Gemm_2"].input[0]].op_type == "Relu"
    assert all(makers[gemms[name].input[1]].op_type == "DequantizeLinear" for name in ("Gemm_0", "Gemm_4"))


def test_a_model_that_stands_8_bits_is_not_mixed(digits: trained.Trained, tmp_path: Path):
    with pytest.raises(CannotChange, match="no operator has to stay in float"):
        exclude.mixed(model=digits.model, rows=digits.calibration, folder=tmp_path, error=0.05)


def test_operators_too_large_to_stay_in_float_are_said_to_be(digits: trained.Trained, spoiled: Path, tmp_path: Path):
    with pytest.raises(CannotChange, match="less than 1% of the weights"):
        exclude.mixed(model=spoiled, rows=digits.calibration, folder=tmp_path, most=0.01)


def test_products_of_two_activations_stay_in_float(tmp_path: Path):
    random = np.random.default_rng(0)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["q"]),
        helper.make_node("Transpose", ["q"], ["t"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["q", "t"], ["y"]),
    ]
    weights = {"w": random.standard_normal((16, 8), np.float32)}
    models.save(tmp_path / "two.onnx", nodes, [("x", T.FLOAT, ["N", 4, 16])], [("y", T.FLOAT, ["N", 4, 4])], weights)
    Rows({"x": random.standard_normal((64, 4, 16), np.float32)}).save(tmp_path / "rows.npz")
    made = quantize.static(model=tmp_path / "two.onnx", rows=tmp_path / "rows.npz", folder=tmp_path)
    graph = onnx.load(str(tmp_path / made.file)).graph
    makers = {name: node for node in graph.node for name in node.output}
    second = next(node for node in graph.node if "y" in node.output)
    assert second.op_type == "MatMul"
    assert not {makers[name].op_type for name in second.input} & {"DequantizeLinear"}


def test_a_recurrent_layer_is_quantized_with_the_ranges_of_its_batch(tmp_path: Path):
    random = np.random.default_rng(0)
    nodes = [
        helper.make_node("LSTM", ["x", "w", "r"], ["", "h"], hidden_size=32),
        helper.make_node("Squeeze", ["h", "first"], ["y"]),
    ]
    weights = {
        "w": random.standard_normal((1, 128, 16)).astype(np.float32) / 4,
        "r": random.standard_normal((1, 128, 32)).astype(np.float32) / 6,
        "first": np.array([0], np.int64),
    }
    model = models.save(
        tmp_path / "lstm.onnx", nodes, [("x", T.FLOAT, [5, "N", 16])], [("y", T.FLOAT, ["N", 32])], weights
    )
    rows = Rows({"x": random.standard_normal((5, 20, 16), np.float32)})
    rows.save(tmp_path / "rows.npz")
    (tmp_path / "out").mkdir()
    made = quantize.dynamic(model=model, rows=tmp_path / "rows.npz", folder=tmp_path / "out")
    assert "DynamicQuantizeLSTM" in kinds(tmp_path / "out" / made.file)
    assert error(run(tmp_path / "out" / made.file, rows)["y"], run(model, rows)["y"]) < 0.05


def test_a_network_of_scikit_learn_is_quantized(tmp_path: Path):
    from skl2onnx import to_onnx
    from sklearn.datasets import load_iris
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    flowers, kinds_of = load_iris(return_X_y=True)
    flowers = flowers.astype(np.float32)
    classifier = make_pipeline(StandardScaler(), MLPClassifier((64, 64), max_iter=1000, random_state=0))
    converted = to_onnx(classifier.fit(flowers, kinds_of), flowers[:1], options={"zipmap": False})
    (tmp_path / "flowers.onnx").write_bytes(converted.SerializeToString())
    rows = Rows({"X": flowers})
    rows.save(tmp_path / "rows.npz")
    (tmp_path / "out").mkdir()
    made = quantize.static(model=tmp_path / "flowers.onnx", rows=tmp_path / "rows.npz", folder=tmp_path / "out")
    assert interface(tmp_path / "out" / made.file) == interface(tmp_path / "flowers.onnx")
    labels = run(tmp_path / "out" / made.file, rows)["label"]
    assert np.mean(labels == run(tmp_path / "flowers.onnx", rows)["label"]) > 0.97


def test_candidates_rest_on_the_model_and_the_processor(
    digits: trained.Trained, pictures: trained.Trained, tmp_path: Path
):
    named = {each.name: each for each in quantize.candidates(read(digits.model), VNNI)}
    assert {"int8-dynamic", "int8-minmax", "int8-entropy", "int8-percentile", "int8-mixed"} <= set(named)
    assert all("reduce_range" not in each.changes[0].arguments for each in named.values())
    assert all(each.changes[0].arguments["reduce_range"] for each in quantize.candidates(read(digits.model), OLD))
    assert quantize.candidates(read(models.log_of(tmp_path / "log.onnx")), VNNI) == []


@pytest.mark.parametrize("name", ["int8-dynamic", "int8-minmax-tensor", "int8-entropy"])
def test_a_candidate_names_a_step_that_runs(digits: trained.Trained, tmp_path: Path, name: str):
    candidate = next(each for each in quantize.candidates(read(digits.model), OLD) if each.name == name)
    step = getattr(quantize, candidate.changes[0].call.partition(":")[2])
    made = step(model=digits.model, rows=digits.calibration, folder=tmp_path, **candidate.changes[0].arguments)
    assert (tmp_path / made.file).is_file()
