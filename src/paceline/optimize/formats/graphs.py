"""How is an ONNX graph written, node by node?

A `Graph` is where nodes go: `OwnGraph` is a file of its own, and `sklearn.py` has one within what skl2onnx converts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

import numpy as np

from paceline.core.tensors import Array

OPSET: Final = 18
ML_OPSET: Final = 3
ML: Final = "ai.onnx.ml"
IR_VERSION: Final = 8  # what opset 18 came with


class Graph(Protocol):
    """Where nodes and constants go."""

    def node(self, kind: str, inputs: Sequence[str], *, domain: str = "", **attributes: Any) -> str:
        """Add a node; the name of its output."""

    def constant(self, array: Array) -> str:
        """Add a constant; its name."""


class Value(NamedTuple):
    """An input or output of a file.

    Attributes:
        kind: as numpy calls its type; `object` is text.
        shape: `None` for what is open.
    """

    name: str
    kind: str
    shape: tuple[int | None, ...]


class OwnGraph:
    """A graph that becomes a file."""

    def __init__(self) -> None:
        self._nodes: list[Any] = []
        self._constants: list[Any] = []
        self._opsets = {"": OPSET, ML: ML_OPSET}

    def node(self, kind: str, inputs: Sequence[str], *, domain: str = "", **attributes: Any) -> str:
        """See `Graph`."""
        from onnx import helper

        name = f"{kind}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, list(inputs), [name], name=name, domain=domain, **attributes))
        return name

    def constant(self, array: Array) -> str:
        """See `Graph`."""
        from onnx import numpy_helper

        name = f"constant_{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(as_onnx(array), name))
        return name

    def include(self, model: Any, inputs: Mapping[str, str]) -> list[str]:
        """Add another model's nodes.

        Args:
            inputs: of the other one, and what they are here.

        Returns:
            What its outputs are called here.
        """
        from onnx import compose, helper

        prefix = f"inner_{len(self._nodes)}_"
        inner = compose.add_prefix(model, prefix)
        for theirs, ours in inputs.items():
            self._nodes.append(helper.make_node("Identity", [ours], [prefix + theirs]))
        self._nodes += inner.graph.node
        self._constants += inner.graph.initializer
        self._opsets |= {each.domain: each.version for each in inner.opset_import}
        return [each.name for each in inner.graph.output]

    def model(self, inputs: Sequence[Value], outputs: Mapping[str, Value]) -> Any:
        """The whole, as a `ModelProto`.

        Args:
            outputs: by the name that a node gave them: what they are called in the file.
        """
        from onnx import helper

        nodes = list(self._nodes)
        for inner, value in outputs.items():
            nodes.append(helper.make_node("Identity", [inner], [value.name], name=f"out {value.name}"))
        graph = helper.make_graph(
            nodes, "model", list(map(_info, inputs)), list(map(_info, outputs.values())), self._constants
        )
        opsets = [helper.make_opsetid(domain, version) for domain, version in self._opsets.items()]
        return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="paceline")


def _info(value: Value) -> Any:
    from onnx import helper

    kind = helper.np_dtype_to_tensor_dtype(np.dtype(value.kind))
    shape = ["rows" if place == 0 and size is None else size for place, size in enumerate(value.shape)]
    return helper.make_tensor_value_info(value.name, kind, shape)


def joined_columns(graph: Graph, names: Sequence[str]) -> str:
    """One tensor of shape [rows, columns] of many of shape [rows].

    Laid end to end, reshaped and turned: three nodes for any number of columns.
    """
    flat = graph.node("Concat", names, axis=0)
    turned = graph.node("Reshape", [flat, graph.constant(np.array([len(names), -1], np.int64))])
    return graph.node("Transpose", [turned], perm=[1, 0])


def save(model: Any, path: Path) -> None:
    """Check a `ModelProto`, and write it."""
    import onnx

    onnx.checker.check_model(model)
    onnx.save(model, path)


def as_onnx(array: Array) -> Array:
    """As ONNX has it: text as objects."""
    array = np.asarray(array)
    return array.astype(object) if array.dtype.kind == "U" else array
