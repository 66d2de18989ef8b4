"""Small ONNX models, one for each property that a server has to cope with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper, numpy_helper

Shape = Sequence[int | str]


def save(path: Path, nodes: list, inputs: list, outputs: list, weights: dict | None = None) -> Path:
    """Write a model of `nodes`; inputs and outputs are (name, element type, shape)."""
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(*each) for each in inputs],
        [helper.make_tensor_value_info(*each) for each in outputs],
        [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path


def mlp(path: Path, sizes: Sequence[int] = (64, 128, 10), seed: int = 0) -> Path:
    """Fully connected layers with ReLU between them: `x` [N, first] -> `y` [N, last]."""
    random = np.random.default_rng(seed)
    nodes, weights, current = [], {}, "x"
    for index, (width, following) in enumerate(zip(sizes, sizes[1:], strict=False)):
        weights[f"w{index}"] = (random.standard_normal((width, following)) / np.sqrt(width)).astype(
            np.float32
        )
        weights[f"b{index}"] = np.zeros(following, np.float32)
        last = index == len(sizes) - 2
        hidden = "y" if last else f"g{index}"
        nodes.append(helper.make_node("Gemm", [current, f"w{index}", f"b{index}"], [hidden]))
        if not last:
            nodes.append(helper.make_node("Relu", [hidden], [f"h{index}"]))
            current = f"h{index}"
    return save(path, nodes, [("x", T.FLOAT, ["N", sizes[0]])], [("y", T.FLOAT, ["N", sizes[-1]])], weights)


def identity(path: Path, element: int = T.FLOAT, shape: Shape = ("N", 3)) -> Path:
    """`x` -> `y`, the same."""
    return save(
        path, [helper.make_node("Identity", ["x"], ["y"])], [("x", element, shape)], [("y", element, shape)]
    )


def two_in_two_out(path: Path) -> Path:
    """`a` FP32 [N, 2], `b` INT64 [N, 2] -> `sum` FP32 [N, 2] (a + b), `doubled` INT64 [N, 2] (b + b)."""
    nodes = [
        helper.make_node("Cast", ["b"], ["bf"], to=T.FLOAT),
        helper.make_node("Add", ["a", "bf"], ["sum"]),
        helper.make_node("Add", ["b", "b"], ["doubled"]),
    ]
    return save(
        path,
        nodes,
        [("a", T.FLOAT, ["N", 2]), ("b", T.INT64, ["N", 2])],
        [("sum", T.FLOAT, ["N", 2]), ("doubled", T.INT64, ["N", 2])],
    )


def log_of(path: Path) -> Path:
    """`x` FP32 [N, 2] -> `y` = log(x): NaN below 0, -infinity at 0."""
    return save(
        path, [helper.make_node("Log", ["x"], ["y"])], [("x", T.FLOAT, ["N", 2])], [("y", T.FLOAT, ["N", 2])]
    )


def gather(path: Path, rows: int = 10) -> Path:
    """`i` INT64 [N] -> `y` FP32 [N, 4], a row of a table; an index outside raises. The poison-row model."""
    table = np.arange(rows * 4, dtype=np.float32).reshape(rows, 4)
    return save(
        path,
        [helper.make_node("Gather", ["table", "i"], ["y"])],
        [("i", T.INT64, ["N"])],
        [("y", T.FLOAT, ["N", 4])],
        {"table": table},
    )


def slow(path: Path, loops: int = 2000, width: int = 256) -> Path:
    """`x` FP32 [N, width] -> `y` [N, width]: `loops` matrix products in a row; about 10 us each for one row."""
    random = np.random.default_rng(0)
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["going"], ["going_on"]),
            helper.make_node("MatMul", ["state", "w"], ["product"]),
            helper.make_node("Tanh", ["product"], ["next"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", T.INT64, []),
            helper.make_tensor_value_info("going", T.BOOL, []),
            helper.make_tensor_value_info("state", T.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("going_on", T.BOOL, []),
            helper.make_tensor_value_info("next", T.FLOAT, None),
        ],
    )
    return save(
        path,
        [helper.make_node("Loop", ["loops", "", "x"], ["y"], body=body)],
        [("x", T.FLOAT, ["N", width])],
        [("y", T.FLOAT, ["N", width])],
        {
            "loops": np.array(loops, np.int64),
            "w": (random.standard_normal((width, width)) / np.sqrt(width)).astype(np.float32),
        },
    )
