"""Which few operators spoil the 8-bit model? They are found one by one, and stay in float.

Rules:
- An operator's share of the error is measured, not guessed: the model with that operator alone in 8 bits.
- The worst are restored first, until the error is small enough. Errors of single operators add up as noise does, by
  their squares; so it is foreseen how many that takes, and then measured.
- Each operator in float costs speed. When a given share of the weights is back in float, that has to do: the gate
  decides whether it does.

Source: sensitivity analysis as in Wu et al., "Integer Quantization for Deep Learning Inference" (2020), section 5.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, Final

import numpy as np

from paceline.core.errors import CannotChange
from paceline.core.tensors import Array
from paceline.optimize.candidate import Made
from paceline.optimize.data.rows import Rows
from paceline.optimize.search.facts import size_bytes
from paceline.optimize.transforms import calibrate, qdq
from paceline.optimize.transforms.calibrate import Method
from paceline.optimize.transforms.onnx_files import is_large, save
from paceline.optimize.transforms.onnx_graph import constants
from paceline.optimize.transforms.prepare import prepare, weighty_nodes
from paceline.optimize.transforms.qdq import Scheme
from paceline.optimize.transforms.quantize import notes

_CALIBRATION_ROWS: Final = 512
_LOOKED_AT_ROWS: Final = 32
_MOST_UNITS: Final = 32
"""Each unit costs a quantization. In longer graphs, neighbours are looked at, and restored, together."""

Unit = tuple[str, ...]
ErrorWithout = Callable[[Collection[str]], float]


def mixed(
    *,
    model: Path,
    rows: Path,
    folder: Path,
    error: float = 0.01,
    most: float = 0.25,
    method: Method = "minmax",
    per_channel: bool = True,
    reduce_range: bool = False,
) -> Made:
    """Static 8 bits, with the worst operators left in float.

    Args:
        error: to reach: the difference of an output by the output, as Euclidean norms over calibration rows.
        most: share of the weights, by size, that may stay in float.

    Raises:
        CannotChange: 8 bits are good enough everywhere, or no operator is worse than the others; or it cannot be
            quantized at all.
    """
    graph = prepare(model)
    if is_large(graph):
        raise CannotChange("the model is too large to be looked at operator by operator")
    batches = calibrate.feeds(graph, Rows.load(rows), _CALIBRATION_ROWS)
    ranges = calibrate.ranges(graph, batches, method, qdq.operators(graph))
    scheme = Scheme(per_channel, reduce_range)
    looked_at = batches[: max(1, _LOOKED_AT_ROWS // len(next(iter(batches[0].values()))))]
    wanted = calibrate.answers(graph, looked_at)

    def error_without(floats: Collection[str]) -> float:
        return _relative_error(wanted, calibrate.answers(qdq.quantized(graph, ranges, scheme, floats), looked_at))

    floats, told = _worst(graph, error_without, error, most)
    quantized = qdq.quantized(graph, ranges, scheme, floats)
    said = [told, *notes(graph, quantized)]
    return Made(file=save(quantized, folder), notes=said)


def _worst(graph: Any, error_without: ErrorWithout, target: float, most: float) -> tuple[list[str], str]:
    """The nodes to leave in float, and what to say about it."""
    nodes = weighty_nodes(graph)
    if len(nodes) < 2:
        raise CannotChange("there are not two operators with weights, of which one could stay in float")
    whole = error_without(())
    if whole <= target:
        raise CannotChange(f"in 8 bits everywhere, outputs differ by {whole:.2%}: no operator has to stay in float")
    units = _units(nodes)
    shares = {unit: error_without(set(nodes) - set(unit)) for unit in units}
    ranked = _affordable(graph, sorted(units, key=lambda unit: -shares[unit]), most)
    if not ranked:
        raise CannotChange(f"no operator holds less than {most:.0%} of the weights: in float, nothing would be gained")
    count = min(len(ranked), _foreseen(sorted(shares.values(), reverse=True), target))
    reached = error_without(_joined(ranked[:count]))
    while reached > target and count < len(ranked):
        count += 1
        reached = error_without(_joined(ranked[:count]))
    floats = _joined(ranked[:count])
    return floats, f"left in float: {_shown(floats)}; outputs differ by {reached:.2%} instead of {whole:.2%}"


def _units(nodes: Sequence[str]) -> list[Unit]:
    size = -(-len(nodes) // _MOST_UNITS)
    return [tuple(nodes[start : start + size]) for start in range(0, len(nodes), size)]


def _affordable(graph: Any, ranked: Sequence[Unit], most: float) -> list[Unit]:
    """The worst units that together hold no more than that share of the weights."""
    known = constants(graph)
    sizes = {node.name: size_bytes(known[node.input[1]]) for node in graph.graph.node if _has(known, node)}
    whole = sum(sizes[name] for unit in ranked for name in unit)
    held = accumulate(sum(sizes[name] for name in unit) for unit in ranked)
    return [unit for unit, size in zip(ranked, held, strict=True) if size <= most * whole]


def _has(known: Mapping[str, Any], node: Any) -> bool:
    return len(node.input) > 1 and node.input[1] in known


def _foreseen(shares: Sequence[float], target: float) -> int:
    """How many of the worst must go, at least one, until the root of the squares that are left is below the target."""
    left = np.sqrt(np.cumsum(np.square(shares[::-1]))[::-1])
    return max(1, int((left > target).sum()))


def _joined(units: Sequence[Unit]) -> list[str]:
    return [name for unit in units for name in unit]


def _relative_error(wanted: Mapping[str, Array], got: Mapping[str, Array]) -> float:
    """The largest of the outputs' relative errors."""
    tiny = float(np.finfo(np.float32).tiny)
    return max(
        float(np.linalg.norm(got[name] - array)) / max(float(np.linalg.norm(array)), tiny)
        for name, array in wanted.items()
    )


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
