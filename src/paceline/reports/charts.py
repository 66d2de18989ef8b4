"""Which picture shows these numbers? Charts as SVG, in a page or in a file of their own, without a library.

    chart = line_chart(
        "Response time",
        [Series("p50", [(1, 3.1), (8, 4.0)]), Series("p99", [(1, 5.2), (8, None)])],
        x=Axis("Users", COUNT, "category"),
        y=Axis("Response time", MILLISECONDS),
        limits=[Limit(50.0, "SLO")],
    )
    chart.svg()       # a document: for a README
    chart.figure()    # an element of a page, with its numbers in a table beneath

Rules:
- What is drawn can be read without its colors: series have markers and are named at their ends, bars
  carry their numbers.
- A number that is not known (None, or not finite) is a gap, and an en dash in the table.
- No text lies on another: labels are moved apart, or left out where the table has them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from paceline.reports import bars, columns, labels, plots, scatter, tables, theme
from paceline.reports.elements import Content, Element, as_svg, element
from paceline.reports.spec import (
    Axis,
    Bar,
    BarGroup,
    Dot,
    DotGroup,
    Limit,
    Mark,
    Panel,
    Series,
    Span,
    Table,
    known,
)

Drawing = Callable[[float], tuple[list[Element], float]]
"""Elements for a width in pixels, and their height."""

_WIDE: Final = 540.0
_NARROW: Final = 336.0
_MARGIN: Final = 18.0


@dataclass(frozen=True)
class Chart:
    """A picture that can be drawn in any width.

    Attributes:
        description: what it shows, in a sentence or two, for who cannot see it.
        note: a line beneath it, for everybody.
    """

    title: str
    description: str
    table: Table
    drawing: Drawing = field(repr=False)
    note: str = ""

    def svg(self, width: float = 760.0) -> str:
        """A document: with its title, its note and a background of its own; light or dark as the reader's screen."""
        inner = width - 2 * _MARGIN
        parts, height = self.drawing(inner)
        head, top = _lines(self.title, "title", inner, _MARGIN, theme.TITLE_SIZE)
        foot, bottom = _lines(self.note, "soft", inner, top + 14 + height, theme.FONT_SIZE)
        return as_svg(
            self._svg(
                width,
                bottom + _MARGIN,
                element("style", f"\n{theme.variables()}\n{theme.style('chart.css')}\n"),
                element("rect", class_="back", width=width, height=bottom + _MARGIN, rx=10),
                head,
                element("g", parts, transform=f"translate({_MARGIN:g} {top + 8:g})"),
                foot,
            )
        )

    def figure(self) -> Element:
        """For a page of `reports.page`: drawn twice, of which its style shows the one that fits the screen."""
        return element(
            "figure",
            element("figcaption", self.title),
            [self._inline(width, name) for width, name in ((_WIDE, "wide"), (_NARROW, "narrow"))],
            element("p", self.note, class_="note") if self.note else None,
            element("details", element("summary", "Numbers"), tables.table(self.table.header, self.table.rows))
            if self.table.rows
            else None,
        )

    def _inline(self, width: float, name: str) -> Element:
        parts, height = self.drawing(width)
        return self._svg(width, height, *parts, name=name)

    def _svg(self, width: float, height: float, *content: Content | Sequence[Element], name: str = "") -> Element:
        return element(
            "svg",
            element("title", self.title),
            element("desc", self.description),
            *content,
            class_=f"chart {name}".strip(),
            viewBox=f"0 0 {math.ceil(width)} {math.ceil(height)}",
            width=math.ceil(width),
            height=math.ceil(height),
            role="img",
        )


def line_chart(
    title: str,
    series: Sequence[Series],
    *,
    x: Axis,
    y: Axis,
    limits: Sequence[Limit] = (),
    spans: Sequence[Span] = (),
    height: float = 240.0,
    description: str = "",
    note: str = "",
) -> Chart:
    """Lines over one axis: response time against users or rate.

    Args:
        height: of the plot alone, in pixels.
        description: "" for one that names the axes and the series.
    """
    panel = Panel(series, y, limits, height)
    return panels_chart(title, [panel], x=x, spans=spans, description=description, note=note)


def panels_chart(
    title: str,
    panels: Sequence[Panel],
    *,
    x: Axis,
    spans: Sequence[Span] = (),
    description: str = "",
    note: str = "",
) -> Chart:
    """Plots above one another that share an axis of x: a time line."""
    painted = plots.painted(panels)
    return Chart(
        title=title,
        description=description or _described(painted, x),
        table=_numbers(painted, x),
        drawing=lambda width: plots.draw(painted, x, spans, width),
        note=note,
    )


def scatter_chart(
    title: str,
    groups: Sequence[DotGroup],
    *,
    x: Axis,
    y: Axis,
    front: Sequence[tuple[float, float]] = (),
    limits: Sequence[Limit] = (),
    description: str = "",
    note: str = "",
) -> Chart:
    """Things by two of their numbers, such as quality against speed.

    Args:
        y: its axis does not begin at nought.
        front: places that a line joins, by increasing x: those that no other beats in both numbers.
    """
    painted = scatter.painted(groups)
    rows = [(dot.name, group.name, x.unit.text(dot.x), y.unit.text(dot.y)) for group in painted for dot in group.dots]
    return Chart(
        title=title,
        description=description
        or f"{y.label} against {x.label}: " + "; ".join(" ".join(row) for row in rows[:40]) + ".",
        table=Table(("", "", x.label, y.label), rows),
        drawing=lambda width: scatter.draw(painted, x, y, front, limits, width),
        note=note,
    )


def histogram(
    title: str,
    buckets: Sequence[tuple[float, float, float]],
    *,
    x: Axis,
    y: Axis,
    marks: Sequence[Mark] = (),
    tone: str = "blue",
    description: str = "",
    note: str = "",
) -> Chart:
    """How often values of a range came.

    Args:
        buckets: (low, high, height), by increasing range.
        marks: percentiles, named above the plot.
    """
    rows = [(f"{x.unit.text(low)} \u2013 {x.unit.text(high)}", y.unit.text(count)) for low, high, count in buckets]
    marked = ", ".join(f"{mark.label} at {x.unit.text(mark.x)}" for mark in marks)
    return Chart(
        title=title,
        description=description or f"Distribution over {x.label or 'x'}" + (f": {marked}." if marked else "."),
        table=Table((x.label, y.label), rows),
        drawing=lambda width: columns.histogram(buckets, x, y, marks, tone, width),
        note=note,
    )


def column_chart(
    title: str,
    values: Sequence[tuple[str, float]],
    *,
    x: Axis,
    y: Axis,
    tone: str = "blue",
    description: str = "",
    note: str = "",
) -> Chart:
    """One upright column for each of a few named values, in their order."""
    rows = [(name, y.unit.text(value)) for name, value in values]
    return Chart(
        title=title,
        description=description or f"{y.label} by {x.label}: " + ", ".join(" ".join(row) for row in rows[:20]) + ".",
        table=Table((x.label, y.label), rows),
        drawing=lambda width: columns.draw(values, x, y, tone, width),
        note=note,
    )


def bar_chart(
    title: str,
    groups: Sequence[BarGroup],
    *,
    axis: Axis,
    shared: bool = True,
    description: str = "",
    note: str = "",
) -> Chart:
    """Bars that lie, by groups: servers compared, for each model; errors by kind.

    Args:
        axis: of the values; linear, from nought.
        shared: by all the groups; else the longest bar of each group fills its width.
    """
    rows = [(group.name, bar.name, axis.unit.text(bar.value), bar.label) for group in groups for bar in group.bars]
    header = ("", "", axis.label, "")
    kept = [place for place in range(4) if place == 2 or any(row[place] for row in rows)]
    return Chart(
        title=title,
        description=description or "; ".join(" ".join(filter(None, row)) for row in rows[:40]) + ".",
        table=Table([header[place] for place in kept], [[row[place] for place in kept] for row in rows]),
        drawing=lambda width: bars.draw(groups, axis, width, shared=shared),
        note=note,
    )


def _lines(text: str, style: str, width: float, top: float, size: float) -> tuple[list[Element], float]:
    """The text, broken into lines, and where it ends."""
    lines = labels.wrapped(text, width, size)
    high = size * 1.4
    parts = [
        element("text", line, class_=style, x=_MARGIN, y=top + place * high + size) for place, line in enumerate(lines)
    ]
    return parts, top + len(lines) * high


def _described(panels: Sequence[Panel], x: Axis) -> str:
    lines = [
        f"{panel.y.label or 'Values'} by {x.label or 'x'}: "
        + "; ".join(_ends(series, panel.y) for series in panel.series)
        for panel in panels
    ]
    return ". ".join(lines) + "."


def _ends(series: Series, y: Axis) -> str:
    values = [value for _, value in series.points if known(value)]
    if not values:
        return f"{series.name}, nothing"
    return f"{series.name} from {y.unit.text(values[0])} to {y.unit.text(values[-1])}"


def _numbers(panels: Sequence[Panel], x: Axis) -> Table:
    all_series = [(panel, series) for panel in panels for series in panel.series]
    places = sorted({place for _, series in all_series for place, _ in series.points})
    found = [dict(series.points) for _, series in all_series]
    rows = [
        [
            x.unit.text(place),
            *(panel.y.unit.text(each.get(place)) for (panel, _), each in zip(all_series, found, strict=True)),
        ]
        for place in places
    ]
    return Table([x.label, *(series.name for _, series in all_series)], rows)


__all__ = [
    "Axis", "Bar", "BarGroup", "Chart", "Dot", "DotGroup", "Limit", "Mark", "Panel", "Series", "Span", "Table",
    "bar_chart", "column_chart", "histogram", "line_chart", "panels_chart", "scatter_chart",
]  # fmt: skip
