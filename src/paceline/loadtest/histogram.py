"""How are latencies distributed? Counts in buckets of equal ratio: any percentile within 0.5 %, in bounded memory.

The range is 1 us to about 20 minutes; what is outside counts at its end. The exact minimum, maximum and sum are kept.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

LEAST_S: Final = 1e-6
RATIO: Final = 1.01
_BUCKETS: Final = 2100
_LOG: Final = math.log(RATIO)


class LatencyHistogram:
    """Log-linear counts; numbers within a bucket are taken to be its geometric middle.

    Attributes:
        counts: shape [2100]; bucket i holds what is in [LEAST_S * RATIO**i, LEAST_S * RATIO**(i + 1)).
    """

    def __init__(self) -> None:
        self.counts: NDArray[np.int64] = np.zeros(_BUCKETS, np.int64)
        self.count = 0
        self.sum_s = 0.0
        self.max_s = 0.0
        self.min_s = math.inf

    def add(self, seconds: NDArray[np.floating]) -> None:
        """Count values of shape [n], in seconds; those that are no number are left out."""
        values = np.asarray(seconds, np.float64)
        values = values[~np.isnan(values)]
        if not values.size:
            return
        places = np.log(np.maximum(values, LEAST_S) / LEAST_S) / _LOG
        self.counts += np.bincount(np.minimum(places.astype(np.int64), _BUCKETS - 1), minlength=_BUCKETS)
        self.count += values.size
        self.sum_s += float(values.sum())
        self.max_s = max(self.max_s, float(values.max()))
        self.min_s = min(self.min_s, float(values.min()))

    @property
    def mean_s(self) -> float:
        """Exact; not a number while nothing is counted."""
        return self.sum_s / self.count if self.count else math.nan

    def percentile(self, percent: float) -> float:
        """Seconds that so many percent do not exceed; 100 is the exact maximum; nan while nothing is counted."""
        if not self.count:
            return math.nan
        if percent >= 100.0:
            return self.max_s
        rank = max(1, math.ceil(self.count * percent / 100.0 - 1e-9))  # 99.9 % of 1000 are 999, and not a hair more
        place = int(np.searchsorted(np.cumsum(self.counts), rank))
        middle: float = LEAST_S * RATIO ** (place + 0.5)
        return min(max(middle, self.min_s), self.max_s)

    def buckets(self) -> list[tuple[float, int]]:
        """The upper bound in seconds and the count of each bucket that holds something."""
        return [(LEAST_S * RATIO ** (int(place) + 1), int(self.counts[place])) for place in np.flatnonzero(self.counts)]
