"""Which hidden units and channels could be taken out of a graph, and what must go with each?

Rules:
- A group is what one layer makes: its units, followed through everything that treats each of them alone, up to the
  layers that add them up. Only where all of these are known, and none leads elsewhere, can a unit be taken out.
- What meets another layer's result, as in a residual sum, what leaves the model, and what a loop or a branch looks at,
  is left alone.

Source: dependency graphs as in Fang et al., "DepGraph: Towards Any Structural Pruning" (2023), without joined groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from paceline.optimize.search.facts import graphs
from paceline.optimize.transforms.onnx_graph import attribute, constants, readers, seen
from paceline.optimize.transforms.prepare import PRODUCTS
from paceline.optimize.transforms.units import Cut, Group, Layout, Read

_ALONE: Final = frozenset(
    {"Abs", "Cast", "Celu", "Clip", "Dropout", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish", "Identity"}
    | {"LeakyRelu", "Mish", "Neg", "Relu", "Selu", "Sigmoid", "Softplus", "Softsign", "Sqrt", "Swish", "Tanh"}
)
_PAIRED: Final = frozenset({"Add", "Sub", "Mul", "Div", "Pow", "Min", "Max", "PRelu"})
_POOLS: Final = frozenset({"MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool"})
_OVER_PIXELS: Final = frozenset({"ReduceMean", "ReduceMax", "ReduceSum"})

_On = tuple[str, Layout] | None
"""The tensor in which the units are next, and where; None: they end here."""


class _LeftAloneError(Exception):
    """The units cannot be followed."""


def groups(model: Any) -> list[Group]:
    """All groups of a prepared model, in the graph's order."""
    graph = _Graph(model)
    found = []
    for index, node in enumerate(graph.nodes):
        start = _start(graph, index, node)
        if start is None:
            continue
        group, layout = start
        try:
            _Walk(graph, group).follow(node.output[0], layout)
        except _LeftAloneError:
            continue
        if group.reads:
            found.append(group)
    return found


class _Graph:
    """What is asked of a graph over and over."""

    def __init__(self, model: Any) -> None:
        self.nodes = list(model.graph.node)
        self.known = constants(model)
        self.readers = readers(self.nodes)
        _, *inner = graphs(model.graph)
        self.seen_elsewhere = {each.name for each in model.graph.output}.union(*map(seen, inner))
        self._ranks = {
            each.name: len(each.type.tensor_type.shape.dim)
            for each in model.graph.value_info
            if each.type.tensor_type.HasField("shape")
        }

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Of a constant; None: it is none."""
        return tuple(self.known[name].dims) if name in self.known else None

    def numbers(self, name: str) -> list[int]:
        """The numbers of a constant; none: it is no constant."""
        from onnx import numpy_helper

        return numpy_helper.to_array(self.known[name]).ravel().tolist() if name in self.known else []

    def rank(self, name: str) -> int:
        """How many axes a tensor has; raises `_LeftAloneError` where nobody knows."""
        if name not in self._ranks:
            raise _LeftAloneError
        return self._ranks[name]


def _start(graph: _Graph, index: int, node: Any) -> tuple[Group, Layout] | None:
    """The group that a node makes, and where its units are in what comes out of it."""
    if node.op_type not in ("Gemm", "MatMul", "Conv") or (shape := graph.shape(node.input[1])) is None:
        return None
    if node.op_type == "Conv":
        layout, axis = Layout.SECOND, 0
        if attribute(node, "group", 1) != 1:
            return None
    else:
        layout, axis = Layout.LAST, 0 if attribute(node, "transB", 0) else 1
        if len(shape) != 2:
            return None
    group = Group(node.name, shape[axis], [Cut(index, 1, axis)])
    if len(node.input) > 2 and node.input[2]:
        bias = graph.shape(node.input[2])
        if bias is None:
            return None
        if bias and bias[-1] == group.width > 1:
            group.cuts.append(Cut(index, 2, len(bias) - 1))
    return group, layout


class _Walk:
    """Follows the units of one group."""

    def __init__(self, graph: _Graph, group: Group) -> None:
        self._graph = graph
        self._group = group
        self._layouts: dict[str, Layout] = {}
        self._met: list[str] = []

    def follow(self, tensor: str, layout: Layout) -> None:
        """Fill the group; raises `_LeftAloneError`."""
        ahead = [(tensor, layout)]
        done: dict[int, Layout] = {}
        while ahead:
            name, layout = ahead.pop()
            if name in self._graph.seen_elsewhere:
                raise _LeftAloneError
            self._layouts[name] = layout
            for index in self._graph.readers.get(name, ()):
                if index in done:
                    if done[index] is not layout:
                        raise _LeftAloneError
                    continue  # a pair of two tensors of the group
                done[index] = layout
                following = self._through(index, self._graph.nodes[index], name, layout)
                if following is not None:
                    ahead.append(following)
        # What was paired with the units must have been units, too.
        if any(name not in self._layouts for name in self._met):
            raise _LeftAloneError

    def _through(self, index: int, node: Any, name: str, layout: Layout) -> _On:
        kind, out = node.op_type, node.output[0]
        if kind in PRODUCTS:
            return self._layer(index, node, name, layout)
        if kind in _ALONE and all(not each or each in self._graph.known for each in node.input[1:]):
            return out, layout
        if kind in _PAIRED:
            self._pair(index, node, name, layout)
            return out, layout
        if kind == "BatchNormalization" and self._is_second(name, layout):
            self._cut_all(index, node, range(1, 5))
            return out, layout
        if layout is Layout.SECOND and kind in _POOLS and len(node.output) == 1:
            return out, layout
        return out, self._moved(index, node, name, layout)

    def _is_second(self, name: str, layout: Layout) -> bool:
        return layout is Layout.SECOND or (layout is Layout.LAST and self._graph.rank(name) == 2)

    def _layer(self, index: int, node: Any, name: str, layout: Layout) -> _On:
        shape = self._graph.shape(node.input[1])
        if shape is None or node.input[0] != name or list(node.input).count(name) != 1:
            raise _LeftAloneError
        if node.op_type.startswith("Conv"):
            return self._convolution(index, node, name, layout)
        axis = 1 if attribute(node, "transB", 0) else 0
        if layout is Layout.SECOND or len(shape) != 2 or shape[axis] % self._group.width:
            raise _LeftAloneError
        if attribute(node, "transA", 0):
            raise _LeftAloneError
        self._group.reads.append(Read(name, Cut(index, 1, axis, layout)))
        return None

    def _convolution(self, index: int, node: Any, name: str, layout: Layout) -> _On:
        if layout is not Layout.SECOND:
            raise _LeftAloneError
        if attribute(node, "group", 1) == 1:
            axis = 1 if node.op_type == "Conv" else 0
            self._group.reads.append(Read(name, Cut(index, 1, axis), convolves=True))
            return None
        # One filter for each channel: it goes with it.
        if node.op_type != "Conv" or (self._graph.shape(node.input[1]) or ())[:2] != (self._group.width, 1):
            raise _LeftAloneError
        self._cut_all(index, node, [place for place in range(1, len(node.input)) if node.input[place]])
        self._group.depthwise.append(index)
        return node.output[0], layout

    def _pair(self, index: int, node: Any, tensor: str, layout: Layout) -> None:
        for place, name in enumerate(node.input):
            shape = self._graph.shape(name)
            if shape is None:
                self._met.append(name)
                continue
            # Shapes are aligned at their ends.
            axis = len(shape) - (self._graph.rank(tensor) - 1 if layout is Layout.SECOND else 1)
            if axis < 0 or shape[axis] == 1:
                continue
            if shape[axis] % self._group.width:
                raise _LeftAloneError
            self._group.cuts.append(Cut(index, place, axis, Layout.LAST if layout is Layout.SECOND else layout))

    def _moved(self, index: int, node: Any, name: str, layout: Layout) -> Layout:
        """Where the units are after a node that moves numbers, or adds up those of each unit."""
        rank = self._graph.rank(name)
        pixels = list(range(2, rank))
        if node.op_type == "Transpose":
            order = list(attribute(node, "perm", ()))
            if layout is Layout.SECOND and order == [0, *pixels, 1]:
                return Layout.LAST
            if layout is Layout.LAST and order == [0, rank - 1, *range(1, rank - 1)]:
                return Layout.SECOND
        elif node.op_type in _OVER_PIXELS and layout is Layout.SECOND and self._axes(node, rank) == pixels:
            return Layout.SECOND if attribute(node, "keepdims", 1) else Layout.LAST
        elif rank > 2 and self._flattens(index, node, rank):
            return Layout.BLOCKS if layout is Layout.SECOND else Layout.TURNS
        raise _LeftAloneError

    def _flattens(self, index: int, node: Any, rank: int) -> bool:
        if node.op_type == "Flatten":
            return bool(attribute(node, "axis", 1) == 1)
        if node.op_type == "Squeeze":
            return self._axes(node, rank) == list(range(2, rank))
        if node.op_type != "Reshape":
            return False
        shape = self._graph.numbers(node.input[1])
        self._group.reshapes.append(index)
        return len(shape) == 2 and shape[0] in (0, -1)

    def _axes(self, node: Any, rank: int) -> list[int]:
        given: Sequence[int] = attribute(node, "axes", ())
        if len(node.input) > 1:
            given = self._graph.numbers(node.input[1])
        return sorted(axis % rank for axis in given)

    def _cut_all(self, index: int, node: Any, places: Sequence[int]) -> None:
        if any(node.input[place] not in self._graph.known for place in places):
            raise _LeftAloneError
        self._group.cuts += [Cut(index, place, 0) for place in places]
