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
from paceline.optimize.transforms.onnx_graph import add_constant, array_of, copy, drop_unread
from paceline.optimize.transforms.units import Cut, Group


class Narrower:
    """A copy of a model, whose groups are cut one after the other, in the graph's order."""

    def __init__(self, model: Any) -> None:
        self._model = copy(model)
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

        graph = self._model.graph
        for (index, position), array in self._arrays.items():
            node = graph.node[index]
            node.input[position] = add_constant(graph, array, f"{node.name}_{position}_narrow")
        drop_unread(graph)
        del graph.value_info[:]
        onnx.checker.check_model(self._model)
        return self._model

    def _cut(self, cut: Cut, width: int, choice: Choice) -> NDArray[np.generic]:
        array = self._array((cut.node, cut.input))
        return array.take(cut.numbers(choice.kept, width, array.shape[cut.axis]), axis=cut.axis)

    def _array(self, place: Place) -> NDArray[np.generic]:
        node, position = place
        kept = self._arrays.get(place)
        return array_of(self._model, self._model.graph.node[node].input[position]) if kept is None else kept
