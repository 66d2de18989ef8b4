"""Where on an axis does a number stand, and which numbers get a tick?

Rules:
- Ticks are 1, 2 or 5 times a power of ten.
- Any finite input makes a scale that can be drawn: no numbers at all, one number, noughts on a logarithmic axis.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


class Scale(Protocol):
    """An axis without its length."""

    def place(self, value: float) -> float:
        """0.0 at its begin, 1.0 at its end; what is outside stands at the edge."""

    def ticks(self, most: int) -> list[float]:
        """At most so many, in order."""


@dataclass(frozen=True)
class Linear:
    """Equal steps."""

    low: float
    high: float

    def place(self, value: float) -> float:
        """See `Scale`."""
        return min(max((value - self.low) / (self.high - self.low), 0.0), 1.0)

    def ticks(self, most: int) -> list[float]:
        """See `Scale`."""
        step = nice_step(self.high - self.low, most)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [round(place * step, 12) for place in range(first, last + 1)]


@dataclass(frozen=True)
class Log:
    """Equal ratios; both ends are above nought."""

    low: float
    high: float

    def place(self, value: float) -> float:
        """See `Scale`."""
        if value <= self.low:
            return 0.0
        return min(math.log(value / self.low) / math.log(self.high / self.low), 1.0)

    def ticks(self, most: int) -> list[float]:
        """See `Scale`."""
        fine, decades = self._of((1.0, 2.0, 5.0)), self._of((1.0,))
        if len(fine) < 2:  # less than a factor of 2.5: nearly linear
            return Linear(self.low, self.high).ticks(most)
        chosen = decades if len(fine) > most and len(decades) > 1 else fine
        return chosen[:: math.ceil(len(chosen) / max(most, 1))]

    def _of(self, mantissas: tuple[float, ...]) -> list[float]:
        powers = range(math.floor(math.log10(self.low)) - 1, math.ceil(math.log10(self.high)) + 1)
        candidates = (mantissa * 10.0**power for power in powers for mantissa in mantissas)
        return [each for each in candidates if self.low * (1 - 1e-9) <= each <= self.high * (1 + 1e-9)]


@dataclass(frozen=True)
class Categories:
    """Numbers that were chosen, evenly spaced whatever they are."""

    values: tuple[float, ...]

    def place(self, value: float) -> float:
        """See `Scale`; a number between two of them stands between."""
        if len(self.values) < 2:
            return 0.5
        below = max((i for i, each in enumerate(self.values) if each <= value), default=0)
        above = min(below + 1, len(self.values) - 1)
        gap = self.values[above] - self.values[below]
        part = (value - self.values[below]) / gap if gap else 0.0
        return min(max((below + part) / (len(self.values) - 1), 0.0), 1.0)

    def ticks(self, most: int) -> list[float]:
        """See `Scale`."""
        every = math.ceil(len(self.values) / max(most, 1))
        return list(self.values[:: max(every, 1)])


def nice_step(span: float, most: int) -> float:
    """The least of 1, 2, 5 times a power of ten that cuts a span into fewer than `most` steps."""
    rough = span / max(most - 1, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * mantissa for mantissa in (1.0, 2.0, 5.0, 10.0) if power * mantissa >= rough * (1 - 1e-9))


def from_zero(values: Sequence[float], most: int) -> Linear:
    """From nought to a tick at or above the greatest."""
    high = max((value for value in values if value > 0), default=1.0)
    step = nice_step(high, most)
    return Linear(0.0, step * math.ceil(high / step - 1e-9))


def between(values: Sequence[float]) -> Linear:
    """From the least to the greatest."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    if high - low <= 1e-12 * max(abs(low), abs(high), 1e-300):
        margin = abs(low) * 0.1 or 1.0
        return Linear(low - margin, high + margin)
    return Linear(low, high)


def logarithmic(values: Sequence[float]) -> Log:
    """From a tick at or below the least to one at or above the greatest; what is not above nought is left out."""
    positive = [value for value in values if value > 0]
    low, high = min(positive, default=1.0), max(positive, default=10.0)
    low, high = _nice_below(low), 1.0 / _nice_below(1.0 / high)
    return Log(low, high if high > low * 1.5 else low * 10)


def _nice_below(value: float) -> float:
    power = 10.0 ** math.floor(math.log10(value) + 1e-9)
    return max(power * mantissa for mantissa in (1.0, 2.0, 5.0) if power * mantissa <= value * (1 + 1e-6))
