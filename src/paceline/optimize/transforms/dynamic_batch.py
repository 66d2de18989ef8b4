"""A model that takes one row: can it take many? Its batch dimension is opened, and the answers are compared.

Rules:
- Only a batch dimension of 1 is opened, and only that of all inputs and outputs.
- Whatever holds the 1 besides, holds it as a constant: the target of a reshape, the sizes of a resize, a token that is
  put in front of each row. These are rewritten; what else there may be shows in the comparison.
- The rewritten model must give each row, in batches of 1, 2 and 3, the answer that the original gives it alone.
  Otherwise the change is refused: a model that computes with its batch cannot be helped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from paceline.core.errors import CannotChange
from paceline.core.tensors import Array
from paceline.optimize.candidate import Made
from paceline.optimize.facts import fixed_batch
from paceline.optimize.rows import Rows
from paceline.optimize.transforms.onnx_files import load, save

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
    weights = {each.name for each in graph.initializer}
    given = [each for each in graph.input if each.name not in weights]
    for value in (*given, *graph.output):
        if value.type.tensor_type.shape.dim:
            value.type.tensor_type.shape.dim[0].dim_param = _BATCH
    # What was inferred for one row does not hold for more.
    del graph.value_info[:]
    rewriter = _Rewriter(graph, given[0].name)
    return {operator: rewriter.all_of(operator, change) for operator, change in rewriter.changes.items()}


class _Rewriter:
    """Finds the constants of a graph that hold its batch, and puts others in their place.

    Args:
        sample: name of an input, whose axis 0 is the batch.
    """

    def __init__(self, graph: Any, sample: str) -> None:
        self._graph = graph
        self._sample = sample
        self._batch = ""
        self._constants = _constants(graph)
        self._carries = _reached(graph, {each.name for each in graph.input} - {each.name for each in graph.initializer})
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
        node.input[1] = self._add(sizes, node)
        return True

    def _resize(self, node: Any) -> bool:
        sizes = self._constants.get(node.input[3]) if len(node.input) > 3 else None
        if sizes is None or sizes.size == 0 or sizes[0] != 1:
            return False
        node.input[3] = self._with_batch(sizes, node)
        return True

    def _concat(self, node: Any) -> bool:
        """Repeat, for each row, a constant that is joined to the rows along another axis."""
        axis = next(each.i for each in node.attribute if each.name == "axis")
        lone = [
            (place, self._constants[name])
            for place, name in enumerate(node.input)
            if name in self._constants and self._constants[name].ndim > 1 and self._constants[name].shape[0] == 1
        ]
        if axis == 0 or not lone:
            return False
        for place, constant in lone:
            shape = self._with_batch(np.array(constant.shape, np.int64), node)
            node.input[place] = self._insert("Expand", [node.input[place], shape], node)
        return True

    def _with_batch(self, sizes: Array, before: Any) -> str:
        """A shape whose first size is the batch, and whose others are these."""
        if not self._batch:
            shape = self._insert("Shape", [self._sample], self._graph.node[0])
            first = self._add(np.array([0], np.int64), before)
            self._batch = self._insert("Gather", [shape, first], self._graph.node[1], axis=0)
        return self._insert("Concat", [self._batch, self._add(sizes[1:], before)], before, axis=0)

    def _insert(self, operator: str, inputs: list[str], before: Any, **attributes: Any) -> str:
        """Add a node in front of another; the name of its output."""
        from onnx import helper

        output = self._fresh(operator)
        place = next(place for place, node in enumerate(self._graph.node) if node.output[0] == before.output[0])
        self._graph.node.insert(place, helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    def _add(self, values: Array, node: Any) -> str:
        """Add a constant; its name."""
        from onnx import numpy_helper

        name = self._fresh(f"{node.op_type}_sizes")
        self._graph.initializer.append(numpy_helper.from_array(values.astype(np.int64), name))
        return name

    def _fresh(self, stem: str) -> str:
        taken = {each.name for each in self._graph.initializer}
        taken |= {name for node in self._graph.node for name in node.output}
        return next(
            name for name in (f"{stem}_of_batch_{place}" for place in range(len(taken) + 1)) if name not in taken
        )


def _constants(graph: Any) -> dict[str, Array]:
    """Small constants by name: initializers, and what `Constant` nodes put out."""
    from onnx import numpy_helper

    found = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            found[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
        elif node.op_type == "Constant" and node.attribute[0].name == "value_ints":
            found[node.output[0]] = np.array(node.attribute[0].ints, np.int64)
    return found


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
        CannotChange: the answers differ, or there are none.
    """
    few = {name: array[: max(_BATCHES)] for name, array in rows.inputs.items()}
    if rows.count < max(_BATCHES):
        raise CannotChange(f"{max(_BATCHES)} rows are needed to compare, got {rows.count}")
    alone, together = _runner(before), _runner(after)
    singles = [alone({name: array[place : place + 1] for name, array in few.items()}) for place in range(max(_BATCHES))]
    for size in _BATCHES:
        answers = together({name: array[:size] for name, array in few.items()})
        for name, answer in answers.items():
            _require_equal(name, answer, np.concatenate([single[name] for single in singles[:size]]))


def _runner(path: Path) -> Callable[[Mapping[str, Array]], dict[str, Array]]:
    """Runs a model: inputs by name -> outputs by name."""
    from paceline.runtimes.base import load as load_model

    try:
        loaded = load_model(path)
        instance = loaded.instances(1, 1)[0]
    except Exception as error:
        raise CannotChange(f"with an open batch dimension it cannot be loaded: {error}") from error
    signature = loaded.signature

    def run(inputs: Mapping[str, Array]) -> dict[str, Array]:
        arrays = tuple(
            np.ascontiguousarray(inputs[spec.name].astype(spec.datatype.dtype, copy=False)) for spec in signature.inputs
        )
        try:
            outputs = instance.run(arrays)
        except Exception as error:
            count = len(arrays[0])
            raise CannotChange(
                f"{count} rows do not run together: {getattr(error, 'detail', None) or error}"
            ) from error
        return {spec.name: output for spec, output in zip(signature.outputs, outputs, strict=True)}

    return run


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
