"""When do requests arrive, whatever becomes of those before?

Rules:
- A process yields its instants in blocks, so that an hour of them takes no more memory than a second.
- What is random comes from the generator that is passed in: the same seed gives the same arrivals.
- The mean rate is the one that was asked for, whatever the pattern.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import numpy as np
from numpy.typing import NDArray

_BLOCK = 4096


class Arrivals(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind"):
    """A point process.

    Attributes:
        rate: mean arrivals per second; > 0.
    """

    rate: float

    def blocks(self, duration_s: float, random: np.random.Generator) -> Iterator[NDArray[np.float64]]:
        """Increasing instants in seconds, shape [n], from 0 up to `duration_s`; a block may be empty."""
        last, going = 0.0, True
        while going:
            instants = last + np.cumsum(self._gaps(random))
            last = float(instants[-1])
            going = last < duration_s
            yield instants if going else instants[instants < duration_s]

    def _gaps(self, random: np.random.Generator) -> NDArray[np.float64]:
        """Some gaps between arrivals, in seconds; at least one."""
        raise NotImplementedError


class Constant(Arrivals, frozen=True, tag="constant"):
    """Evenly spaced."""

    def _gaps(self, random: np.random.Generator) -> NDArray[np.float64]:
        return np.full(_BLOCK, 1.0 / self.rate)


class Poisson(Arrivals, frozen=True, tag="poisson"):
    """Independent of one another, as of many users who know nothing of each other."""

    def _gaps(self, random: np.random.Generator) -> NDArray[np.float64]:
        return random.exponential(1.0 / self.rate, _BLOCK)


AnyArrivals = Constant | Poisson
"""What a step may have; grows with the kinds."""
