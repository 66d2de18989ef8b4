"""How does a number read: 1.25 ms, 12.3k/s, 3.1x?

Rules:
- Three significant digits, and no more: load tests do not have them.
- The labels of one linear axis share one scale and one number of decimals; those of a logarithmic axis stand alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

UNKNOWN: Final = "\u2013"
_SPACE: Final = "\u00a0"  # a number and its unit stay on one line


@dataclass(frozen=True)
class Unit:
    """A quantity, and the scales that it is read in.

    Attributes:
        scales: smallest first: what one of it is, in the quantity's own unit, and its suffix.
        whole: there is nothing between 1 and 2.
    """

    scales: tuple[tuple[float, str], ...]
    whole: bool = False

    def text(self, value: float | None) -> str:
        """With its unit; an en dash for what is not known."""
        if value is None or not math.isfinite(value):
            return UNKNOWN
        size, suffix = self._scale(abs(value))
        if self.whole and size == 1.0:
            return f"{round(value)}{suffix}"
        scaled = value / size
        if abs(float(f"{scaled:.3g}")) >= 1000:  # 999.9 us reads 1 ms
            size, suffix = self._scale(abs(value) * 1.001)
            scaled = value / size
        return f"{_three_digits(scaled)}{suffix}"

    def plain(self, value: float | None) -> str:
        """The same with ordinary spaces, for lines that people search."""
        return self.text(value).replace(_SPACE, " ")

    def ticks(self, values: Sequence[float]) -> list[str]:
        """Labels for the ticks of a linear axis, evenly spaced."""
        if len(values) < 2:
            return [self.text(value) for value in values]
        size, suffix = self._scale(max(abs(value) for value in values))
        step = (values[1] - values[0]) / size
        decimals = max(0, -math.floor(math.log10(step) + 1e-9)) if step > 0 else 0
        return [f"{value / size:.{decimals}f}{suffix}" if value else f"0{self._bare(suffix)}" for value in values]

    def _scale(self, value: float) -> tuple[float, str]:
        fitting = [scale for scale in self.scales if scale[0] <= value * (1 + 1e-9)]
        return fitting[-1] if fitting else self._unscaled if value == 0 else self.scales[0]

    @property
    def _unscaled(self) -> tuple[float, str]:
        return min(self.scales, key=lambda scale: abs(math.log(scale[0])))

    @staticmethod
    def _bare(suffix: str) -> str:
        """Nought needs no unit, where the unit is no sign such as %."""
        return suffix if suffix.strip() in ("%", "\u00d7") else ""


def _three_digits(value: float) -> str:
    if value == 0:
        return "0"
    decimals = max(0, 2 - math.floor(math.log10(abs(value)) + 1e-12))
    text = f"{value:.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


NUMBER: Final = Unit(((1.0, ""), (1e3, "k"), (1e6, "M"), (1e9, "G")))
COUNT: Final = Unit(NUMBER.scales, whole=True)
PER_SECOND: Final = Unit(tuple((size, f"{suffix}/s") for size, suffix in NUMBER.scales))
MILLISECONDS: Final = Unit(((1e-3, f"{_SPACE}\u00b5s"), (1.0, f"{_SPACE}ms"), (1e3, f"{_SPACE}s")))
SECONDS: Final = Unit(((1e-3, f"{_SPACE}ms"), (1.0, f"{_SPACE}s")))
BYTES: Final = Unit(
    tuple((10.0 ** (3 * power), f"{_SPACE}{name}") for power, name in enumerate(("B", "kB", "MB", "GB", "TB")))
)
"""In powers of ten, as disks and networks count."""
PERCENT: Final = Unit(((0.01, f"{_SPACE}%"),))
"""Of shares: 0.5 reads 50 %."""
RATIO: Final = Unit(((1.0, "\u00d7"),))
