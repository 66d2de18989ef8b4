"""A model that takes one row: can it take many? Its batch dimension is opened, and the answers are compared.

Rules:
- Only a batch dimension of 1 is opened, and only that of all inputs and outputs.
- Whatever holds the 1 besides, holds it as a constant: the target of a reshape, the sizes of a resize, a token that is
  put in front of each row. These are rewritten; what else there may be shows in the comparison.
- The rewritten model must give each row, in batches of 1, 2 and 3 rows that differ, the answer that the original gives
  it alone. Otherwise the change is refused: a model that computes with its batch cannot be helped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from paceline.core.errors import CannotChange, ModelFailed, ModelLoadError
from paceline.core.tensors import Array
from paceline.optimize.asking import answers, as_taken
from paceline.optimize.candidate import Made
from paceline.optimize.data.rows import Rows
from paceline.optimize.search.facts import fixed_batch
from paceline.optimize.transforms.onnx_files import load, save
from paceline.optimize.transforms.onnx_graph import add_constant, attribute, constants, fresh_name, inputs
from paceline.runtimes.base import load as load_model

_BATCH: Final = "batch"
_BATCHES: Final = (1, 2, 3)
# Sums run in another order when rows run together.
_RELATIVE: Final = 1e-4
_ABSOLUTE: Final = 1e-5


def opened(*, model: Path, rows: Path, folder: Path) -> Made:
    """Open the batch dimension.

    Raises:
        CannotChange: it is open, is not 1, or rows do not run together as they do apart.
    """
    graph = load(model)
    size = fixed_batch(graph.graph)
    if size != 1:
        raise CannotChange("the batch dimension is not fixed" if size is None else f"the batch is fixed at {size}")
    rewritten = _open(graph)
    file = save(graph, folder)
    _compare(model, folder / file, Rows.load(rows))
    notes = [f"{count} {name} rewritten" for name, count in rewritten.items() if count]
    return Made(file=file, notes=["batch dimension opened: rows in batches of 1, 2 and 3 answer as alone", *notes])


def _open(model: Any) -> dict[str, int]:
    """Rewrite a model in place; how many nodes of which operators were changed."""
    graph = model.graph
    for value in (*inputs(graph), *graph.output):
        if value.type.tensor_type.shape.dim:
            value.type.tensor_type.shape.dim[0].dim_param = _BATCH
    # What was inferred for one row does not hold for more.
    del graph.value_info[:]
    rewriter = _Rewriter(model)
    return {operator: rewriter.all_of(operator, change) for operator, change in rewriter.changes.items()}


class _Rewriter:
    """Finds the constants of a model that hold its batch, and puts others in their place."""

    def __init__(self, model: Any) -> None:
        from onnx import numpy_helper

        self._graph = model.graph
        self._batch = ""
        self._constants = {name: numpy_helper.to_array(tensor) for name, tensor in constants(model).items()}
        self._given = [each.name for each in inputs(model.graph)]
        self._carries = _reached(model.graph, set(self._given))
        self.changes: Mapping[str, Callable[[Any], bool]] = {
            "Reshape": self._reshape,
            "Resize": self._resize,
            "Concat": self._concat,
        }

    def all_of(self, operator: str, change: Callable[[Any], bool]) -> int:
        """Change the nodes of an operator that depend on the inputs; how many were."""
        nodes = [node for node in self._graph.node if node.op_type == operator and self._depends(node)]
        return sum(change(node) for node in nodes)

    def _depends(self, node: Any) -> bool:
        return any(name in self._carries for name in node.input)

    def _reshape(self, node: Any) -> bool:
        target = self._constants.get(node.input[1])
        if target is None or target.size == 0 or target[0] in (0, -1):
            return False
        sizes = target.copy()
        if (sizes == -1).any():
            if sizes[0] != 1:
                return False
            sizes[0] = 0  # as in the input
        else:
            sizes[0] = -1  # all that is left: also where rows were merged with what follows them
        node.input[1] = self._add(sizes)
        return True

    def _resize(self, node: Any) -> bool:
        sizes = self._constants.get(node.input[3]) if len(node.input) > 3 else None
        if sizes is None or sizes.size == 0 or sizes[0] != 1:
            return False
        node.input[3] = self._with_batch(sizes, node)
        return True

    def _concat(self, node: Any) -> bool:
        """Repeat, for each row, a constant that is joined to the rows along another axis."""
        lone = [
            (place, self._constants[name])
            for place, name in enumerate(node.input)
            if name in self._constants and self._constants[name].ndim > 1 and self._constants[name].shape[0] == 1
        ]
        if attribute(node, "axis", 0) == 0 or not lone:
            return False
        for place, constant in lone:
            shape = self._with_batch(np.array(constant.shape, np.int64), node)
            node.input[place] = self._insert("Expand", [node.input[place], shape], node)
        return True

    def _with_batch(self, sizes: Array, before: Any) -> str:
        """A shape whose first size is the batch, and whose others are these."""
        if not self._batch:
            shape = self._insert("Shape", [self._given[0]], self._graph.node[0])
            first = self._add(np.array([0], np.int64))
            self._batch = self._insert("Gather", [shape, first], self._graph.node[1], axis=0)
        return self._insert("Concat", [self._batch, self._add(sizes[1:])], before, axis=0)

    def _insert(self, operator: str, inputs: list[str], before: Any, **attributes: Any) -> str:
        """Add a node in front of another; the name of its output."""
        from onnx import helper

        output = fresh_name(self._graph, f"{operator}_of_batch")
        place = next(place for place, node in enumerate(self._graph.node) if node.output[0] == before.output[0])
        self._graph.node.insert(place, helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    def _add(self, sizes: Array) -> str:
        return add_constant(self._graph, sizes.astype(np.int64), "sizes_of_batch")


def _reached(graph: Any, names: set[str]) -> set[str]:
    """All values that depend on these."""
    reached = set(names)
    for node in graph.node:
        if reached.intersection(node.input):
            reached.update(node.output)
    return reached


def _compare(before: Path, after: Path, rows: Rows) -> None:
    """Run both on real rows.

    Raises:
        CannotChange: the answers differ, or the rows prove nothing.
    """
    alone = load_model(before)
    few = _that_differ(as_taken(rows, alone.signature))
    wanted = answers(alone, few)
    try:
        together = load_model(after)
    except ModelLoadError as error:
        raise CannotChange(f"with an open batch dimension it is no model: {error.message}") from error
    for size in _BATCHES:
        try:
            got = answers(together, few, size)
        except ModelFailed as error:
            raise CannotChange(f"{size} rows do not run together: {error.detail}") from error
        for name, answer in got.items():
            _require_equal(name, answer, wanted[name])


def _that_differ(rows: Rows) -> Rows:
    """The first three rows that are not the same; of two, the first one once more.

    Equal rows would hide that they influence one another: the mean over a batch of them is each of them.
    """
    found: dict[tuple[bytes, ...], int] = {}
    for place in range(rows.count):
        found.setdefault(tuple(_bytes(array[place]) for array in rows.inputs.values()), place)
        if len(found) == max(_BATCHES):
            break
    if len(found) < 2:
        raise CannotChange("the rows are all the same: they cannot show whether rows influence one another")
    return rows.take(np.resize(np.array([*found.values()]), max(_BATCHES)))


def _bytes(array: Array) -> bytes:
    return repr(array.tolist()).encode() if array.dtype.hasobject else array.tobytes()


def _require_equal(name: str, got: Array, wanted: Array) -> None:
    if got.shape != wanted.shape:
        raise CannotChange(f"output '{name}' has shape {list(got.shape)} for {len(wanted)} rows")
    same = (
        np.allclose(got, wanted, rtol=_RELATIVE, atol=_ABSOLUTE, equal_nan=True)
        if wanted.dtype.kind == "f"
        else np.array_equal(got, wanted)
    )
    if not same:
        raise CannotChange(f"rows influence one another in output '{name}'")
