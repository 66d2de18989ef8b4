"""Pruned models: narrower, and equal to the same model with those units silenced; what others read is left alone."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto as T
from onnx import helper, numpy_helper

from paceline.config.processor import Processor
from paceline.core.errors import CannotChange
from paceline.optimize.data.rows import Rows
from paceline.optimize.search.facts import read
from paceline.optimize.transforms import calibrate, prune
from paceline.optimize.transforms.channels import groups
from paceline.optimize.transforms.importance import by_size
from paceline.optimize.transforms.prepare import prepare
from support import models, trained

pytestmark = pytest.mark.slow

ANY = Processor("any", "x86_64", frozenset())
RANDOM = np.random.default_rng(0)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> trained.Trained:
    return trained.digits_mlp(tmp_path_factory.mktemp("digits"), hidden=(256, 128))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> trained.Trained:
    return trained.digits_cnn(tmp_path_factory.mktemp("pictures"))


def weights(*shape: int) -> np.ndarray:
    return (RANDOM.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32)


def run(model: Path | onnx.ModelProto, rows: Rows) -> list[np.ndarray]:
    given = str(model) if isinstance(model, Path) else model.SerializeToString()
    return ort.InferenceSession(given, providers=["CPUExecutionProvider"]).run(None, dict(rows.inputs))


def arrays(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {each.name: numpy_helper.to_array(each).copy() for each in model.graph.initializer}


def silenced(model: Path, rows: Rows, keep: Callable[[int], int]) -> onnx.ModelProto:
    """The same network at its full width, in which nobody listens to the units that would be taken out."""
    graph = prepare(model)
    batches = calibrate.feeds(graph, rows, 4096)
    found = [(group, by_size(graph, group, batches, keep(group.width)).kept) for group in groups(graph)]
    for group, kept in found:
        removed = np.setdiff1d(np.arange(group.width), kept)
        for each in group.reads:
            name = graph.graph.node[each.cut.node].input[each.cut.input]
            stored = next(tensor for tensor in graph.graph.initializer if tensor.name == name)
            array = np.moveaxis(numpy_helper.to_array(stored).copy(), each.cut.axis, 0)
            array[each.cut.numbers(removed, group.width, len(array))] = 0
            stored.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(np.moveaxis(array, 0, each.cut.axis)), name))
    return graph


def test_weights_of_an_old_file_are_listed_as_inputs_and_are_pruned_all_the_same(
    digits: trained.Trained, tmp_path: Path
):
    model = onnx.load(str(digits.model))
    model.ir_version = 3
    listed = [helper.make_tensor_value_info(each.name, T.FLOAT, each.dims) for each in model.graph.initializer]
    model.graph.input.extend(listed)
    onnx.save(model, str(tmp_path / "old.onnx"))
    made = prune.structured(model=tmp_path / "old.onnx", rows=digits.calibration, folder=tmp_path)
    assert made.notes[0].startswith("Gemm_0: 128 of 256 units stay")
    assert digits.accuracy(tmp_path / made.file) > 0.9


def test_a_pruned_network_equals_one_in_which_those_units_are_silenced(digits: trained.Trained, tmp_path: Path):
    made = prune.structured(model=digits.model, rows=digits.calibration, folder=tmp_path, ratio=0.5, refit=False)
    expected = run(silenced(digits.model, Rows.load(digits.calibration), lambda width: width // 2), digits.rows)
    np.testing.assert_allclose(run(tmp_path / made.file, digits.rows)[0], expected[0], rtol=1e-4, atol=1e-4)
    shapes = sorted(each.shape for each in arrays(onnx.load(str(tmp_path / made.file))).values() if each.ndim == 2)
    assert shapes == [(64, 10), (64, 128), (128, 64)]
    assert made.notes == ["Gemm_0: 128 of 256 units stay", "Gemm_2: 64 of 128 units stay"]


def test_channels_go_through_norms_pools_and_filters_of_their_own(pictures: trained.Trained, tmp_path: Path):
    made = prune.structured(model=pictures.model, rows=pictures.calibration, folder=tmp_path, ratio=0.3, refit=False)
    kept = {48: 32, 32: 16}
    expected = run(silenced(pictures.model, Rows.load(pictures.calibration), kept.__getitem__), pictures.rows)
    np.testing.assert_allclose(run(tmp_path / made.file, pictures.rows)[0], expected[0], rtol=1e-4, atol=1e-4)
    pruned = onnx.load(str(tmp_path / made.file))
    shapes = {each.shape for each in arrays(pruned).values() if each.ndim > 1}
    assert shapes >= {(32, 1, 3, 3), (16, 32, 3, 3), (10, 16 * 16)}
    assert [len(each.shape) for each in arrays(pruned).values()].count(4) == 3


def test_refitting_makes_up_for_what_was_taken_out(digits: trained.Trained, tmp_path: Path):
    errors, wanted = [], run(digits.model, digits.rows)[0]
    for refit in (False, True):
        made = prune.structured(model=digits.model, rows=digits.calibration, folder=tmp_path, ratio=0.75, refit=refit)
        errors.append(np.linalg.norm(run(tmp_path / made.file, digits.rows)[0] - wanted) / np.linalg.norm(wanted))
    assert errors[1] < 0.15 < 0.5 * errors[0]
    assert digits.accuracy(tmp_path / "model.onnx") > digits.accuracy(digits.model) - 0.02
    assert made.notes[0].endswith("and the next layer fitted anew")


def test_a_bias_written_as_a_row_is_refitted_and_cut(digits: trained.Trained, tmp_path: Path):
    model = onnx.load(str(digits.model))
    for each in model.graph.initializer:
        if each.name.startswith("b"):
            each.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(each)[None], each.name))
    onnx.save(model, str(tmp_path / "row.onnx"))
    made = prune.structured(model=tmp_path / "row.onnx", rows=digits.calibration, folder=tmp_path)
    assert digits.accuracy(tmp_path / made.file) > digits.accuracy(digits.model) - 0.02


def test_refitting_works_behind_a_flattened_picture(pictures: trained.Trained, tmp_path: Path):
    made = prune.structured(model=pictures.model, rows=pictures.calibration, folder=tmp_path, ratio=0.5)
    assert "fitted anew" in made.notes[-1]
    assert pictures.accuracy(tmp_path / made.file) > pictures.accuracy(pictures.model) - 0.1


def written(
    tmp_path: Path, nodes: list, constants: dict, shape: tuple = (32,), out: int = 8
) -> tuple[Path, Path, Rows]:
    model = models.save(
        tmp_path / "given.onnx",
        nodes,
        [("x", T.FLOAT, ["N", *shape])],
        [("y", T.FLOAT, ["N", *shape[:-1], out] if len(shape) < 3 else ["N", out])],
        constants,
    )
    rows = Rows({"x": RANDOM.standard_normal((200, *shape), np.float32)})
    rows.save(tmp_path / "rows.npz")
    return model, tmp_path / "rows.npz", rows


def test_a_feed_forward_block_with_gelu_is_followed(tmp_path: Path):
    constants = {"w0": weights(32, 64), "b0": weights(64), "w1": weights(64, 32), "two": np.array(1.414, np.float32)}
    constants |= {"one": np.array(1, np.float32), "half": np.array(0.5, np.float32)}
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["p"]),
        helper.make_node("Add", ["p", "b0"], ["h"]),
        helper.make_node("Div", ["h", "two"], ["d"]),
        helper.make_node("Erf", ["d"], ["e"]),
        helper.make_node("Add", ["e", "one"], ["f"]),
        helper.make_node("Mul", ["h", "f"], ["g"]),
        helper.make_node("Mul", ["g", "half"], ["a"]),
        helper.make_node("MatMul", ["a", "w1"], ["q"]),
        helper.make_node("Add", ["q", "x"], ["y"]),
    ]
    model, file, rows = written(tmp_path, nodes, constants, (5, 32), 32)
    (tmp_path / "out").mkdir()
    made = prune.structured(model=model, rows=file, folder=tmp_path / "out", refit=False)
    expected = run(silenced(model, rows, lambda width: width // 2), rows)[0]
    np.testing.assert_allclose(run(tmp_path / "out" / made.file, rows)[0], expected, rtol=1e-4, atol=1e-5)
    assert made.notes == [f"{prepare(model).graph.node[0].name}: 32 of 64 units stay"]


def test_pixels_before_channels_are_told_from_channels_before_pixels(tmp_path: Path):
    constants = {"k": weights(32, 3, 3, 3), "w": weights(32 * 16, 8), "shape": np.array([-1, 512], np.int64)}
    nodes = [
        helper.make_node("Conv", ["x", "k"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Transpose", ["r"], ["t"], perm=[0, 2, 3, 1]),
        helper.make_node("Reshape", ["t", "shape"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["y"]),
    ]
    model, file, rows = written(tmp_path, nodes, constants, (3, 4, 4))
    (tmp_path / "out").mkdir()
    made = prune.structured(model=model, rows=file, folder=tmp_path / "out", refit=False)
    expected = run(silenced(model, rows, lambda width: width // 2), rows)[0]
    np.testing.assert_allclose(run(tmp_path / "out" / made.file, rows)[0], expected, rtol=1e-4, atol=1e-5)


def test_weights_that_two_layers_share_are_cut_for_each_of_them(tmp_path: Path):
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "w"], ["c"]),
        helper.make_node("Tanh", ["c"], ["d"]),
        helper.make_node("MatMul", ["d", "v"], ["y"]),
    ]
    model, file, rows = written(tmp_path, nodes, {"w": weights(32, 32), "v": weights(32, 8)})
    (tmp_path / "out").mkdir()
    made = prune.structured(model=model, rows=file, folder=tmp_path / "out")
    shapes = sorted(each.shape for each in arrays(onnx.load(str(tmp_path / "out" / made.file))).values())
    assert shapes == [(16, 8), (16, 16), (32, 16)]
    assert np.isfinite(run(tmp_path / "out" / made.file, rows)[0]).all()


@pytest.mark.parametrize(
    "between",
    [
        pytest.param([helper.make_node("Add", ["h", "x"], ["g"])], id="a residual sum"),
        pytest.param([helper.make_node("Softmax", ["h"], ["g"])], id="a softmax over the units"),
        pytest.param([helper.make_node("LayerNormalization", ["h", "scale"], ["g"])], id="a norm over the units"),
        pytest.param([helper.make_node("Gather", ["h", "places"], ["g"], axis=1)], id="units taken by their places"),
    ],
)
def test_units_that_others_read_too_are_left_alone(tmp_path: Path, between: list):
    constants = {"w0": weights(32, 32), "w1": weights(32, 8), "scale": np.ones(32, np.float32)}
    constants["places"] = np.arange(32)[::-1].astype(np.int64)
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["h"]),
        *between,
        helper.make_node("MatMul", ["g", "w1"], ["y"]),
    ]
    model, file, _ = written(tmp_path, nodes, constants)
    with pytest.raises(CannotChange, match="no hidden units"):
        prune.structured(model=model, rows=file, folder=tmp_path)


def test_units_that_the_model_puts_out_are_left_alone(digits: trained.Trained, tmp_path: Path):
    open_model = onnx.load(str(digits.model))
    open_model.graph.output.append(helper.make_tensor_value_info("h1", T.FLOAT, ["N", 128]))
    onnx.save(open_model, str(tmp_path / "open.onnx"))
    made = prune.structured(model=tmp_path / "open.onnx", rows=digits.calibration, folder=tmp_path)
    assert [note.partition(":")[0] for note in made.notes] == ["Gemm_0"]
    assert run(tmp_path / made.file, digits.rows)[1].shape[1] == 128


def test_trees_are_refused(tmp_path: Path):
    models.flowers(tmp_path / "flowers.onnx")
    Rows({"x": RANDOM.random((50, 4), np.float32)}).save(tmp_path / "rows.npz")
    with pytest.raises(CannotChange, match="no hidden units"):
        prune.structured(model=tmp_path / "flowers.onnx", rows=tmp_path / "rows.npz", folder=tmp_path)


def test_single_weights_become_zero(digits: trained.Trained, tmp_path: Path):
    made = prune.unstructured(model=digits.model, rows=digits.calibration, folder=tmp_path, sparsity=0.6)
    matrices = [each for each in arrays(onnx.load(str(tmp_path / made.file))).values() if each.ndim == 2]
    assert [round(float((each == 0).mean()), 2) for each in matrices] == [0.6] * 3
    assert digits.accuracy(tmp_path / made.file) > 0.8


def test_each_candidate_goes_on_from_the_one_before(digits: trained.Trained):
    found = prune.candidates(read(digits.model), ANY)
    assert [(each.name, each.after) for each in found] == [
        ("pruned-25", None),
        ("pruned-50", "pruned-25"),
        ("pruned-75", "pruned-50"),
    ]
    assert all(each.changes[0].call == "prune:structured" for each in found)


def test_a_single_layer_has_no_candidates(tmp_path: Path):
    assert prune.candidates(read(models.mlp(tmp_path / "one.onnx", (8, 4))), ANY) == []
