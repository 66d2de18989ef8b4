"""What is a model made of? Read from the ONNX file; decides which candidates are worth a try.

Rules:
- The file is checked as it is before it is served, and its weights are not read: only their sizes are.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from paceline.core.errors import ModelLoadError, first_line
from paceline.runtimes.onnx_file import check

HEAVY: Final = frozenset(
    {"MatMul", "Gemm", "Conv", "ConvTranspose", "LSTM", "GRU", "RNN", "Einsum", "Attention", "MultiHeadAttention"}
    | {"MatMulInteger", "ConvInteger", "QLinearMatMul", "QLinearConv", "QGemm", "FusedMatMul", "FusedConv"}
    | {"TreeEnsemble", "TreeEnsembleClassifier", "TreeEnsembleRegressor", "SVMClassifier", "SVMRegressor"}
)
"""Operators that take time, beside which the others count for little."""

_DEFAULT_DOMAINS: Final = ("", "ai.onnx")


class Facts(msgspec.Struct, kw_only=True):
    """An ONNX model, as far as the choice of candidates needs it.

    Attributes:
        operators: how many of each, as `MatMul`, `ai.onnx.ml.TreeEnsembleClassifier`; also within loops and branches.
        weight_bytes: of all initializers and constants.
        branches: nodes that take time and that no path connects, so that they could run side by side; 1: a chain.
        fixed_batch: the batch dimension that the file fixes; None: it is open.
    """

    operators: dict[str, int]
    weight_bytes: int
    branches: int = 1
    fixed_batch: int | None = None

    @property
    def multiplies(self) -> bool:
        """True when there are products, which a processor may do faster in narrower numbers."""
        return any(
            self.operators.get(kind) for kind in ("MatMul", "Gemm", "Conv", "ConvTranspose", "LSTM", "GRU", "Attention")
        )

    @property
    def attends(self) -> bool:
        """True when it looks like a transformer: products on both sides of a softmax, as attention has them."""
        return self.operators.get("Softmax", 0) > 0 and self.operators.get("MatMul", 0) >= 6


def read(model: Path) -> Facts:
    """Look into an ONNX file. Runs as a step (see `steps.py`): a hostile file costs that process, and not the study.

    Raises:
        ModelLoadError: it is none, or absurd, or refers to what is not in its folder.
    """
    import onnx

    check(model)
    try:
        graph = onnx.load(str(model), load_external_data=False).graph
    except Exception as error:  # protobuf's own, whose class depends on how protobuf is built
        raise ModelLoadError(f"{model}: cannot be read: {first_line(error)}") from error
    return Facts(
        operators=dict(Counter(_name(node) for each in graphs(graph) for node in each.node)),
        weight_bytes=sum(size_bytes(tensor) for each in graphs(graph) for tensor in _tensors(each)),
        branches=branches(graph),
        fixed_batch=fixed_batch(graph),
    )


def branches(graph: Any) -> int:
    """The most nodes of equal depth, counted in nodes that take time: no path connects them. At least 1."""
    depth: dict[str, int] = {}
    wide: Counter[int] = Counter()
    for node in graph.node:  # in topological order, as the format demands
        level = max((depth.get(name, 0) for name in node.input), default=0)
        if node.op_type in HEAVY:
            level += 1
            wide[level] += 1
        depth.update(dict.fromkeys(node.output, level))
    return max(wide.values(), default=1)


def fixed_batch(graph: Any) -> int | None:
    """The size that axis 0 of all inputs has, and of all outputs that say one; None: it is open, or not the same."""
    weights = {each.name for each in graph.initializer}
    sizes = {_first_size(each) for each in graph.input if each.name not in weights}
    told = {_first_size(each) for each in graph.output} - {None}
    return sizes.pop() if len(sizes) == 1 and told <= sizes else None


def size_bytes(tensor: Any) -> int:
    """Bytes of a tensor's elements, wherever they lie; text counts nothing."""
    from onnx import TensorProto, helper

    if tensor.data_type in (TensorProto.STRING, TensorProto.UNDEFINED):
        return 0
    return int(math.prod(tensor.dims)) * int(helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)


def graphs(graph: Any) -> Iterator[Any]:
    """A graph, and those within its nodes, at any depth."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from graphs(inner)


def _tensors(graph: Any) -> Iterator[Any]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t


def _name(node: Any) -> str:
    return node.op_type if node.domain in _DEFAULT_DOMAINS else f"{node.domain}.{node.op_type}"


def _first_size(value: Any) -> int | None:
    shape = value.type.tensor_type.shape
    return int(shape.dim[0].dim_value) or None if shape.dim else None
