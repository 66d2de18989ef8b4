"""Are models that take one row rewritten to take many, with the same answers? And are the others refused?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto as T
from onnx import helper

from paceline.core.errors import CannotChange
from paceline.core.tensors import Array
from paceline.optimize.data.rows import Rows
from paceline.optimize.search import facts
from paceline.optimize.transforms import dynamic_batch
from paceline.runtimes.base import load
from support.models import save

RANDOM = np.random.default_rng(0)


def weights(*shape: int) -> Array:
    return (RANDOM.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32)


def reshaped(path: Path) -> Path:
    """One row of 12 -> a sequence of 3, whose length is left open -> as one row again, all sizes written out."""
    nodes = [
        helper.make_node("Reshape", ["x", "sequence"], ["steps"]),
        helper.make_node("MatMul", ["steps", "w"], ["hidden"]),
        helper.make_node("Reshape", ["hidden", "flat"], ["row"]),
        helper.make_node("Softmax", ["row"], ["y"], axis=1),
    ]
    constants = {
        "sequence": np.array([1, -1, 4], np.int64),
        "flat": np.array([1, 15], np.int64),
        "w": weights(4, 5),
    }
    return save(path, nodes, [("x", T.FLOAT, [1, 12])], [("y", T.FLOAT, [1, 15])], constants)


def merged(path: Path) -> Path:
    """As exporters write dense layers: steps and rows merged, [1, 3, 4] -> [3, 4] -> [3, 5] -> [1, 3, 5]."""
    nodes = [
        helper.make_node("Constant", [], ["merge"], value_ints=[3, 4]),
        helper.make_node("Reshape", ["x", "merge"], ["steps"]),
        helper.make_node("Gemm", ["steps", "w", "b"], ["hidden"]),
        helper.make_node("Reshape", ["hidden", "apart"], ["y"]),
    ]
    constants = {"apart": np.array([1, 3, 5], np.int64), "w": weights(4, 5), "b": weights(5)}
    return save(path, nodes, [("x", T.FLOAT, [1, 3, 4])], [("y", T.FLOAT, [1, 3, 5])], constants)


def with_token(path: Path) -> Path:
    """A learned token in front of each row, as vision transformers have it, and attention over all."""
    nodes = [
        helper.make_node("Concat", ["token", "x"], ["all"], axis=1),
        helper.make_node("Transpose", ["all"], ["turned"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["all", "turned"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["shares"], axis=-1),
        helper.make_node("MatMul", ["shares", "all"], ["y"]),
    ]
    return save(path, nodes, [("x", T.FLOAT, [1, 3, 4])], [("y", T.FLOAT, [1, 4, 4])], {"token": weights(1, 1, 4)})


def resized(path: Path) -> Path:
    """An image scaled to sizes that are written out."""
    node = helper.make_node("Resize", ["x", "", "", "sizes"], ["y"], mode="nearest")
    sizes = np.array([1, 2, 6, 6], np.int64)
    return save(path, [node], [("x", T.FLOAT, [1, 2, 3, 3])], [("y", T.FLOAT, [1, 2, 6, 6])], {"sizes": sizes})


def averaged(path: Path) -> Path:
    """Less the mean over the batch: with one row nothing is left, with more something is."""
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[0], keepdims=1),
        helper.make_node("Sub", ["x", "mean"], ["y"]),
    ]
    return save(path, nodes, [("x", T.FLOAT, [1, 4])], [("y", T.FLOAT, [1, 4])])


def squeezed(path: Path) -> Path:
    """The batch dimension is taken away, and put back."""
    nodes = [
        helper.make_node("Squeeze", ["x", "first"], ["row"]),
        helper.make_node("Relu", ["row"], ["positive"]),
        helper.make_node("Unsqueeze", ["positive", "first"], ["y"]),
    ]
    return save(path, nodes, [("x", T.FLOAT, [1, 4])], [("y", T.FLOAT, [1, 4])], {"first": np.array([0], np.int64)})


def changed(
    build: Callable[[Path], Path], folder: Path, shape: tuple[int, ...], rows: Array | None = None
) -> tuple[Path, Path]:
    """The model before and after; the rows are four at random, unless they are given."""
    model = build(folder / "fixed.onnx")
    Rows({"x": RANDOM.standard_normal((4, *shape)) if rows is None else rows}).save(folder / "rows.npz")
    made = dynamic_batch.opened(model=model, rows=folder / "rows.npz", folder=folder)
    return model, folder / made.file


@pytest.mark.parametrize(
    ("build", "shape"), [(reshaped, (12,)), (merged, (3, 4)), (with_token, (3, 4)), (resized, (2, 3, 3))]
)
def test_the_batch_is_opened_and_each_row_gets_its_own_answer(tmp_path, build, shape):
    before, after = changed(build, tmp_path, shape)
    onnx.checker.check_model(str(after), full_check=True)
    assert facts.read(before).fixed_batch == 1
    assert facts.read(after).fixed_batch is None
    rows = RANDOM.standard_normal((7, *shape)).astype(np.float32)
    alone = load(before).instances(1, 1)[0]
    together = load(after)
    assert together.signature.batched
    assert together.signature.inputs[0].shape == (-1, *shape)
    answers = together.instances(1, 1)[0].run((rows,))[0]
    singles = np.concatenate([alone.run((rows[place : place + 1],))[0] for place in range(7)])
    np.testing.assert_allclose(answers, singles, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("build", "why"),
    [
        (averaged, "rows influence one another in output 'y'"),
        (squeezed, "2 rows do not run together: .*Squeeze"),
    ],
)
def test_a_model_that_computes_with_its_batch_is_refused(tmp_path, build, why):
    with pytest.raises(CannotChange, match=why):
        changed(build, tmp_path, (4,))


def test_an_open_batch_and_a_larger_one_are_left_alone(tmp_path):
    def of(first: int | str) -> Callable[[Path], Path]:
        node = helper.make_node("Relu", ["x"], ["y"])
        return lambda path: save(path, [node], [("x", T.FLOAT, [first, 2])], [("y", T.FLOAT, [first, 2])])

    with pytest.raises(CannotChange, match="the batch dimension is not fixed"):
        changed(of("N"), tmp_path, (2,))
    with pytest.raises(CannotChange, match="the batch is fixed at 8"):
        changed(of(8), tmp_path, (2,))


@pytest.mark.parametrize("others", [1, 2, 9])
def test_equal_rows_do_not_hide_that_rows_influence_one_another(tmp_path, others):
    """The mean over a batch of equal rows is each of them."""
    rows = np.concatenate([np.repeat(RANDOM.standard_normal((1, 4)), 5, axis=0), RANDOM.standard_normal((others, 4))])
    with pytest.raises(CannotChange, match="rows influence one another in output 'y'"):
        changed(averaged, tmp_path, (4,), rows)


def test_two_rows_that_differ_are_enough(tmp_path):
    _, after = changed(reshaped, tmp_path, (12,), RANDOM.standard_normal((2, 12)))
    assert facts.read(after).fixed_batch is None


@pytest.mark.parametrize("build", [reshaped, averaged])
@pytest.mark.parametrize(
    "rows",
    [np.ones((1, 12)), np.ones((5, 12)), 1 + 1e-12 * np.arange(36).reshape(3, 12)],
    ids=["one", "five", "single"],
)
def test_rows_that_are_the_same_to_the_model_prove_nothing(tmp_path, build, rows):
    rows = rows[:, :4] if build is averaged else rows
    with pytest.raises(CannotChange, match="the rows are all the same"):
        changed(build, tmp_path, (rows.shape[1],), rows)
