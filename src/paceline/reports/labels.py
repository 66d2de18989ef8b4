"""Where do names go, so that none lies on another?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

from paceline.reports import theme


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Places near the wanted ones, in their order, at least `gap` apart and between `low` and `high` if they fit.

    What is too near is pushed apart evenly: a run of neighbors is centered on the mean of what its members wanted.
    """
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    runs: list[list[float]] = []  # the center, and how many it has
    for i in order:
        runs.append([wanted[i], 1])
        runs[-1][0] = _within(runs[-1], gap, low, high)
        while len(runs) > 1 and runs[-1][0] - runs[-2][0] < gap * (runs[-1][1] + runs[-2][1]) / 2 - 1e-9:
            last, before = runs.pop(), runs.pop()
            count = last[1] + before[1]
            runs.append([(last[0] * last[1] + before[0] * before[1]) / count, count])
            runs[-1][0] = _within(runs[-1], gap, low, high)
    places = [center + (i - (count - 1) / 2) * gap for center, count in runs for i in range(int(count))]
    result = [0.0] * len(wanted)
    for i, place in zip(order, places, strict=True):
        result[i] = place
    return result


class Box(NamedTuple):
    """A rectangle in pixels; y grows downward."""

    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: Box) -> bool:
        """Whether they share a place."""
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )

    def holds(self, x: float, y: float) -> bool:
        """Whether a place, with a margin of a marker, is in it."""
        return self.left - 5 <= x <= self.right + 5 and self.top - 5 <= y <= self.bottom + 5


def freest(boxes: Iterable[Box], taken: Sequence[Box], lines: Sequence[tuple[float, float]]) -> Box | None:
    """The box over the fewest places of lines, the first of equals; None if each meets a text."""
    free = [box for box in boxes if not any(box.meets(other) for other in taken)]
    return min(free, key=lambda box: sum(box.holds(x, y) for x, y in lines), default=None)


def flow(widths: Sequence[float], available: float, gap: float = 16.0) -> list[tuple[float, int]]:
    """(x, row) for each of some boxes that are set like words."""
    places, x, row = [], 0.0, 0
    for width in widths:
        if x and x + width > available:
            x, row = 0.0, row + 1
        places.append((x, row))
        x += width + gap
    return places


def flags(places: Sequence[float], widths: Sequence[float], gap: float = 8.0) -> list[int]:
    """Rows, 0 the lowest, for texts that hang to the right of poles at increasing places.

    A pole reaches up to its own text, so a text stands above every pole that it would meet.
    """
    rows = [0] * len(places)
    for i in reversed(range(len(places))):
        end = places[i] + widths[i] + gap
        rows[i] = max((rows[j] + 1 for j in range(i + 1, len(places)) if places[j] < end), default=0)
    return rows


def every(places: Sequence[float], texts: Sequence[str], gap: float = 10.0) -> int:
    """The least step so that, of centered texts at increasing places, each so many-th fits."""
    widest = max((theme.text_width(text) for text in texts), default=0.0)
    for step in range(1, len(places)):
        kept = places[::step]
        if all(right - left >= widest + gap for left, right in pairwise(kept)):
            return step
    return max(len(places), 1)


def shortened(text: str, width: float) -> str:
    """The text, cut with an ellipsis where it is wider."""
    if theme.text_width(text) <= width:
        return text
    while text and theme.text_width(text + "\u2026") > width:
        text = text[:-1]
    return text.rstrip() + "\u2026"


def wrapped(text: str, width: float, size: float = theme.FONT_SIZE) -> list[str]:
    """Lines that are not wider, unless a word is."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and theme.text_width(longer, size) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _within(run: Sequence[float], gap: float, low: float, high: float) -> float:
    half = (run[1] - 1) * gap / 2
    return max(min(run[0], high - half), low + half)
