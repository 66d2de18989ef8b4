"""Small ONNX models, one for each property that a server has to cope with."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
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
    for index, (width, following) in enumerate(pairwise(sizes)):
        weights[f"w{index}"] = (random.standard_normal((width, following)) / np.sqrt(width)).astype(np.float32)
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
    return save(path, [helper.make_node("Identity", ["x"], ["y"])], [("x", element, shape)], [("y", element, shape)])


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


def half_plus_two(path: Path) -> Path:
    """`x` FP32 [N] -> `y` FP32 [N] = x / 2 + 2: the model of TensorFlow Serving's documentation."""
    return save(
        path,
        [helper.make_node("Div", ["x", "two"], ["half"]), helper.make_node("Add", ["half", "two"], ["y"])],
        [("x", T.FLOAT, ["N"])],
        [("y", T.FLOAT, ["N"])],
        {"two": np.array(2, np.float32)},
    )


def text_and_bytes(path: Path) -> Path:
    """`x` BYTES [N] -> `shown` and `raw_bytes`, both the same as `x`."""
    return save(
        path,
        [helper.make_node("Identity", ["x"], ["shown"]), helper.make_node("Identity", ["x"], ["raw_bytes"])],
        [("x", T.STRING, ["N"])],
        [("shown", T.STRING, ["N"]), ("raw_bytes", T.STRING, ["N"])],
    )


def flowers(path: Path) -> Path:
    """A classifier as skl2onnx exports it: `x` FP32 [N, 4] -> labels, and a list of {label: probability}."""
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression

    data = load_iris()
    model = LogisticRegression(max_iter=500).fit(data.data, data.target_names[data.target])
    converted = convert_sklearn(model, initial_types=[("x", FloatTensorType([None, 4]))])
    path.write_bytes(converted.SerializeToString())
    return path


def digits(path: Path) -> Path:
    """A classifier as `make demo` exports it: `x` FP32 [N, 4] -> INT64 labels, and probabilities FP32 [N, 3]."""
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression

    data = load_iris()
    model = LogisticRegression(max_iter=500).fit(data.data, data.target)
    converted = convert_sklearn(
        model, initial_types=[("x", FloatTensorType([None, 4]))], options={id(model): {"zipmap": False}}
    )
    path.write_bytes(converted.SerializeToString())
    return path


def shortened(path: Path) -> Path:
    """`x` FP32 [N, 2] -> `y` BF16 [N, 2]."""
    node = helper.make_node("Cast", ["x"], ["y"], to=T.BFLOAT16)
    return save(path, [node], [("x", T.FLOAT, ["N", 2])], [("y", T.BFLOAT16, ["N", 2])])


def log_of(path: Path) -> Path:
    """`x` FP32 [N, 2] -> `y` = log(x): NaN below 0, -infinity at 0."""
    return save(path, [helper.make_node("Log", ["x"], ["y"])], [("x", T.FLOAT, ["N", 2])], [("y", T.FLOAT, ["N", 2])])


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


def _one_product() -> onnx.GraphProto:
    """The body of a loop: one matrix product of its state with `w`."""
    return helper.make_graph(
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


def slow(path: Path, loops: int = 2000, width: int = 256) -> Path:
    """`x` FP32 [N, width] -> `y` [N, width]: `loops` matrix products in a row; about 10 us each for one row."""
    random = np.random.default_rng(0)
    return save(
        path,
        [helper.make_node("Loop", ["loops", "", "x"], ["y"], body=_one_product())],
        [("x", T.FLOAT, ["N", width])],
        [("y", T.FLOAT, ["N", width])],
        {
            "loops": np.array(loops, np.int64),
            "w": (random.standard_normal((width, width)) / np.sqrt(width)).astype(np.float32),
        },
    )


def patient(path: Path) -> Path:
    """`n` INT64 [N] -> `y` INT64 [N], the same, after max(n) small matrix products: the client chooses how long."""
    nodes = [
        helper.make_node("ReduceMax", ["n"], ["loops"], keepdims=0),
        helper.make_node("Loop", ["loops", "", "start"], ["state"], body=_one_product()),
        helper.make_node("ReduceSum", ["state"], ["sum"], keepdims=0),
        helper.make_node("Mul", ["sum", "zero"], ["nothing"]),
        helper.make_node("Cast", ["nothing"], ["whole"], to=T.INT64),
        helper.make_node("Add", ["n", "whole"], ["y"]),
    ]
    random = np.random.default_rng(0)
    weights = {
        "w": (random.standard_normal((256, 256)) / 16).astype(np.float32),
        "start": np.ones((1, 256), np.float32),
        "zero": np.array(0, np.float32),
    }
    return save(path, nodes, [("n", T.INT64, ["N"])], [("y", T.INT64, ["N"])], weights)


def never_warm(path: Path) -> Path:
    """Loads, and fails for every number of rows that a warm-up tries."""
    return save(
        path,
        [helper.make_node("Reshape", ["x", "shape"], ["y"])],
        [("x", T.FLOAT, ["N", 3])],
        [("y", T.FLOAT, ["N", 7919])],
        {"shape": np.array([-1, 7919], np.int64)},
    )


def softmax_over_rows(path: Path) -> Path:
    """`x` FP32 [N, 3] -> `y` = softmax along axis 0: every row depends on all."""
    node = helper.make_node("Softmax", ["x"], ["y"], axis=0)
    return save(path, [node], [("x", T.FLOAT, ["N", 3])], [("y", T.FLOAT, ["N", 3])])


def centred(path: Path, element: int = T.FLOAT) -> Path:
    """`x` [N, 3] -> `y` = x minus the mean of all rows, which equal rows do not show."""
    nodes = [
        helper.make_node("Cast", ["x"], ["number"], to=T.FLOAT),
        helper.make_node("ReduceMean", ["number"], ["mean"], axes=[0], keepdims=1),
        helper.make_node("Sub", ["number", "mean"], ["y"]),
    ]
    return save(path, nodes, [("x", element, ["N", 3])], [("y", T.FLOAT, ["N", 3])])


def total(path: Path) -> Path:
    """`x` FP32 [4] -> `y` FP32, a scalar: a model without rows."""
    node = helper.make_node("ReduceSum", ["x"], ["y"], keepdims=0)
    return save(path, [node], [("x", T.FLOAT, [4])], [("y", T.FLOAT, [])])


def dropping(path: Path) -> Path:
    """`x` FP32 [N, 2] -> `y` [M, 2]: without the rows that begin with a number below -100."""
    nodes = [
        helper.make_node("Gather", ["x", "first"], ["column"], axis=1),
        helper.make_node("Greater", ["column", "least"], ["keep"]),
        helper.make_node("Compress", ["x", "keep"], ["y"], axis=0),
    ]
    weights = {"first": np.array(0, np.int64), "least": np.array(-100, np.float32)}
    return save(path, nodes, [("x", T.FLOAT, ["N", 2])], [("y", T.FLOAT, ["M", 2])], weights)


def row_sequence(path: Path) -> Path:
    """`x` FP32 [N, 3] -> `y`, a sequence of N tensors [3]."""
    node = helper.make_node("SplitToSequence", ["x"], ["y"], axis=0, keepdims=0)
    graph = helper.make_graph(
        [node],
        "test",
        [helper.make_tensor_value_info("x", T.FLOAT, ["N", 3])],
        [helper.make_tensor_sequence_value_info("y", T.FLOAT, None)],
    )
    return _save_graph(path, graph)


def ragged_sequence(path: Path) -> Path:
    """`x` FP32 [N, 3] -> `y`, a sequence of two tensors of different widths: no tensor at all."""
    node = helper.make_node("SplitToSequence", ["x", "widths"], ["y"], axis=1)
    graph = helper.make_graph(
        [node],
        "test",
        [helper.make_tensor_value_info("x", T.FLOAT, ["N", 3])],
        [helper.make_tensor_sequence_value_info("y", T.FLOAT, None)],
        [numpy_helper.from_array(np.array([1, 2], np.int64), "widths")],
    )
    return _save_graph(path, graph)


def takes_a_map(path: Path) -> Path:
    """`x`, a map from text to numbers -> `y` FP32 [1, 2]: inputs that no protocol can carry."""
    given = onnx.ValueInfoProto(name="x")
    given.type.map_type.key_type = T.STRING
    given.type.map_type.value_type.tensor_type.elem_type = T.FLOAT
    node = helper.make_node("DictVectorizer", ["x"], ["y"], domain="ai.onnx.ml", string_vocabulary=["a", "b"])
    return _save_graph(
        path, helper.make_graph([node], "test", [given], [helper.make_tensor_value_info("y", T.FLOAT, [1, 2])])
    )


def digits_of_three(path: Path) -> Path:
    """A classifier with integer labels, as skl2onnx exports it: `x` FP32 [N, 2] -> labels and {label: probability}."""
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType
    from sklearn.linear_model import LogisticRegression

    rows = np.random.default_rng(0).standard_normal((60, 2)).astype(np.float32)
    model = LogisticRegression().fit(rows, np.array([10, 2, 7])[np.digitize(rows[:, 0], [-0.5, 0.5])])
    converted = convert_sklearn(model, initial_types=[("x", FloatTensorType([None, 2]))])
    path.write_bytes(converted.SerializeToString())
    return path


def _save_graph(path: Path, graph: onnx.GraphProto) -> Path:
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), str(path))
    return path
