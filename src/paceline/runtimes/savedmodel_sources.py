"""Does a SavedModel fill its tables, and restore its weights, from files of its own? TensorFlow is not needed.

Rules:
- The name of such a file is followed back through the graph. It has to come from a node that the loader sets to the
  path of an asset, or of the weights. A constant, or what a request says, is refused.
- The loader sets these nodes while it initializes the model, or restores it: so that is when they may be used.
- On its way a name may pass a variable, as TensorFlow writes it, if nothing else writes text into any variable: which
  of them a handle stands for, the graph does not have to tell.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from paceline.runtimes.savedmodel_rules import RESTORES, Graph, Node, Placed, reached

_FILLS_TABLE: Final = ("InitializeTableFromTextFile", "InitializeTableFromTextFileV2")
_FILE_OF_TABLE: Final = 1  # among the inputs
_FILE_OF_WEIGHTS: Final = 0
_SET_BY_LOADER: Final = ("Const", "Placeholder", "PlaceholderWithDefault")
_CALLS: Final = ("PartitionedCall", "StatefulPartitionedCall")
_READS_VARIABLE: Final = "ReadVariableOp"
_WRITES_VARIABLE: Final = "AssignVariableOp"
_VALUE: Final = 1

WRITES_VARIABLES: Final = frozenset(
    {
        _WRITES_VARIABLE,
        "AssignVariableXlaConcatND",
        "ResourceScatterNdUpdate",
        "ResourceScatterUpdate",
        "ResourceStridedSliceAssign",
    }
)
"""Operators that write text into variables, if they are told to."""


def wrong_sources(graph: Graph) -> list[str]:
    """What it does with files that are not its own, in words."""
    found = []
    if not _fills_from_assets(graph):
        found.append("it fills a table from a file that is none of its assets")
    restores = [each for each in reached(graph, graph.restored) if each.node.operator in RESTORES]
    if restores and not _Trace(graph, graph.weights).all_from([(each, _FILE_OF_WEIGHTS) for each in restores]):
        found.append("it restores weights from a file that is none of its own")
    return found


def _fills_from_assets(graph: Graph) -> bool:
    fills = [each for each in graph.all_nodes() if each.node.operator in _FILLS_TABLE]
    if not fills:
        return True
    at_other_times = reached(graph, {*graph.run, *graph.restored})
    if any(node.operator in _FILLS_TABLE or _writes_text(node) for _, node in at_other_times):
        return False
    return _Trace(graph, graph.assets).all_from([(each, _FILE_OF_TABLE) for each in fills])


def _writes_text(node: Node) -> bool:
    return node.is_text and node.operator in WRITES_VARIABLES


class _Trace:
    """Follows tensors back to where they come from.

    Args:
        sources: nodes of the graph from which they should.
    """

    def __init__(self, graph: Graph, sources: Collection[str]) -> None:
        self._graph = graph
        self._sources = sources
        self._nodes: dict[tuple[str | None, str], Node] = {}
        self._callers: dict[str, list[Placed]] = {}
        self._writers: list[Placed] = []
        for each in graph.all_nodes():
            self._nodes[each.function, each.node.name] = each.node
            for name in {each.node.operator, *each.node.calls} & graph.functions.keys():
                self._callers.setdefault(name, []).append(each)
            if _writes_text(each.node):
                self._writers.append(each)

    def all_from(self, tensors: list[tuple[Placed, int]]) -> bool:
        """True when they come from the sources; each is a node and the place of one of its inputs."""
        waiting = list(tensors)
        seen: set[tuple[str | None, str, int]] = set()
        while waiting:
            (function, node), place = waiting.pop()
            if (function, node.name, place) in seen:
                continue
            seen.add((function, node.name, place))
            before = self._before(function, node, place)
            if before is None:
                return False
            waiting += before
        return True

    def _before(self, function: str | None, node: Node, place: int) -> list[tuple[Placed, int]] | None:
        """Where the tensor is one step earlier; None: it comes from elsewhere."""
        name = node.inputs[place] if place < len(node.inputs) else ""
        if function is not None and name in self._graph.arguments.get(function, ()):
            return self._given(function, self._graph.arguments[function].index(name))
        found = self._nodes.get((function, name))
        if found is None:
            return None
        if function is None and name in self._sources and found.operator in _SET_BY_LOADER:
            return []
        if found.operator == "Identity":
            return [(Placed(function, found), 0)]
        if found.operator == _READS_VARIABLE and all(each.node.operator == _WRITES_VARIABLE for each in self._writers):
            return [(each, _VALUE) for each in self._writers]
        return None

    def _given(self, function: str, place: int) -> list[tuple[Placed, int]] | None:
        """What callers give for an argument."""
        if function in self._graph.called and not self._is_bound(function, place):
            return None
        callers = self._callers.get(function, [])
        if any(each.node.operator not in (*_CALLS, function) for each in callers):
            return None
        return [(each, place) for each in callers]

    def _is_bound(self, function: str, place: int) -> bool:
        bound = self._graph.bound.get(function, ())
        from_end = len(self._graph.arguments[function]) - place
        return from_end <= len(bound) and bound[-from_end]
