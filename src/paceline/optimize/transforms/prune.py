"""Does the model need all of its units? Hidden units and channels that matter least are taken out of it.

Rules:
- Structured: the layers become narrower, whatever runs them. A unit goes from everything that touches it at once.
- Where a product of matrices reads the units, it is fitted anew to those that are left; see `refit.py`. Channels that
  convolutions read are chosen by their weight in what follows.
- Unstructured: single weights become zero. No runtime here is faster for it, so no candidate is made of it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np

from paceline.config.processor import Processor
from paceline.core.errors import CannotChange
from paceline.optimize.candidate import Candidate, Change, Made
from paceline.optimize.data.rows import Rows
from paceline.optimize.search.facts import Facts
from paceline.optimize.transforms import calibrate
from paceline.optimize.transforms.channels import groups
from paceline.optimize.transforms.importance import Choice, by_reconstruction, by_size, can_be_refitted
from paceline.optimize.transforms.narrow import Narrower
from paceline.optimize.transforms.onnx_files import is_large, save
from paceline.optimize.transforms.onnx_graph import constants
from paceline.optimize.transforms.prepare import PRODUCTS, prepare, weighty_nodes
from paceline.optimize.transforms.units import Group

_MOST_ROWS: Final = 4096
_LEAST_UNITS: Final = 32
# Kernels work on whole vectors: 16 single-precision numbers with AVX-512.
_MULTIPLE: Final = 16
_PERCENT: Final = (25, 50, 75)


def structured(*, model: Path, rows: Path, folder: Path, ratio: float = 0.5, refit: bool = True) -> Made:
    """Take out a share of the units of each hidden layer.

    Args:
        ratio: of the units, to go; what stays is rounded to whole vectors.
        refit: fit the next layer's weights on the calibration rows where that can be; else they stay as they are.

    Raises:
        CannotChange: no layer's units can be followed to where they end.
    """
    graph = _loaded(model)
    found = [group for group in groups(graph) if _kept(group.width, ratio) < group.width]
    if not found:
        raise CannotChange("no hidden units that only the next layers read: to prune would change other results too")
    batches = calibrate.feeds(graph, Rows.load(rows), _MOST_ROWS)
    narrower = Narrower(graph)
    notes = []
    for group in found:
        choose = by_reconstruction if refit and can_be_refitted(graph, group) else by_size
        choice = choose(graph, group, batches, _kept(group.width, ratio))
        narrower.apply(group, choice)
        notes.append(_told(group, choice))
    return Made(file=save(narrower.finished(), folder), notes=notes)


def unstructured(*, model: Path, rows: Path, folder: Path, sparsity: float = 0.8) -> Made:  # noqa: ARG001
    """Set the smallest weights of each layer to zero; for runtimes that skip zeros.

    Args:
        sparsity: share of the weights.

    Raises:
        CannotChange: there are no constant weights.
    """
    from onnx import numpy_helper

    graph = _loaded(model)
    known, weighty = constants(graph), set(weighty_nodes(graph))
    if not weighty:
        raise CannotChange("no operator multiplies with constant weights")
    for name in {node.input[1] for node in graph.graph.node if node.name in weighty}:
        array = numpy_helper.to_array(known[name]).copy()
        array[np.abs(array) < np.quantile(np.abs(array), sparsity)] = 0
        known[name].CopyFrom(numpy_helper.from_array(array, name))
    return Made(file=save(graph, folder), notes=[f"{sparsity:.0%} of the weights of {len(weighty)} layers are zero"])


def candidates(facts: Facts, processor: Processor) -> list[Candidate]:  # noqa: ARG001  # as all of them are asked
    """A quarter, a half, three quarters of the units, each only when the one before it passed."""
    if sum(facts.operators.get(kind, 0) for kind in PRODUCTS) < 2:
        return []
    return [
        Candidate(
            name=f"pruned-{percent}",
            title=f"{percent} % of the hidden units taken out",
            needs="layers that only the next layers read",
            changes=(Change(call="prune:structured", arguments={"ratio": percent / 100}),),
            after=f"pruned-{_PERCENT[place - 1]}" if place else None,
        )
        for place, percent in enumerate(_PERCENT)
    ]


def _loaded(model: Path) -> Any:
    prepared = prepare(model)
    if is_large(prepared):
        raise CannotChange("the model is too large to be pruned: its weights do not fit into one file")
    return prepared


def _kept(width: int, ratio: float) -> int:
    if width < _LEAST_UNITS:
        return width
    return max(_MULTIPLE, round(width * (1 - ratio) / _MULTIPLE) * _MULTIPLE)


def _told(group: Group, choice: Choice) -> str:
    fitted = ", and the next layer fitted anew" if choice.constants else ""
    return f"{group.name}: {len(choice.kept)} of {group.width} units stay{fitted}"
