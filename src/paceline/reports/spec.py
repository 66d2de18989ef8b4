"""What does a chart show? Plain data, in the units of its axes; nothing of how it is drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeGuard

from paceline.reports import units
from paceline.reports.units import Unit

Point = tuple[float, float | None]
Kind = Literal["linear", "log", "category"]


@dataclass(frozen=True)
class Axis:
    """What an axis measures.

    Attributes:
        label: above the axis of y, below that of x.
        kind: `linear` (an axis of y then begins at nought), `log`, or `category`: evenly spaced, whatever the numbers.
        ticks: instead of the ones that are found.
        zero: a linear axis of x begins at nought, too.
    """

    label: str = ""
    unit: Unit = units.NUMBER
    kind: Kind = "linear"
    ticks: Sequence[float] = ()
    zero: bool = False


@dataclass(frozen=True)
class Series:
    """A line.

    Attributes:
        points: (x, y), in the units of the axes, by increasing x.
        expected: published or promised, not measured: dashes and hollow markers.
        filled: tinted down to the axis.
        strong: the one that the chart is about: a thicker line with a bold name.
        tone: of `theme.TONES`, or `red` or `accent`; "" for the next of them.
        shape: of `theme.MARKERS`; None for the next of them.
    """

    name: str
    points: Sequence[Point]
    expected: bool = False
    filled: bool = False
    strong: bool = False
    tone: str = ""
    shape: int | None = None


@dataclass(frozen=True)
class Limit:
    """A line across a chart that what is drawn should not pass, such as an SLO."""

    y: float
    label: str


@dataclass(frozen=True)
class Span:
    """A stretch of x that is set apart, such as the warm-up."""

    start: float
    end: float
    label: str = ""


@dataclass(frozen=True)
class Panel:
    """One plot of several that stand above one another."""

    series: Sequence[Series]
    y: Axis
    limits: Sequence[Limit] = ()
    height: float = 240.0


@dataclass(frozen=True)
class Bar:
    """A bar.

    Attributes:
        value: None: not known; `label` says why.
        label: at its end; "" for the value.
        tone: as of `Series`; "" for one that is compared with.
        strong: its texts are bold.
    """

    name: str
    value: float | None
    label: str = ""
    tone: str = ""
    strong: bool = False


@dataclass(frozen=True)
class BarGroup:
    """Bars with a heading."""

    name: str
    bars: Sequence[Bar]


@dataclass(frozen=True)
class Mark:
    """A vertical line at an x, such as a percentile."""

    x: float
    label: str


@dataclass(frozen=True)
class Dot:
    """A thing by two of its numbers.

    Attributes:
        low, high: where its y may lie.
        note: more of it, for who points at it.
        strong: the one that the chart is about: larger, with a bold name.
    """

    name: str
    x: float
    y: float
    low: float | None = None
    high: float | None = None
    note: str = ""
    strong: bool = False


@dataclass(frozen=True)
class DotGroup:
    """Dots of one kind.

    Attributes:
        tone, shape: as of `Series`.
        hollow: they are there to be compared with.
    """

    name: str
    dots: Sequence[Dot]
    tone: str = ""
    shape: int | None = None
    hollow: bool = False


@dataclass(frozen=True)
class Table:
    """The numbers of a chart, as they are read."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


def known(value: float | None) -> TypeGuard[float]:
    """Whether it can be drawn."""
    return value is not None and math.isfinite(value)
