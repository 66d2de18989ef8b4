"""How are lines drawn over their axes?

Rules:
- Lines are named at their ends where there is room for it, in a legend above them where there is not.
- Whoever points at a place sees the numbers of all the lines there: one strip, with a title, for each x.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

from paceline.reports import labels, scales, theme
from paceline.reports.elements import Element, element, number, points
from paceline.reports.scales import Scale
from paceline.reports.spec import Axis, Limit, Panel, Series, Span, known

LINE_HEIGHT: Final = 16.0
_WIDE_ENOUGH: Final = 460.0
_LEADER: Final = 16.0  # from the end of a plot to a name
_MOST_MARKERS: Final = 24
_FAR: Final = 3.0  # times the greatest value: a limit beyond does not flatten what is drawn


@dataclass(frozen=True)
class Frame:
    """The rectangle of one plot, and what its edges mean."""

    left: float
    top: float
    width: float
    height: float
    x_scale: Scale
    y_scale: Scale
    inset: float = 0.0

    def x(self, value: float) -> float:
        """Pixels."""
        return self.left + self.inset + self.x_scale.place(value) * (self.width - 2 * self.inset)

    def y(self, value: float) -> float:
        """Pixels; they grow downward."""
        return self.top + (1.0 - self.y_scale.place(value)) * self.height

    @property
    def right(self) -> float:
        """Pixels."""
        return self.left + self.width

    @property
    def bottom(self) -> float:
        """Pixels."""
        return self.top + self.height


def painted(panels: Sequence[Panel]) -> list[Panel]:
    """The panels, with a tone and a shape for each series that has none."""
    place, result = 0, []
    for panel in panels:
        given = []
        for series in panel.series:
            tone = series.tone or theme.TONES[place % len(theme.TONES)]
            shape = place % len(theme.MARKERS) if series.shape is None else series.shape
            given.append(replace(series, tone=tone, shape=shape))
            place += 1
        result.append(replace(panel, series=given))
    return result


def draw(panels: Sequence[Panel], x: Axis, spans: Sequence[Span], width: float) -> tuple[list[Element], float]:
    """Painted panels above one another, and the height that they take."""
    direct = _named_at_ends(panels, width)
    x_scale = x_scale_of(x, [place for panel in panels for series in panel.series for place, _ in series.points])
    y_scales = [y_scale_of(panel) for panel in panels]
    left = max(_labels_width(panel.y, scale, panel.height) for panel, scale in zip(panels, y_scales, strict=True))
    right = _names_width(panels, width) if direct else 14.0
    inset = 0.0 if any(series.filled for panel in panels for series in panel.series) else 14.0
    parts: list[Element] = []
    top = 0.0
    for panel, y_scale in zip(panels, y_scales, strict=True):
        top += 10.0 if parts else 0.0
        head, rows = header(panel, width, legend=not direct)
        frame = Frame(left, top + rows, width - left - right, panel.height, x_scale, y_scale, inset)
        last = panel is panels[-1]
        parts.append(element("g", head, transform=f"translate(0 {number(top)})"))
        parts += _plot(panel, frame, x, spans, room=right - _LEADER if direct else 0.0, last=last)
        top = frame.bottom + 8.0
    return parts, top + 14.0 + (20.0 if x.label else 0.0)


def header(panel: Panel, width: float, *, legend: bool) -> tuple[list[Element], float]:
    """The name of the axis of y, and the legend; and the height that they take."""
    parts: list[Element] = []
    height = 6.0
    if panel.y.label:
        parts.append(element("text", panel.y.label, class_="soft", x=0, y=12))
        height = 26.0
    if not legend or len(panel.series) < 2:
        return parts, height
    names = [labels.shortened(series.name, width - 24) for series in panel.series]
    places = labels.flow([theme.text_width(name) + 18 for name in names], width)
    for series, name, (x, row) in zip(panel.series, names, places, strict=True):
        y = height + row * LINE_HEIGHT + 6
        parts.append(
            element("g", marker(series, x + 5, y), element("text", name, x=x + 15, y=y + 4), class_=series.tone)
        )
    return parts, height + (places[-1][1] + 1) * LINE_HEIGHT + 6


def x_scale_of(axis: Axis, values: Sequence[float]) -> Scale:
    """The scale of an axis of x."""
    found = sorted({value for value in values if known(value)})
    if axis.kind == "category":
        return scales.Categories(tuple(found))
    if axis.kind == "log":
        positive = [value for value in found if value > 0]
        spanned = scales.between(positive)
        return scales.Log(spanned.low, spanned.high) if positive else scales.Log(1.0, 10.0)
    return scales.between([0.0, *found] if axis.zero else found)


def y_scale_of(panel: Panel) -> Scale:
    """The scale of an axis of y; limits are on it, unless they are far above everything."""
    values = [value for series in panel.series for _, value in series.points if known(value)]
    limits = [limit.y for limit in panel.limits if known(limit.y)]
    if panel.y.kind == "log":
        return scales.logarithmic([*values, *limits])
    highest = max(values, default=0.0) or max(limits, default=0.0)
    return scales.from_zero([*values, *(each for each in limits if each <= _FAR * highest)], most_rows(panel.height))


def most_rows(height: float) -> int:
    """How many ticks an axis of y may have."""
    return max(4, int(height / 34))


def _named_at_ends(panels: Sequence[Panel], width: float) -> bool:
    fits = all(len(panel.series) * LINE_HEIGHT <= panel.height for panel in panels)
    return width >= _WIDE_ENOUGH and fits and any(len(panel.series) > 1 for panel in panels)


def _names_width(panels: Sequence[Panel], width: float) -> float:
    named = [series for panel in panels if len(panel.series) > 1 for series in panel.series]
    return _LEADER + min(max(theme.text_width(each.name, bold=each.strong) for each in named), width * 0.3)


def _labels_width(axis: Axis, scale: Scale, height: float) -> float:
    return 10.0 + max((theme.text_width(text) for _, text in _ticks(axis, scale, most_rows(height))), default=0.0)


def _ticks(axis: Axis, scale: Scale, most: int) -> list[tuple[float, str]]:
    places = list(axis.ticks) or scale.ticks(most)
    if isinstance(scale, scales.Linear) and not axis.ticks:
        return list(zip(places, axis.unit.ticks(places), strict=True))
    return [(place, axis.unit.text(place)) for place in places]


def _plot(panel: Panel, frame: Frame, x: Axis, spans: Sequence[Span], *, room: float, last: bool) -> Iterator[Element]:
    yield from _spans(frame, spans)
    yield from y_axis(frame, panel.y)
    yield from x_axis(frame, x, named=last)
    for series in panel.series:
        yield element("g", *_areas(series, frame), *_lines(series, frame), class_=series.tone)
    for series in panel.series:
        yield element("g", *_markers(series, frame), class_=f"{series.tone} markers")
    yield from _limits(panel, frame)
    yield from _inner_names(panel, frame, spans)
    if frame.right >= _WIDE_ENOUGH * 0.8:  # nothing hovers over a telephone
        yield element("g", *_strips(panel, frame, x), class_="strips")
    if room and len(panel.series) > 1:
        yield from _names(panel, frame, room)
    if not any(known(value) for series in panel.series for _, value in series.points):
        yield element(
            "text", "no numbers", class_="soft", x=frame.left + frame.width / 2, y=frame.top + frame.height / 2,
            text_anchor="middle",
        )  # fmt: skip


def y_axis(frame: Frame, axis: Axis) -> Iterator[Element]:
    """Lines across the plot, and their numbers."""
    for place, text in _ticks(axis, frame.y_scale, most_rows(frame.height)):
        y = frame.y(place)
        yield element("path", class_="grid", d=f"M{number(frame.left)} {number(y)}h{number(frame.width)}")
        yield element("text", text, class_="tick soft", x=frame.left - 8, y=y + 4, text_anchor="end")


def x_axis(frame: Frame, axis: Axis, *, named: bool = True) -> Iterator[Element]:
    """The line below the plot, its ticks and, if it is to be named, their numbers."""
    most = max(2, int(frame.width / (24 if axis.kind == "category" else 50)))
    yield from named_axis(frame, axis.label, _ticks(axis, frame.x_scale, most), named=named)


def named_axis(
    frame: Frame, label: str, ticks: Sequence[tuple[float, str]], *, named: bool = True
) -> Iterator[Element]:
    """As `x_axis`, with these ticks: (value, text)."""
    places = [frame.x(place) for place, _ in ticks]
    texts = [text for _, text in ticks]
    stubs = "".join(f"M{number(place)} {number(frame.bottom)}v5" for place in places)
    yield element("path", class_="axis", d=f"M{number(frame.left)} {number(frame.bottom)}h{number(frame.width)}{stubs}")
    if not named:
        return
    step = labels.every(places, texts)
    for place, text in zip(places[::step], texts[::step], strict=True):
        yield element("text", text, class_="tick soft", x=place, y=frame.bottom + 19, text_anchor="middle")
    if label:
        middle = frame.left + frame.width / 2
        yield element("text", label, class_="soft", x=middle, y=frame.bottom + 38, text_anchor="middle")


def marker(series: Series, x: float, y: float) -> Element:
    """The sign of a series."""
    kind = "hollow" if series.expected else "marker"
    return element(
        "path", class_=kind, d=theme.MARKERS[series.shape or 0], transform=f"translate({number(x)} {number(y)})"
    )


def _spans(frame: Frame, spans: Sequence[Span]) -> Iterator[Element]:
    for span in spans:
        left, right = frame.x(span.start), frame.x(span.end)
        if right > left:
            yield element("rect", class_="span", x=left, y=frame.top, width=right - left, height=frame.height)


def _inner_names(panel: Panel, frame: Frame, spans: Sequence[Span]) -> Iterator[Element]:
    """The names of spans and limits, where they are least in the way."""
    lines = [place for series in panel.series for piece in _pieces(series, frame) for place in _dots(piece)]
    wanted = [(span.label, "halo soft", list(_span_boxes(span, frame))) for span in spans if span.label]
    for limit in panel.limits:
        if known(limit.y):
            text = f"{limit.label} \u2191" if _is_beyond(limit, frame) else limit.label
            wanted.append((text, "halo over", list(_limit_boxes(text, frame.y(limit.y), frame))))
    taken: list[labels.Box] = []
    for text, style, boxes in wanted:
        box = labels.freest(boxes, taken, lines)
        if box:
            taken.append(box)
            yield element("text", text, class_=style, x=box.left, y=box.bottom - 4)


def _pieces(series: Series, frame: Frame) -> list[list[tuple[float, float]]]:
    """The line, in pixels, cut where a value is not known."""
    pieces: list[list[tuple[float, float]]] = [[]]
    for x, value in series.points:
        if known(value) and known(x):
            pieces[-1].append((frame.x(x), frame.y(value)))
        elif pieces[-1]:
            pieces.append([])
    return [piece for piece in pieces if piece]


def _areas(series: Series, frame: Frame) -> Iterator[Element]:
    for piece in _pieces(series, frame) if series.filled else []:
        closed = [(piece[0][0], frame.bottom), *piece, (piece[-1][0], frame.bottom)]
        yield element("polygon", class_="area", points=points(closed))


def _lines(series: Series, frame: Frame) -> Iterator[Element]:
    style = "line dashed" if series.expected else "line thick" if series.strong else "line"
    for piece in _pieces(series, frame):
        if len(piece) > 1:
            yield element("polyline", class_=style, points=points(piece))


def _markers(series: Series, frame: Frame) -> Iterator[Element]:
    pieces = _pieces(series, frame)
    few = sum(len(piece) for piece in pieces) <= _MOST_MARKERS
    for piece in pieces:
        for x, y in piece if few or len(piece) == 1 else []:
            yield marker(series, x, y)


def _limits(panel: Panel, frame: Frame) -> Iterator[Element]:
    for limit in panel.limits:
        if known(limit.y) and not _is_beyond(limit, frame):
            line = f"M{number(frame.left)} {number(frame.y(limit.y))}h{number(frame.width)}"
            yield element("path", class_="limit", d=line)


def _is_beyond(limit: Limit, frame: Frame) -> bool:
    return isinstance(frame.y_scale, scales.Linear) and limit.y > frame.y_scale.high


def _limit_boxes(text: str, y: float, frame: Frame) -> Iterator[labels.Box]:
    """Where the name of a limit may be: above or below the line, at its begin, its end or its middle."""
    width = theme.text_width(text)
    room = frame.width - width - 16
    for top in (y - LINE_HEIGHT - 2, y + 4):
        if frame.top - LINE_HEIGHT / 2 <= top and top + LINE_HEIGHT <= frame.bottom:
            for part in (0.0, 1.0, 0.5, 0.25, 0.75):
                left = frame.left + 8 + part * max(room, 0.0)
                yield labels.Box(left, top, left + width, top + LINE_HEIGHT)


def _dots(piece: Sequence[tuple[float, float]]) -> Iterator[tuple[float, float]]:
    """Places along a line, a few pixels apart."""
    yield piece[0]
    for (x0, y0), (x1, y1) in pairwise(piece):
        steps = max(1, int(max(abs(x1 - x0), abs(y1 - y0)) / 6))
        for step in range(1, steps + 1):
            yield x0 + (x1 - x0) * step / steps, y0 + (y1 - y0) * step / steps


def _span_boxes(span: Span, frame: Frame) -> Iterator[labels.Box]:
    """Where the name of a span may be, if it is wide enough: at the top, the bottom or the middle."""
    width = theme.text_width(span.label)
    left = (frame.x(span.start) + frame.x(span.end) - width) / 2
    if frame.x(span.end) - frame.x(span.start) >= width + 8:
        for part in (0.0, 1.0, 0.5):
            top = frame.top + 2 + part * (frame.height - LINE_HEIGHT - 4)
            yield labels.Box(left, top, left + width, top + LINE_HEIGHT)


def _strips(panel: Panel, frame: Frame, x: Axis) -> Iterator[Element]:
    places = sorted({place for series in panel.series for place, _ in series.points if known(place)})
    found = [(series.name, dict(series.points)) for series in panel.series]
    middles = [frame.x(place) for place in places]
    edges = [frame.left, *((a + b) / 2 for a, b in pairwise(middles)), frame.right] if middles else []
    for place, (left, right) in zip(places, pairwise(edges), strict=True):
        lines = [f"{name}: {panel.y.unit.text(values.get(place))}" for name, values in found]
        title = element("title", "\n".join([f"{x.label} {x.unit.text(place)}".strip(), *lines]))
        yield element(
            "rect", title, class_="hit", x=left, y=frame.top, width=max(right - left, 0.0), height=frame.height
        )


def _names(panel: Panel, frame: Frame, room: float) -> Iterator[Element]:
    named = [(series, pieces[-1][-1]) for series in panel.series if (pieces := _pieces(series, frame))]
    places = labels.spread([y for _, (_, y) in named], LINE_HEIGHT, frame.top, frame.bottom)
    edge = frame.right + _LEADER
    for (series, (x, y)), place in zip(named, places, strict=True):
        path = f"M{number(x + 6)} {number(y)}L{number(max(edge - 6, x + 8))} {number(place)}h3"
        name = labels.shortened(series.name, room / 1.08 if series.strong else room)
        yield element(
            "g",
            element("path", class_="leader", d=path),
            element("text", name, class_="tone strong" if series.strong else "tone", x=edge, y=place + 4),
            class_=series.tone,
        )
