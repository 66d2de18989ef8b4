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

from paceline.core.errors import ModelLoadError
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
        opset: of the default domain.
        branches: nodes that take time and that no path connects, so that they could run side by side; 1: a chain.
        fixed_batch: the batch dimension that the file fixes; None: it is open.
        float_outputs, integer_outputs: names.
    """

    operators: dict[str, int]
    weight_bytes: int
    opset: int
    branches: int = 1
    fixed_batch: int | None = None
    float_outputs: list[str] = []
    integer_outputs: list[str] = []

    @property
    def multiplies(self) -> bool:
        """True when there is something that 8-bit integers could make faster."""
        return any(
            self.operators.get(kind) for kind in ("MatMul", "Gemm", "Conv", "ConvTranspose", "LSTM", "GRU", "Attention")
        )

    @property
    def is_trees(self) -> bool:
        """True when it is an ensemble of trees."""
        return any(kind.startswith("ai.onnx.ml.TreeEnsemble") for kind in self.operators)

    @property
    def attends(self) -> bool:
        """True when it looks like a transformer: products on both sides of a softmax, as attention has them."""
        return self.operators.get("Softmax", 0) > 0 and self.operators.get("MatMul", 0) >= 6


def read(path: Path) -> Facts:
    """Look into an ONNX file.

    Raises:
        ModelLoadError: it is none, or absurd, or refers to what is not in its folder.
    """
    import onnx

    check(path)
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf's own, whose class depends on how protobuf is built
        raise ModelLoadError(f"{path}: cannot be read: {str(error).splitlines()[0]}") from error
    graph = model.graph
    return Facts(
        operators=dict(Counter(_name(node) for each in _graphs(graph) for node in each.node)),
        weight_bytes=sum(size_bytes(tensor) for each in _graphs(graph) for tensor in _tensors(each)),
        opset=next((int(each.version) for each in model.opset_import if each.domain in _DEFAULT_DOMAINS), 0),
        branches=branches(graph),
        fixed_batch=fixed_batch(graph),
        float_outputs=[each.name for each in graph.output if _kind(each) == "f"],
        integer_outputs=[each.name for each in graph.output if _kind(each) in ("i", "u")],
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


def _graphs(graph: Any) -> Iterator[Any]:
    """A graph, and those within its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _graphs(inner)


def _tensors(graph: Any) -> Iterator[Any]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t


def _name(node: Any) -> str:
    return node.op_type if node.domain in _DEFAULT_DOMAINS else f"{node.domain}.{node.op_type}"


def _kind(value: Any) -> str:
    """The letter that numpy has for the kind of an output's numbers; empty for text, and for what is no tensor."""
    from onnx import TensorProto, helper

    element = value.type.tensor_type.elem_type if value.type.HasField("tensor_type") else TensorProto.UNDEFINED
    if element in (TensorProto.UNDEFINED, TensorProto.STRING):
        return ""
    if element == TensorProto.BFLOAT16:
        return "f"
    return str(helper.tensor_dtype_to_np_dtype(element).kind)


def _first_size(value: Any) -> int | None:
    shape = value.type.tensor_type.shape
    return int(shape.dim[0].dim_value) or None if shape.dim else None
