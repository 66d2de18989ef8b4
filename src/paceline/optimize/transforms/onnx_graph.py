"""What is asked of an ONNX graph over and over, or done to it? Its constants, its names, who reads what.

Models, graphs, nodes and tensors are ONNX's own messages.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from paceline.core.tensors import Array
from paceline.optimize.search.facts import graphs


def copy(model: Any) -> Any:
    """Another model that is equal."""
    import onnx

    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    return copied


def inputs(graph: Any) -> list[Any]:
    """What has to be given: the inputs that have no default."""
    defaults = {each.name for each in graph.initializer}
    return [each for each in graph.input if each.name not in defaults]


def constants(model: Any) -> dict[str, Any]:
    """Tensors that no caller can replace, by name: initializers, and what `Constant` nodes put out."""
    from onnx import numpy_helper

    given = {each.name for each in model.graph.input}
    found = {each.name: each for each in model.graph.initializer if each.name not in given}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            found[node.output[0]] = node.attribute[0].t
        elif node.op_type == "Constant" and node.attribute[0].name == "value_ints":
            found[node.output[0]] = numpy_helper.from_array(np.array(node.attribute[0].ints, np.int64))
    return found


def array_of(model: Any, name: str) -> Array:
    """The numbers of a constant."""
    from onnx import numpy_helper

    array: Array = numpy_helper.to_array(constants(model)[name])
    return array


def attribute(node: Any, name: str, default: Any) -> Any:
    """The value of an attribute, or what holds where it is left out."""
    from onnx import helper

    return next((helper.get_attribute_value(each) for each in node.attribute if each.name == name), default)


def readers(nodes: Sequence[Any]) -> dict[str, list[int]]:
    """By tensor: the places of the nodes that read it, once for each time that they do."""
    found: dict[str, list[int]] = {}
    for place, node in enumerate(nodes):
        for name in node.input:
            found.setdefault(name, []).append(place)
    return found


def seen(graph: Any) -> set[str]:
    """Tensors that the nodes of this graph read, or that it puts out; without the graphs within its nodes."""
    return {name for node in graph.node for name in node.input} | {each.name for each in graph.output}


def drop_unread(graph: Any) -> None:
    """Take out the initializers that nothing reads, nor a graph within a node."""
    read = set().union(*map(seen, graphs(graph)))
    kept = [each for each in graph.initializer if each.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def add_constant(graph: Any, array: Array, stem: str) -> str:
    """Add an initializer; its name, which begins with `stem`."""
    from onnx import numpy_helper

    name = fresh_name(graph, stem)
    graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
    return name


def fresh_name(graph: Any, stem: str) -> str:
    """A name for a tensor that there is not yet, also not within a node."""
    taken: set[str] = set()
    for each in graphs(graph):
        taken |= {named.name for named in (*each.initializer, *each.input)}
        taken |= {name for node in each.node for name in node.output}
    return next(name for name in (stem, *(f"{stem}_{place}" for place in range(len(taken)))) if name not in taken)


def name_nodes(model: Any) -> None:
    """Give each node a name of its own: the tools find nodes by name, and exporters leave names out."""
    taken: set[str] = set()
    for index, node in enumerate(model.graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}_{index}"
        while node.name in taken:
            node.name += "_"
        taken.add(node.name)
