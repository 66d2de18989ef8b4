"""Which models are measured? Made with onnx.helper, always the same, and kept in the build folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

IMAGE = (3, 224, 224)
SMALL = (64, 128, 10)
WIDE = (64, 2048, 2048, 10)
WIDER = (64, 4096, 4096, 4096, 10)

_OPSET = 17
_IR_VERSION = 8


def mlp(folder: Path, sizes: Sequence[int], shift: int = 0) -> Path:
    """Fully connected layers with ReLU between them: `x` [N, first] -> `y` [N, last].

    Args:
        shift: added to the first output, so that two models with the same weights can be told apart.
    """
    path = folder / f"mlp_{'_'.join(map(str, sizes))}{f'_shifted_{shift}' if shift else ''}.onnx"
    if path.exists():
        return path
    from onnx import helper, numpy_helper

    random = np.random.default_rng(0)
    nodes, weights, current = [], [], "x"
    for index, (width, following) in enumerate(pairwise(sizes)):
        matrix = (random.standard_normal((width, following)) / np.sqrt(width)).astype(np.float32)
        weights.append(numpy_helper.from_array(matrix, f"w{index}"))
        last = index == len(sizes) - 2
        bias = np.zeros(following, np.float32)
        bias[0] = shift if last else 0
        weights.append(numpy_helper.from_array(bias, f"b{index}"))
        product = "y" if last else f"product{index}"
        nodes.append(helper.make_node("Gemm", [current, f"w{index}", f"b{index}"], [product]))
        if not last:
            current = f"hidden{index}"
            nodes.append(helper.make_node("Relu", [product], [current]))
    return _save(path, nodes, [sizes[0]], [sizes[-1]], weights)


def identity(folder: Path) -> Path:
    """`x` [N, 3, 224, 224] -> `y`, the same: all that is left is the wire."""
    return _one_node(folder / "identity.onnx", "Identity", IMAGE)


def average_pool(folder: Path) -> Path:
    """`x` [N, 3, 224, 224] -> `y` [N, 3, 1, 1]: a large request, a small answer."""
    return _one_node(folder / "average_pool.onnx", "GlobalAveragePool", (3, 1, 1))


def json_row(width: int) -> bytes:
    """One row as a JSON list, four decimals each, as people send them."""
    values = np.random.default_rng(1).uniform(-1, 1, width)
    return json.dumps([round(float(value), 4) for value in values]).encode()


def _one_node(path: Path, operator: str, output: Sequence[int]) -> Path:
    if path.exists():
        return path
    from onnx import helper

    return _save(path, [helper.make_node(operator, ["x"], ["y"])], IMAGE, output, [])


def _save(path: Path, nodes: list, inputs: Sequence[int], outputs: Sequence[int], weights: list) -> Path:
    import onnx
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        nodes,
        path.stem,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *inputs])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", *outputs])],
        weights,
    )
    opset = [helper.make_opsetid("", _OPSET)]
    path.parent.mkdir(parents=True, exist_ok=True)
    # In one step: a run that is cut short leaves no half a model behind.
    partial = path.with_suffix(".partial")
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=_IR_VERSION), str(partial))
    partial.rename(path)
    return path
