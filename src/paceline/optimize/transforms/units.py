"""What belongs to a hidden unit of a network? The numbers that make it, and those with which others read it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


class Layout(Enum):
    """Where the units are in a tensor."""

    SECOND = "on the second axis, as the channels of images"
    LAST = "on the last axis"
    BLOCKS = "on the last axis: all numbers of a unit, then those of the next"
    TURNS = "on the last axis: one number of each unit, then the next of each"


@dataclass(frozen=True)
class Cut:
    """A constant that loses what belongs to a unit.

    Attributes:
        node, input: that read it: the node's place in the graph, and which of its inputs.
        axis: of the units.
        layout: how an axis that is longer than there are units is shared among them.
    """

    node: int
    input: int
    axis: int
    layout: Layout = Layout.LAST

    def numbers(self, units: Indices, width: int, length: int) -> Indices:
        """Where the numbers of some of `width` units are on an axis of that length, ascending."""
        each = length // width
        if self.layout is Layout.TURNS:
            found = np.arange(each)[:, None] * width + units
        else:
            found = units[:, None] * each + np.arange(each)
        return np.sort(found.ravel())


@dataclass(frozen=True)
class Read:
    """A layer that adds the units up: the tensor that it reads, and its weights.

    Attributes:
        convolves: the units are on the second axis of the tensor; else on the last one.
    """

    tensor: str
    cut: Cut
    convolves: bool = False


@dataclass
class Group:
    """Units that can be taken out one by one.

    Attributes:
        name: of the node that makes them.
        width: how many there are.
        cuts: of everything that is not a read.
        depthwise: nodes whose attribute `group` counts the units.
        reshapes: nodes whose shape names how many numbers there are; it is then left open.
    """

    name: str
    width: int
    cuts: list[Cut] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)
    depthwise: list[int] = field(default_factory=list)
    reshapes: list[int] = field(default_factory=list)
