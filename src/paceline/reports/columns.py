"""How are upright columns drawn: distributions, and counts of a few named values?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from paceline.reports import labels, scales, theme
from paceline.reports.elements import Element, element, number
from paceline.reports.plots import LINE_HEIGHT, Frame, header, most_rows, named_axis, x_axis, y_axis
from paceline.reports.spec import Axis, Mark, Panel

_HEIGHT: Final = 190.0
_GAP: Final = 1.0
_WIDEST: Final = 44.0

Bucket = tuple[float, float, float]


def histogram(
    buckets: Sequence[Bucket], x: Axis, y: Axis, marks: Sequence[Mark], tone: str, width: float
) -> tuple[list[Element], float]:
    """Columns over an axis of numbers, with vertical lines that are named above; and the height."""
    edges = [edge for low, high, _ in buckets for edge in (low, high)] + [mark.x for mark in marks]
    positive = [edge for edge in edges if edge > 0]
    x_scale = _log(positive) if x.kind == "log" and positive else scales.between(edges)
    frame, head = _frame(y, [height for _, _, height in buckets], x_scale, width)
    frame = replace(frame, width=frame.width - _overhang(marks, frame))
    rows = labels.flags([frame.x(mark.x) for mark in marks], [theme.text_width(mark.label) for mark in marks])
    frame = replace(frame, top=frame.top + (max(rows, default=-1) + 1) * LINE_HEIGHT)
    parts = [*head, *y_axis(frame, y), element("g", *_buckets(buckets, frame, x, y), class_=f"{tone} columns")]
    parts += [*x_axis(frame, x), *_marks(marks, rows, frame)]
    return parts, frame.bottom + 22 + (20 if x.label else 0)


def draw(values: Sequence[tuple[str, float]], x: Axis, y: Axis, tone: str, width: float) -> tuple[list[Element], float]:
    """A column for each name; and the height."""
    x_scale = scales.Linear(0.0, float(max(len(values), 1)))
    frame, head = _frame(y, [value for _, value in values], x_scale, width)
    wide = min(frame.width / max(len(values), 1) * 0.72, _WIDEST)
    shapes = [
        _column(frame, frame.x(place + 0.5) - wide / 2, wide, value, f"{name}: {y.unit.text(value)}")
        for place, (name, value) in enumerate(values)
    ]
    parts = [*head, *y_axis(frame, y), element("g", shapes, class_=f"{tone} columns")]
    parts += named_axis(frame, x.label, [(place + 0.5, name) for place, (name, _) in enumerate(values)])
    return parts, frame.bottom + 22 + (20 if x.label else 0)


def _frame(y: Axis, heights: Sequence[float], x_scale: scales.Scale, width: float) -> tuple[Frame, list[Element]]:
    y_scale = scales.from_zero(heights, most_rows(_HEIGHT))
    texts = y.unit.ticks(y_scale.ticks(most_rows(_HEIGHT)))
    left = 10.0 + max(theme.text_width(text) for text in texts)
    head, top = header(Panel([], y), width, legend=False)
    return Frame(left, top, width - left - 16.0, _HEIGHT, x_scale, y_scale), head


def _log(positive: Sequence[float]) -> scales.Scale:
    spanned = scales.between(positive)
    return scales.Log(max(spanned.low, min(positive) * 0.5), spanned.high)


def _buckets(buckets: Sequence[Bucket], frame: Frame, x: Axis, y: Axis) -> Iterator[Element]:
    for low, high, height in buckets:
        left, right = frame.x(low), frame.x(high)
        text = f"{x.unit.text(low)} \u2013 {x.unit.text(high)}: {y.unit.text(height)}"
        yield _column(frame, left, max(right - left - _GAP, 0.5), height, text)


def _column(frame: Frame, left: float, width: float, value: float, text: str) -> Element:
    top = min(frame.y(value), frame.bottom - 1.0) if value > 0 else frame.bottom  # what is there can be seen
    return element(
        "g",
        element("rect", class_="bar", x=left, y=top, width=width, height=frame.bottom - top),
        element("rect", element("title", text), class_="hit", x=left, y=frame.top, width=width, height=frame.height),
    )


def _overhang(marks: Sequence[Mark], frame: Frame) -> float:
    """How much narrower the plot must be, for the texts right of its marks."""
    room = frame.width + 12.0
    places = [(frame.x_scale.place(mark.x), theme.text_width(mark.label)) for mark in marks]
    return max(
        [0.0, *(frame.width - (room - text) / place for place, text in places if place * frame.width + text > room)]
    )


def _marks(marks: Sequence[Mark], rows: Sequence[int], frame: Frame) -> Iterator[Element]:
    for mark, row in zip(marks, rows, strict=True):
        x, y = frame.x(mark.x), frame.top - 6 - row * LINE_HEIGHT
        yield element("path", class_="mark", d=f"M{number(x)} {number(y - 8)}V{number(frame.bottom)}")
        yield element("text", mark.label, class_="halo", x=x + 4, y=y)
