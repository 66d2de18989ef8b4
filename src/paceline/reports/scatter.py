"""How are things drawn that have two numbers each, and a name?

Rules:
- The names that matter come first; one that would lie on another, or on a dot, is left out: the table has it.
- Neither axis begins at nought: it is the differences that are looked at.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from paceline.reports import labels, plots, scales, theme
from paceline.reports.elements import Element, element, number, points
from paceline.reports.plots import LINE_HEIGHT, Frame
from paceline.reports.spec import Axis, Dot, DotGroup, Limit, Panel, Series, known

_HEIGHT: Final = 260.0
_AROUND: Final = 0.06  # of the span, so that no dot lies on an edge
_GAP: Final = 9.0  # from a dot to its name


def painted(groups: Sequence[DotGroup]) -> list[DotGroup]:
    """The groups that have dots to draw, with a tone and a shape for each."""
    kept = [replace(group, dots=[dot for dot in group.dots if known(dot.x) and known(dot.y)]) for group in groups]
    return [
        replace(
            group,
            tone=group.tone or theme.TONES[place % len(theme.TONES)],
            shape=place % len(theme.MARKERS) if group.shape is None else group.shape,
        )
        for place, group in enumerate(each for each in kept if each.dots)
    ]


def draw(
    groups: Sequence[DotGroup],
    x: Axis,
    y: Axis,
    front: Sequence[tuple[float, float]],
    limits: Sequence[Limit],
    width: float,
) -> tuple[list[Element], float]:
    """Painted groups over their axes, and the height that they take."""
    dots = [dot for group in groups for dot in group.dots]
    x_scale = _spanned([dot.x for dot in dots], x)
    heights = [each for dot in dots for each in (dot.low, dot.y, dot.high)] + [limit.y for limit in limits]
    y_scale = _spanned([each for each in heights if known(each)], y)
    signs = [Series(group.name, (), expected=group.hollow, tone=group.tone, shape=group.shape) for group in groups]
    head, top = plots.header(Panel(signs, y), width, legend=True)
    ticks = y.unit.ticks(y_scale.ticks(plots.most_rows(_HEIGHT)))
    left = 10.0 + max((theme.text_width(text) for text in ticks), default=0.0)
    frame = Frame(left, top + 4.0, width - left - 14.0, _HEIGHT, x_scale, y_scale)
    parts = [*head, *plots.y_axis(frame, y), *plots.x_axis(frame, x), *_limits(limits, frame)]
    if len(front) > 1:
        places = [(frame.x(a), frame.y(b)) for a, b in front]
        parts.append(element("g", element("polyline", class_="line dashed", points=points(places)), class_="accent"))
    parts += [element("g", _bars(group, frame), class_=group.tone) for group in groups]
    for group, sign in zip(groups, signs, strict=True):
        parts.append(
            element("g", *(_dot(dot, sign, frame, x, y) for dot in group.dots), class_=f"{group.tone} markers")
        )
    parts += _names(groups, limits, frame)
    return parts, frame.bottom + 22.0 + (20.0 if x.label else 0.0)


def _spanned(values: Sequence[float], axis: Axis) -> scales.Scale:
    """An axis with a margin at either end."""
    if axis.kind == "log" and all(value > 0 for value in values):
        low, high = min(values, default=1.0), max(values, default=10.0)
        margin = max((high / low) ** _AROUND, 1.1)
        return scales.Log(low / margin, high * margin)
    spanned = scales.between(values)
    margin = (spanned.high - spanned.low) * _AROUND
    return scales.Linear(spanned.low - margin, spanned.high + margin)


def _dot(dot: Dot, sign: Series, frame: Frame, x: Axis, y: Axis) -> Element:
    shape = plots.marker(sign, 0.0, 0.0)
    shape.set(
        "transform",
        f"translate({number(frame.x(dot.x))} {number(frame.y(dot.y))}) scale({1.6 if dot.strong else 1.2:g})",
    )
    lines = [dot.name, f"{x.label}: {x.unit.text(dot.x)}", f"{y.label}: {y.unit.text(dot.y)}", dot.note]
    shape.append(element("title", "\n".join(filter(None, lines))))
    return shape


def _bars(group: DotGroup, frame: Frame) -> Iterator[Element]:
    """From the least that each y may be to the most."""
    for dot in group.dots:
        if known(dot.low) and known(dot.high):
            x, top, bottom = frame.x(dot.x), frame.y(dot.high), frame.y(dot.low)
            ends = "".join(f"M{number(x - 4)} {number(y)}h8" for y in (top, bottom))
            yield element("path", class_="leader", d=f"M{number(x)} {number(top)}V{number(bottom)}{ends}")


def _limits(limits: Sequence[Limit], frame: Frame) -> Iterator[Element]:
    for limit in limits:
        if known(limit.y):
            line = f"M{number(frame.left)} {number(frame.y(limit.y))}h{number(frame.width)}"
            yield element("path", class_="limit", d=line)


def _names(groups: Sequence[DotGroup], limits: Sequence[Limit], frame: Frame) -> Iterator[Element]:
    everywhere = [(frame.x(dot.x), frame.y(dot.y)) for group in groups for dot in group.dots]
    taken: list[labels.Box] = []
    for limit in limits:
        width = theme.text_width(limit.label)
        boxes = [
            labels.Box(left, top, left + width, top + LINE_HEIGHT)
            for left in (frame.left + 8.0, frame.right - 8.0 - width)
            for top in (frame.y(limit.y) - LINE_HEIGHT - 2.0, frame.y(limit.y) + 3.0)
            if top >= frame.top and top + LINE_HEIGHT <= frame.bottom
        ]
        box = labels.freest(boxes, taken, everywhere) if known(limit.y) else None
        if box is not None:
            taken.append(box)
            yield element("text", limit.label, class_="halo over", x=box.left, y=box.bottom - 4)
    named = [(dot, group.tone) for group in groups for dot in group.dots]
    for dot, tone in sorted(named, key=lambda each: not each[0].strong):
        box = _free_place(dot, frame, taken, everywhere)
        if box is None:
            continue
        taken.append(box)
        style = "halo tone strong" if dot.strong else "halo tone"
        yield element("g", element("text", dot.name, class_=style, x=box.left, y=box.bottom - 4), class_=tone)


def _free_place(
    dot: Dot, frame: Frame, taken: Sequence[labels.Box], dots: Sequence[tuple[float, float]]
) -> labels.Box | None:
    """Where its name lies on nothing: beside, above or below."""
    x, y, width = frame.x(dot.x), frame.y(dot.y), theme.text_width(dot.name, bold=dot.strong)
    middle, half = y - LINE_HEIGHT / 2, width / 2
    corners = (
        (x + _GAP, middle),
        (x - _GAP - width, middle),
        (x - half, y - _GAP - LINE_HEIGHT),
        (x - half, y + _GAP),
        (x + _GAP, middle - LINE_HEIGHT * 0.8),
        (x + _GAP, middle + LINE_HEIGHT * 0.8),
        *((left, top) for left in (x - 4, x + 4 - width) for top in (y - _GAP - LINE_HEIGHT, y + _GAP)),
    )
    others = [place for place in dots if math.dist(place, (x, y)) > 0.5]
    possible = []
    for left, top in corners:
        box = labels.Box(left, top, left + width, top + LINE_HEIGHT)
        inside = left >= frame.left + 2 and box.right <= frame.right + 12 and top >= frame.top - 4
        if not inside or box.bottom > frame.bottom or any(box.meets(other) for other in taken):
            continue
        possible.append(box)
    free = [box for box in possible if not any(box.holds(*place) for place in others)]
    # The one that the chart is about is named even if a dot is in the way.
    return free[0] if free else labels.freest(possible, taken, others) if dot.strong else None
