"""Which units of a group stay, and with which weights does the next layer read them?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from paceline.core.tensors import Array
from paceline.optimize.transforms import calibrate
from paceline.optimize.transforms.calibrate import Feed
from paceline.optimize.transforms.onnx_graph import array_of, attribute, constants
from paceline.optimize.transforms.refit import Matrix, Moments, fewest
from paceline.optimize.transforms.units import Cut, Group, Indices, Layout, Read

# Second moments of more numbers than that are too much memory, and their inverse too much time.
_MOST_REFITTED: Final = 6144
# Tokens of a text count each: there are many in a few rows.
_MOST_VECTORS: Final = 16_384

Place = tuple[int, int]
"""A node's index, and which of its inputs."""


@dataclass(frozen=True)
class Choice:
    """What becomes of a group.

    Attributes:
        kept: units that stay, ascending.
        constants: that are new, by the place where they are read; all others are cut.
    """

    kept: Indices
    constants: dict[Place, Array] = field(default_factory=dict)


def by_reconstruction(model: Any, group: Group, batches: Sequence[Feed], keep: int) -> Choice:
    """Keep the units from which the next layer's results are best made, and fit its weights to them; see `refit.py`."""
    readers = [_Reader(model, read) for read in group.reads]
    moments = _moments(model, group.reads[0].tensor, len(readers[0].weights), batches)
    # What the units say on average can go into a bias, where all readers have one.
    centered = all(reader.bias is not None for reader in readers)
    cut, length = group.reads[0].cut, len(readers[0].weights)
    units = np.empty(length, np.int64)
    for unit in range(group.width):
        units[cut.numbers(np.array([unit]), group.width, length)] = unit
    weights = np.hstack([reader.weights for reader in readers])
    kept, fitted = fewest(moments.second(centered=centered), weights, units, keep)
    shift = moments.mean @ weights - moments.mean[cut.numbers(kept, group.width, length)] @ fitted
    constants: dict[Place, Array] = {}
    ends = np.cumsum([reader.weights.shape[1] for reader in readers])[:-1]
    for reader, part, moved in zip(readers, np.split(fitted, ends, axis=1), np.split(shift, ends), strict=True):
        constants.update(reader.constants(part, moved if centered else None))
    return Choice(kept, constants)


class _Reader:
    """A product of matrices that reads units.

    Attributes:
        weights: [numbers, outputs].
        bias: [outputs]; None: it has none that is a constant.
    """

    def __init__(self, model: Any, read: Read) -> None:
        self._cut = read.cut
        node = model.graph.node[read.cut.node]
        stored = _read_at(model, read.cut)
        self._type = stored.dtype
        self.weights: Matrix = (stored.T if read.cut.axis else stored).astype(np.float64)
        self.bias: Matrix | None = None
        self._bias_shape: tuple[int, ...] = ()
        if len(node.input) > 2 and node.input[2] in constants(model):
            bias = array_of(model, node.input[2])
            self._bias_shape = bias.shape
            self.bias = bias.astype(np.float64).ravel() if bias.size == self.weights.shape[1] else None

    def constants(self, weights: Matrix, shift: Matrix | None) -> dict[Place, Array]:
        """The node's new weights, and its bias moved by `shift`."""
        oriented = weights.T if self._cut.axis else weights
        found: dict[Place, Array] = {(self._cut.node, self._cut.input): oriented.astype(self._type)}
        if shift is not None and self.bias is not None:
            found[self._cut.node, 2] = (self.bias + shift).reshape(self._bias_shape).astype(self._type)
        return found


def _moments(model: Any, tensor: str, width: int, batches: Sequence[Feed]) -> Moments:
    moments = Moments(width)
    for tensors in calibrate.inside(model, {tensor}, batches):
        moments.add(tensors[tensor])
        if moments.rows >= _MOST_VECTORS:
            break
    return moments


def by_size(model: Any, group: Group, batches: Sequence[Feed], keep: int) -> Choice:
    """Keep the units that weigh most in what the next layers make: their mean square, times that of their weights."""
    powers = {read.tensor: np.zeros(group.width) for read in group.reads}
    layouts = {read.tensor: read for read in group.reads}
    for tensors in calibrate.inside(model, set(powers), batches):
        for name, array in tensors.items():
            powers[name] += _powers(array.astype(np.float64), layouts[name], group.width)
    scores = np.zeros(group.width)
    for read in group.reads:
        weights = np.square(np.moveaxis(_read_at(model, read.cut), read.cut.axis, 0))
        scores += powers[read.tensor] * _by_unit(weights.reshape(len(weights), -1).sum(axis=1), read, group.width)
    return Choice(np.sort(np.argsort(-scores, kind="stable")[:keep]))


def can_be_refitted(model: Any, group: Group) -> bool:
    """True where the readers are products of matrices that all read the same numbers, and not too many."""
    nodes = [model.graph.node[read.cut.node] for read in group.reads]
    return (
        all(node.op_type in ("Gemm", "MatMul") and _is_plain(node) for node in nodes)
        and len({(read.tensor, read.cut.layout) for read in group.reads}) == 1
        and _length(model, group.reads[0]) <= _MOST_REFITTED
    )


def _powers(array: Matrix, read: Read, width: int) -> Matrix:
    squares: Matrix = np.square(array)
    if read.convolves:
        channels: Matrix = squares.sum(axis=(0, *range(2, array.ndim)))
        return channels
    return _by_unit(squares.reshape(-1, array.shape[-1]).sum(axis=0), read, width)


def _by_unit(numbers: Matrix, read: Read, width: int) -> Matrix:
    """Sums over each unit's numbers."""
    in_turns = read.cut.layout is Layout.TURNS
    sums: Matrix = numbers.reshape(-1, width).sum(axis=0) if in_turns else numbers.reshape(width, -1).sum(axis=1)
    return sums


def _is_plain(node: Any) -> bool:
    """A product and a sum, without factors."""
    return all(attribute(node, name, 1.0) == 1.0 for name in ("alpha", "beta"))


def _read_at(model: Any, cut: Cut) -> Array:
    return array_of(model, model.graph.node[cut.node].input[cut.input])


def _length(model: Any, read: Read) -> int:
    return int(_read_at(model, read.cut).shape[read.cut.axis])
