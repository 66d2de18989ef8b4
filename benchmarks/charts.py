"""How do numbers become a picture? SVG written by hand: no library, readable on light and dark pages."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT = 360, 240
_LEFT, _TOP, _BOTTOM = 58, 64, 46
_GAP = 24
_COLORS = ("#b3261e", "#c77700", "#1a6fb0")
_SHAPES = ("M-4 -4h8v8h-8z", "M0 -5.5l5 9h-10z", "M-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0 -9 0")
_TEXT = 'font-family="system-ui, sans-serif" fill="#222"'


@dataclass(frozen=True)
class Panel:
    """One plot: milliseconds of each call, by series."""

    title: str
    series: Mapping[str, Sequence[float]]


def calls(title: str, panels: Sequence[Panel]) -> str:
    """Plots side by side that share a logarithmic axis of milliseconds."""
    values = [value for panel in panels for series in panel.series.values() for value in series]
    decades = range(math.floor(math.log10(min(values))), math.ceil(math.log10(max(values))) + 1)
    width, height = _LEFT + len(panels) * (_WIDTH + _GAP), _TOP + _HEIGHT + _BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{width}" height="{height}" rx="8" fill="#fff"/>',
        f'<text x="16" y="24" font-size="15" font-weight="600" {_TEXT}>{escape(title)}</text>',
        *_legend(list(panels[0].series)),
        *_scale(decades),
    ]
    for index, panel in enumerate(panels):
        parts += _plot(panel, _LEFT + index * (_WIDTH + _GAP), decades)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _legend(names: Sequence[str]) -> Iterator[str]:
    x = 24
    for name, color, shape in zip(names, _COLORS, _SHAPES, strict=True):
        yield f'<path d="{shape}" transform="translate({x} 43)" fill="{color}"/>'
        yield f'<text x="{x + 10}" y="47" font-size="12" {_TEXT}>{escape(name)}</text>'
        x += 40 + 7 * len(name)


def _scale(decades: range) -> Iterator[str]:
    for power in decades:
        label = f"{10.0**power:g} ms" if power < 3 else f"{10 ** (power - 3)} s"
        y = _height(10.0**power, decades) + 4
        yield f'<text x="{_LEFT - 8}" y="{y:.1f}" font-size="11" text-anchor="end" {_TEXT}>{label}</text>'


def _plot(panel: Panel, left: float, decades: range) -> Iterator[str]:
    for power in decades:
        yield f'<path d="M{left} {_height(10.0**power, decades):.1f}h{_WIDTH}" stroke="#ddd"/>'
    count = max(len(series) for series in panel.series.values())
    places = [left + (call + 0.5) * _WIDTH / count for call in range(count)]
    for call, x in enumerate(places, 1):
        yield _centered(x, _TOP + _HEIGHT + 18, 11, str(call))
    yield _centered(left + _WIDTH / 2, _TOP + _HEIGHT + 36, 12, f"{panel.title}: call")
    for series, color, shape in zip(panel.series.values(), _COLORS, _SHAPES, strict=True):
        points = [(x, _height(value, decades)) for x, value in zip(places, series, strict=True)]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        yield f'<polyline points="{line}" fill="none" stroke="{color}" stroke-opacity="0.35"/>'
        for x, y in points:
            yield f'<path d="{shape}" transform="translate({x:.1f} {y:.1f})" fill="{color}"/>'


def _height(value: float, decades: range) -> float:
    return _TOP + _HEIGHT * (decades[-1] - math.log10(value)) / (decades[-1] - decades[0])


def _centered(x: float, y: float, size: int, text: str) -> str:
    return f'<text x="{x:.1f}" y="{y}" font-size="{size}" text-anchor="middle" {_TEXT}>{escape(text)}</text>'
