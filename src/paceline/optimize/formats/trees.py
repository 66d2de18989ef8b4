"""How do boosted trees become ONNX? Any that treelite reads: of XGBoost, of LightGBM, histograms of scikit-learn.

Rules:
- Thresholds and leaves keep the precision that the library has: single for XGBoost, double for the others. So features
  are compared exactly as the library compares them.
- Missing values go where the library sends them. A set of categories becomes a chain of comparisons.
- What a model has that ONNX has not is refused, by name.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from paceline.core.errors import CannotChange
from paceline.core.tensors import Array
from paceline.optimize.formats.graphs import ML, Graph

_LEAF, _NUMBER, _CATEGORIES = 0, 1, 2  # treelite's kinds of nodes
_COMPARISONS: Final = {1: "BRANCH_EQ", 2: "BRANCH_LT", 3: "BRANCH_LEQ", 4: "BRANCH_GT", 5: "BRANCH_GTE"}
_POSTPROCESSORS: Final = {
    "identity": "NONE",
    "identity_multiclass": "NONE",
    "sigmoid": "NONE",  # ONNX Runtime 1.31 leaves a single target as it is, whatever it is told
    "multiclass_ova": "NONE",
    "softmax": "SOFTMAX",
    "exponential": "NONE",
    "hinge": "NONE",
    "logarithm_one_plus_exp": "NONE",
    "signed_square": "NONE",
}
"""What the operator does to the sums; the rest is done by nodes behind it: see `_behind`."""


@dataclass(frozen=True)
class _Node:
    """A row of the operator's attributes."""

    place: int
    feature: int
    mode: str
    value: float
    if_true: int = 0
    if_false: int = 0
    missing_is_true: bool = False


class Ensemble:
    """Trees as treelite has read them.

    Attributes:
        type: of thresholds and leaves, and so of the features: `float32` or `float64`.
        outputs: how many numbers it gives for a row.
    """

    def __init__(self, model: Any) -> None:
        head = model.get_header_accessor()
        self.type = np.dtype(model.input_type)
        self._post: str = head.get_field("postprocessor")
        if self._post not in _POSTPROCESSORS:
            raise CannotChange(f"its predictions end with '{self._post}', which is not known how to write in ONNX")
        self._alpha = float(head.get_field("sigmoid_alpha")[0]) if "sigmoid" in self._post or "ova" in self._post else 1
        self._classes = int(head.get_field("num_class").max())
        self.outputs = int(head.get_field("num_target")[0]) * self._classes
        self._base = np.resize(head.get_field("base_scores").astype(np.float64), self.outputs)
        self._leaf_shape = tuple(map(int, head.get_field("leaf_vector_shape")))
        self._targets, self._of_class = head.get_field("target_id"), head.get_field("class_id")
        self._trees = [model.get_tree_accessor(index) for index in range(model.num_tree)]
        self._averages = bool(head.get_field("average_tree_output")[0])

    def write(self, graph: Graph, rows: str) -> str:
        """Add nodes that predict.

        Args:
            rows: a tensor of shape [rows, features], of `type`.

        Returns:
            A tensor of shape [rows, outputs], FP32: probabilities, where the objective says so.
        """
        sums = graph.node("TreeEnsembleRegressor", [rows], domain=ML, **self._attributes())
        return _behind(graph, sums, self._post)

    def _attributes(self) -> dict[str, Any]:
        nodes: list[tuple[int, _Node]] = []
        leaves: list[tuple[int, int, int, float]] = []
        for index, tree in enumerate(self._trees):
            nodes += [(index, node) for node in _nodes(tree)]
            leaves += [(index, *leaf) for leaf in self._leaves(index, tree)]
        return {
            "n_targets": self.outputs,
            "aggregate_function": "SUM",
            "post_transform": _POSTPROCESSORS[self._post],
            **_columns(nodes),
            **self._numbers("nodes_values", [node.value for _, node in nodes]),
            "target_treeids": [leaf[0] for leaf in leaves],
            "target_nodeids": [leaf[1] for leaf in leaves],
            "target_ids": [leaf[2] for leaf in leaves],
            **self._numbers("target_weights", self._weights(leaves)),
            **self._numbers("base_values", (self._base * self._alpha).tolist()),
        }

    def _leaves(self, index: int, tree: Any) -> Iterator[tuple[int, int, float]]:
        """Node, output and value of each."""
        kinds = tree.get_field("node_type")
        values, vectors = tree.get_field("leaf_value"), tree.get_field("leaf_vector")
        begins = tree.get_field("leaf_vector_begin")
        places = self._places(index)
        for node in np.flatnonzero(kinds == _LEAF).tolist():
            if vectors.size:
                begin = int(begins[node])
                several = vectors[begin : begin + places.size].tolist()
            else:
                several = [float(values[node])]
            for place, value in zip(places.tolist(), several, strict=True):
                yield node, place, value

    def _places(self, index: int) -> NDArray[np.int64]:
        """The outputs that a tree adds to, in the order of its leaves' values."""
        target, of_class = int(self._targets[index]), int(self._of_class[index])
        every = np.arange(self.outputs).reshape(-1, self._classes)
        chosen = every if target < 0 else every[[target]]
        return (chosen if of_class < 0 else chosen[:, [of_class]]).reshape(-1)

    def _weights(self, leaves: list[tuple[int, int, int, float]]) -> list[float]:
        weights = np.array([leaf[3] for leaf in leaves], np.float64) * self._alpha
        if self._averages:
            trees = np.bincount(
                np.concatenate([self._places(index) for index in range(len(self._trees))]), minlength=self.outputs
            )
            weights /= trees[[leaf[2] for leaf in leaves]]
        numbers: list[float] = weights.tolist()
        return numbers

    def _numbers(self, name: str, values: list[float]) -> dict[str, Any]:
        """Doubles have attributes of their own."""
        if self.type == np.float32:
            return {name: values}
        from onnx import numpy_helper

        return {f"{name}_as_tensor": numpy_helper.from_array(np.array(values, np.float64), name)}


def _nodes(tree: Any) -> Iterator[_Node]:
    """The nodes of a tree; chains of comparisons get places behind those that it has."""
    fields = {
        name: tree.get_field(name).tolist()
        for name in ("node_type", "split_index", "cleft", "cright", "default_left", "cmp", "threshold")
    }
    free = len(fields["node_type"])
    for place, kind in enumerate(fields["node_type"]):
        if kind == _LEAF:
            yield _Node(place, 0, "LEAF", 0.0)
            continue
        feature, left, right = (fields[name][place] for name in ("split_index", "cleft", "cright"))
        if kind == _NUMBER:
            mode = _COMPARISONS[fields["cmp"][place]]
            missing = bool(fields["default_left"][place])
            yield _Node(place, feature, mode, fields["threshold"][place], left, right, missing)
            continue
        chain = list(_chain(tree, place, free, feature, (left, right), bool(fields["default_left"][place])))
        free += len(chain) - 1
        yield from chain


def _chain(
    tree: Any, place: int, free: int, feature: int, children: tuple[int, int], default_left: bool
) -> Iterator[_Node]:
    """Is the feature one of a set of categories? Compared with one after the other."""
    begin, end = (int(tree.get_field(f"category_list_{name}")[place]) for name in ("begin", "end"))
    members = [float(each) for each in tree.get_field("category_list")[begin:end]]
    members = members or [-1.0]  # of an empty set nothing is a member
    inside, outside = children
    missing_inside = default_left
    if tree.get_field("category_list_right_child")[place]:
        inside, outside, missing_inside = outside, inside, not default_left
    for index, member in enumerate(members):
        own = place if index == 0 else free + index - 1
        following = outside if index == len(members) - 1 else free + index
        yield _Node(own, feature, "BRANCH_EQ", member, inside, following, missing_inside and index == 0)


def _columns(nodes: list[tuple[int, _Node]]) -> dict[str, Any]:
    return {
        "nodes_treeids": [tree for tree, _ in nodes],
        "nodes_nodeids": [node.place for _, node in nodes],
        "nodes_featureids": [node.feature for _, node in nodes],
        "nodes_modes": [node.mode for _, node in nodes],
        "nodes_truenodeids": [node.if_true for _, node in nodes],
        "nodes_falsenodeids": [node.if_false for _, node in nodes],
        "nodes_missing_value_tracks_true": [int(node.missing_is_true) for _, node in nodes],
    }


def _behind(graph: Graph, sums: str, post: str) -> str:
    """What the operator itself cannot do to the sums."""
    if post in ("sigmoid", "multiclass_ova"):
        return graph.node("Sigmoid", [sums])
    if post == "exponential":
        return graph.node("Exp", [sums])
    if post == "logarithm_one_plus_exp":
        return graph.node("Softplus", [sums])
    if post == "signed_square":
        return graph.node("Mul", [sums, graph.node("Abs", [sums])])
    if post == "hinge":
        return graph.node(
            "Cast", [graph.node("Greater", [sums, graph.constant(np.array(0, np.float32))])], to=1
        )  # 1: FP32
    return sums


def write_classes(graph: Graph, scores: str, count: int, classes: Array) -> tuple[str, str]:
    """Add nodes that make labels and probabilities of scores.

    Args:
        scores: of shape [rows, `count`]; one score is that of the second of two classes.
        classes: labels, as the service gives them.

    Returns:
        The labels, of shape [rows]; the probabilities, of shape [rows, classes].
    """
    if count == 1:
        first = graph.node("Sub", [graph.constant(np.array(1, np.float32)), scores])
        scores = graph.node("Concat", [first, scores], axis=1)
    return write_likeliest(graph, scores, classes), scores


def write_likeliest(graph: Graph, scores: str, classes: Array) -> str:
    """Add nodes that choose the class with the highest score, the first of equal ones; labels, of shape [rows]."""
    best = graph.node("ArgMax", [scores], axis=1, keepdims=0)
    if classes.dtype == np.int64 and classes.tolist() == list(range(len(classes))):
        return best
    return graph.node("Gather", [graph.constant(classes), best], axis=0)
