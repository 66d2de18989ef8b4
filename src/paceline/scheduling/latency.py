"""How long will a batch of n rows take?

l(n) = a + c*n, fitted online by least squares with exponential forgetting, which is what recursive least squares
on (1, n) computes, kept here as five weighted sums.

Rules:
- a and c are never negative.
- When the batches seen lately are all of one size, only a moves: the split of a and c cannot be seen there.
- One observation counts at most four times its prediction, so that a pause of the machine is not taken for the
  model's speed.
- When the residuals have drifted for some batches (CUSUM), what was learned before is forgotten and the fit starts
  again from the batch just seen. Averaging alone would take a hundred batches to unlearn a profile that is wrong by
  a factor of a hundred, and a scheduler that refuses by it sees only a few batches a second.
- `high(n)` adds three standard deviations of the relative residual.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

FORGETTING = 0.98  # about the last 50 batches
_OUTLIER = 4.0
_Z = 3.0
_CUSUM_SLACK = 0.5
_CUSUM_ALARM = 8.0
_LEAST_RATIO = 1e-3
_FIRST_VARIANCE = 0.01


class LatencyModel:
    """Online estimate of the service time of a batch.

    Args:
        profile: measured pairs (rows, seconds), from warm-up; they seed the fit.

    Attributes:
        fixed_s, marginal_s: a and c.
        residual: relative residual, running mean; near 0 when the model predicts well.
        restarts: how often the residuals drifted (CUSUM), and the fit began again.
    """

    def __init__(self, profile: Iterable[tuple[int, float]] = ()) -> None:
        self.fixed_s = 0.0
        self.marginal_s = 0.0
        self.residual = 0.0
        self.restarts = 0
        self._w = self._wn = self._wnn = self._wy = self._wny = 0.0
        self._variance = _FIRST_VARIANCE
        self._high_factor = 1.0 + _Z * math.sqrt(_FIRST_VARIANCE)
        self._cusum_up = self._cusum_down = 0.0
        for rows, seconds in profile:
            self._learn(rows, seconds)
        self._fit()

    def __call__(self, rows: int) -> float:
        """Expected seconds for a batch of `rows`; 0.0 while nothing is known."""
        return self.fixed_s + self.marginal_s * rows

    def high(self, rows: int) -> float:
        """Seconds that a batch of `rows` will rarely exceed."""
        return (self.fixed_s + self.marginal_s * rows) * self._high_factor

    def observe(self, rows: int, seconds: float) -> None:
        """Learn that a batch of `rows` took `seconds`."""
        predicted = self.fixed_s + self.marginal_s * rows
        if predicted > 0.0:
            seconds = min(seconds, _OUTLIER * predicted)
            if self._drifted(seconds / predicted):
                self._restart(seconds / predicted)
        self._learn(rows, seconds)
        self._fit()

    def _learn(self, rows: int, seconds: float) -> None:
        f = FORGETTING
        self._w = f * self._w + 1.0
        self._wn = f * self._wn + rows
        self._wnn = f * self._wnn + rows * rows
        self._wy = f * self._wy + seconds
        self._wny = f * self._wny + rows * seconds

    def _fit(self) -> None:
        if self._w == 0.0:
            return
        mean_n, mean_y = self._wn / self._w, self._wy / self._w
        variance = self._wnn / self._w - mean_n * mean_n
        # A pull towards the last slope: it decides when sizes hardly vary, and is nothing when they do.
        pull = 0.01 * mean_n * mean_n
        covariance = self._wny / self._w - mean_n * mean_y
        slope = (covariance + pull * self.marginal_s) / (variance + pull)
        slope = min(max(slope, 0.0), mean_y / mean_n)
        self.marginal_s = slope
        self.fixed_s = max(mean_y - slope * mean_n, 0.0)

    def _drifted(self, ratio: float) -> bool:
        relative = ratio - 1.0
        self.residual += (1.0 - FORGETTING) * (relative - self.residual)
        self._variance += (1.0 - FORGETTING) * (relative * relative - self._variance)
        self._high_factor = 1.0 + _Z * math.sqrt(self._variance)
        self._cusum_up = max(0.0, self._cusum_up + relative - _CUSUM_SLACK)
        # A pause makes a batch slow by any factor, nothing makes one fast: the logarithm lets two of them tell.
        down = -math.log(max(ratio, _LEAST_RATIO)) if relative < 0.0 else -relative
        self._cusum_down = max(0.0, self._cusum_down + down - _CUSUM_SLACK)
        return self._cusum_up > _CUSUM_ALARM or self._cusum_down > _CUSUM_ALARM

    def _restart(self, ratio: float) -> None:
        self.restarts += 1
        self._cusum_up = self._cusum_down = 0.0
        self._variance = _FIRST_VARIANCE
        self._high_factor = 1.0 + _Z * math.sqrt(_FIRST_VARIANCE)
        self._w = self._wn = self._wnn = self._wy = self._wny = 0.0
        # Until sizes vary again, both parts are taken to have changed alike.
        self.marginal_s *= ratio


class Unpredictable(LatencyModel):
    """Of what takes as long as it takes, such as streams: how long one took says nothing of the next."""

    def observe(self, rows: int, seconds: float) -> None:
        """Nothing is learned."""
