"""Do changed graphs give the same answers, under the same names?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto as T
from onnx import helper

from paceline.core.errors import CannotChange
from paceline.core.tensors import Array
from paceline.optimize.search import facts
from paceline.optimize.transforms import graph
from paceline.runtimes.base import load
from paceline.runtimes.options import RuntimeOptions
from support import models
from support.models import save

WIDTH = 16


def encoder(path: Path) -> Path:
    """A feed-forward part of a transformer as PyTorch's older exporter writes it: residual, normalization, GELU."""
    random = np.random.default_rng(0)
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["product1"]),
        helper.make_node("Add", ["b1", "product1"], ["hidden"]),
        # GELU, by its definition
        helper.make_node("Div", ["hidden", "root"], ["scaled"]),
        helper.make_node("Erf", ["scaled"], ["erf"]),
        helper.make_node("Add", ["erf", "one"], ["more"]),
        helper.make_node("Mul", ["hidden", "more"], ["double"]),
        helper.make_node("Mul", ["double", "half"], ["gelu"]),
        helper.make_node("MatMul", ["gelu", "w2"], ["product2"]),
        helper.make_node("Add", ["product2", "b2"], ["small"]),
        helper.make_node("Add", ["small", "x"], ["residual"]),
        # Layer normalization, by its definition
        helper.make_node("ReduceMean", ["residual"], ["mean"], axes=[-1], keepdims=1),
        helper.make_node("Sub", ["residual", "mean"], ["centred"]),
        helper.make_node("Pow", ["centred", "two"], ["squares"]),
        helper.make_node("ReduceMean", ["squares"], ["variance"], axes=[-1], keepdims=1),
        helper.make_node("Add", ["variance", "epsilon"], ["more_variance"]),
        helper.make_node("Sqrt", ["more_variance"], ["deviation"]),
        helper.make_node("Div", ["centred", "deviation"], ["normal"]),
        helper.make_node("Mul", ["normal", "gamma"], ["wide"]),
        helper.make_node("Add", ["wide", "beta"], ["y"]),
    ]

    def weights(*shape: int) -> Array:
        return (random.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32)

    constants = {
        "w1": weights(WIDTH, 2 * WIDTH),
        "b1": weights(2 * WIDTH),
        "w2": weights(2 * WIDTH, WIDTH),
        "b2": weights(WIDTH),
        "gamma": weights(WIDTH),
        "beta": weights(WIDTH),
        **{
            name: np.array(value, np.float32)
            for name, value in {"root": np.sqrt(2), "one": 1, "half": 0.5, "two": 2, "epsilon": 1e-5}.items()
        },
    }
    shape = ["N", "T", WIDTH]
    return save(path, nodes, [("x", T.FLOAT, shape)], [("y", T.FLOAT, shape)], constants)


@pytest.mark.slow
def test_transformer_operators_are_fused_and_answers_stay(tmp_path):
    before = encoder(tmp_path / "m.onnx")
    (tmp_path / "out").mkdir()
    made = graph.fused(model=before, rows=tmp_path / "rows.npz", folder=tmp_path / "out")
    after = tmp_path / "out" / made.file
    operators = facts.read(after).operators
    assert operators.get("com.microsoft.BiasGelu") == 1
    assert operators.get("com.microsoft.SkipLayerNormalization") == 1
    assert made.notes == ["fused into 1 SkipLayerNormalization, 1 BiasGelu"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["model.onnx"]
    old, new = load(before), load(after)
    assert new.signature == old.signature
    rows = np.random.default_rng(1).standard_normal((3, 5, WIDTH)).astype(np.float32)
    np.testing.assert_allclose(
        new.instances(1, 1)[0].run((rows,))[0], old.instances(1, 1)[0].run((rows,))[0], rtol=1e-4, atol=1e-5
    )


@pytest.mark.slow
def test_a_graph_without_such_parts_is_left_alone(tmp_path):
    model = models.mlp(tmp_path / "m.onnx")
    with pytest.raises(CannotChange, match="no part of the graph is attention"):
        graph.fused(model=model, rows=tmp_path / "rows.npz", folder=tmp_path)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_branches_side_by_side_give_the_same_answers(tmp_path, threads):
    path = save(
        tmp_path / "m.onnx",
        [
            helper.make_node("MatMul", ["x", "w"], ["a"]),
            helper.make_node("MatMul", ["x", "v"], ["b"]),
            helper.make_node("Sub", ["a", "b"], ["y"]),
        ],
        [("x", T.FLOAT, ["N", 4])],
        [("y", T.FLOAT, ["N", 4])],
        {"w": np.eye(4, dtype=np.float32), "v": np.full((4, 4), 0.5, np.float32)},
    )
    rows = np.arange(8, dtype=np.float32).reshape(2, 4)
    plain = load(path).instances(1, 1)[0].run((rows,))[0]
    loaded = load(path, RuntimeOptions(inter_op_threads=2))
    for instance in loaded.instances(2, threads):
        np.testing.assert_array_equal(instance.run((rows,))[0], plain)
