"""How are lying bars drawn, by groups, each with its name and its number?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from paceline.reports import labels, scales, theme
from paceline.reports.elements import Element, element, number
from paceline.reports.spec import Axis, Bar, BarGroup, known

_ROW: Final = 24.0
_THICK: Final = 15.0
_HEAD: Final = 28.0
_SPACE: Final = 10.0


@dataclass(frozen=True)
class _Columns:
    """Where names end and bars begin and end."""

    start: float
    end: float
    scale: scales.Linear

    def x(self, value: float) -> float:
        return self.start + self.scale.place(value) * (self.end - self.start)


def draw(groups: Sequence[BarGroup], axis: Axis, width: float, *, shared: bool) -> tuple[list[Element], float]:
    """The bars, and the height that they take."""
    whole = _columns(groups, axis, width)
    parts: list[Element] = []
    top = 0.0
    for group in groups:
        columns = whole if shared else replace(whole, scale=_scale(group.bars))
        if group.name:
            top += _SPACE if parts else 0.0
            name = labels.shortened(group.name, width / 1.08)
            parts.append(element("text", name, class_="strong", x=0, y=top + 14))
            top += _HEAD
        parts.append(
            element("path", class_="axis", d=f"M{number(columns.start)} {number(top)}v{number(len(group.bars) * _ROW)}")
        )
        for bar in group.bars:
            parts.extend(_bar(bar, axis, columns, top, width))
            top += _ROW
    return parts, max(top, _ROW) + 4.0


def _columns(groups: Sequence[BarGroup], axis: Axis, width: float) -> _Columns:
    bars = [bar for group in groups for bar in group.bars]
    names = max((theme.text_width(bar.name, bold=bar.strong) for bar in bars), default=0.0)
    start = min(names, width * 0.42) + 10.0
    ends = [theme.text_width(_label(bar, axis), bold=bar.strong) + 10.0 for bar in bars if known(bar.value)]
    end = max(width - max(ends, default=0.0), start + width * 0.2)
    return _Columns(start, end, _scale(bars))


def _scale(bars: Sequence[Bar]) -> scales.Linear:
    highest = max((bar.value for bar in bars if known(bar.value)), default=0.0)
    return scales.Linear(0.0, highest if highest > 0 else 1.0)


def _bar(bar: Bar, axis: Axis, columns: _Columns, top: float, width: float) -> Iterator[Element]:
    weight = " strong" if bar.strong else ""
    base = top + _ROW / 2 + 4
    name = labels.shortened(bar.name, columns.start - 10)
    yield element("text", name, class_=weight.strip() or None, x=columns.start - 10, y=base, text_anchor="end")
    if not known(bar.value):
        reason = labels.shortened(bar.label or "not known", width - columns.start - 8)
        yield element("text", reason, class_="soft", x=columns.start + 8, y=base)
        return
    end = max(columns.x(bar.value), columns.start + 1.0)
    shape = element(
        "rect",
        element("title", f"{bar.name}: {axis.unit.text(bar.value)}"),
        class_="bar", x=columns.start, y=top + (_ROW - _THICK) / 2, width=end - columns.start, height=_THICK, rx=2,
    )  # fmt: skip
    yield element("g", shape, class_=f"{bar.tone or 'gray'} bars")
    text = labels.shortened(_label(bar, axis), width - end - 8)
    yield element("text", text, class_=f"value{weight}", x=end + 8, y=base)


def _label(bar: Bar, axis: Axis) -> str:
    return bar.label or axis.unit.text(bar.value)
