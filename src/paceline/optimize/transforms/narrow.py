"""How are units taken out of a graph, once it is known which? All that belongs to them is cut, and nothing else.

Rules:
- A constant that others read as well stays for them: each place gets one of its own.
- Shapes that were inferred before are forgotten. Inputs and outputs of the model stay as they are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from paceline.optimize.transforms.importance import Choice, Place
from paceline.optimize.transforms.units import Cut, Group


class Narrower:
    """A copy of a model, whose groups are cut one after the other, in the graph's order."""

    def __init__(self, model: Any) -> None:
        import onnx

        self._model = onnx.ModelProto()
        self._model.CopyFrom(model)
        self._arrays: dict[Place, NDArray[np.generic]] = {}

    def apply(self, group: Group, choice: Choice) -> None:
        """Cut one group."""
        for cut in [*group.cuts, *(read.cut for read in group.reads)]:
            place = (cut.node, cut.input)
            if place not in choice.constants:
                self._arrays[place] = self._cut(cut, group.width, choice)
        self._arrays.update(choice.constants)
        nodes = self._model.graph.node
        for index in group.depthwise:
            next(each for each in nodes[index].attribute if each.name == "group").i = len(choice.kept)
        for index in group.reshapes:
            # The batch as it comes, and all that is left of each row.
            self._arrays[index, 1] = np.array([0, -1], np.int64)

    def finished(self) -> Any:
        """The model, with its new constants and without those that nobody reads any more."""
        import onnx
        from onnx import numpy_helper

        graph = self._model.graph
        for (index, position), array in self._arrays.items():
            node = graph.node[index]
            name = f"{node.name}_{position}_narrow"
            node.input[position] = name
            graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        read = {name for node in graph.node for name in node.input} | {each.name for each in graph.output}
        kept = [each for each in graph.initializer if each.name in read or _has_graphs(graph)]
        del graph.initializer[:]
        graph.initializer.extend(kept)
        del graph.value_info[:]
        onnx.checker.check_model(self._model)
        return self._model

    def _cut(self, cut: Cut, width: int, choice: Choice) -> NDArray[np.generic]:
        array = self._array((cut.node, cut.input))
        return array.take(cut.numbers(choice.kept, width, array.shape[cut.axis]), axis=cut.axis)

    def _array(self, place: Place) -> NDArray[np.generic]:
        from onnx import numpy_helper

        if place in self._arrays:
            return self._arrays[place]
        name = self._model.graph.node[place[0]].input[place[1]]
        return numpy_helper.to_array(next(each for each in self._model.graph.initializer if each.name == name))


def _has_graphs(graph: Any) -> bool:
    """Graphs inside of nodes may read any constant."""
    return any(each.HasField("g") or each.graphs for node in graph.node for each in node.attribute)
