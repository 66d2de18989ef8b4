import math
import re
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paceline.reports import labels, scales, theme, units
from paceline.reports.charts import (
    Axis,
    Bar,
    BarGroup,
    Chart,
    Dot,
    DotGroup,
    Limit,
    Mark,
    Panel,
    Series,
    Span,
    bar_chart,
    column_chart,
    histogram,
    line_chart,
    panels_chart,
    scatter_chart,
)
from paceline.reports.elements import as_html, element

SVG = "{http://www.w3.org/2000/svg}"
USERS = Axis("Users", units.COUNT, "category")
TIME = Axis("Response time", units.MILLISECONDS)
NASTY = "</svg><script>alert(1)</script> & \"'\x00\x1b\ud800"

finite = st.floats(allow_nan=False, allow_infinity=False, width=32)
anything = st.floats(width=32) | st.none()


def drawn(chart: Chart) -> list[ET.Element]:
    """The chart as a file and as both drawings of a page; each parsed, and free of numbers that cannot be drawn."""
    page = as_html(chart.figure())
    inline = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(inline) == 2
    for text in (chart.svg(), *inline):
        assert not re.search(r'="[^"]*\b(nan|inf)\b', text)
    return [ET.fromstring(text) for text in (chart.svg(), *inline)]


def texts(svg: ET.Element) -> list[str]:
    return [each.text or "" for each in svg.iter() if each.tag.removeprefix(SVG) == "text"]


def lines(svg: ET.Element) -> list[list[tuple[float, float]]]:
    found = [each.get("points") for each in svg.iter() if each.tag.removeprefix(SVG) == "polyline"]
    return [[tuple(map(float, place.split(","))) for place in (points or "").split()] for points in found]  # type: ignore[misc]


def tags(page: str) -> set[str]:
    """As a browser finds them."""
    found: set[str] = set()
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attrs: found.add(tag)  # type: ignore[method-assign]
    parser.feed(page)
    return found


def test_a_line_goes_where_its_numbers_are():
    for svg in drawn(line_chart("T", [Series("a", [(1, 0), (2, 5), (4, 10)])], x=USERS, y=TIME)):
        ((left, bottom), (middle, half), (right, top)) = lines(svg)[0]
        assert middle == pytest.approx((left + right) / 2)  # categories stand as far apart as their neighbors
        assert half == pytest.approx((bottom + top) / 2)
        assert bottom > top
        assert {"0", "10 ms", "1", "2", "4", "Users"} <= {text.replace("\u00a0", " ") for text in texts(svg)}


def test_what_is_not_known_is_a_gap():
    points = [(1, 1.0), (2, 2.0), (3, None), (4, math.nan), (5, 5.0), (6, 6.0)]
    svg, *_ = drawn(line_chart("T", [Series("a", points)], x=USERS, y=TIME))
    assert [len(line) for line in lines(svg)] == [2, 2]


def test_series_differ_by_shape_and_are_named():
    series = [Series(name, [(1, 1), (2, place + 2)]) for place, name in enumerate("abc")]
    for svg in drawn(line_chart("T", series, x=USERS, y=TIME)):
        shapes = {each.get("d") for each in svg.iter() if each.get("class") == "marker"}
        assert len(shapes) == 3
        assert {"a", "b", "c"} <= set(texts(svg))


def test_what_was_published_looks_different():
    svg, *_ = drawn(line_chart("T", [Series("a", [(1, 1), (2, 2)], expected=True)], x=USERS, y=TIME))
    styles = {each.get("class") for each in svg.iter()}
    assert {"line dashed", "hollow"} <= styles


def test_the_one_that_matters_is_thick_and_bold():
    series = [Series("a", [(1, 1), (2, 2)]), Series("b", [(1, 2), (2, 3)], strong=True)]
    svg, *_ = drawn(line_chart("T", series, x=USERS, y=TIME))
    assert sum(each.get("class") == "line thick" for each in svg.iter()) == 1
    assert [each.text for each in svg.iter() if each.get("class") == "tone strong"] == ["b"]


def test_a_limit_far_above_everything_does_not_flatten_it():
    near, far = (
        drawn(line_chart("T", [Series("a", [(1, 1), (2, 2)])], x=USERS, y=TIME, limits=[Limit(limit, "SLO")]))[0]
        for limit in (5.0, 500.0)
    )
    assert "SLO" in texts(near)
    assert "SLO \u2191" in texts(far)
    assert "500\u00a0ms" not in texts(far)


def test_no_text_is_taken_for_markup():
    series = [Series(NASTY, [(1, 1), (2, 2)]), Series("b", [(1, 2)])]
    bars = [BarGroup(NASTY, [Bar(NASTY, 1.0, NASTY), Bar(NASTY, None, NASTY)])]
    charts = [
        line_chart(
            NASTY, series, x=Axis(NASTY), y=Axis(NASTY), limits=[Limit(1, NASTY)], note=NASTY, description=NASTY
        ),
        bar_chart(NASTY, bars, axis=Axis(NASTY), note=NASTY),
        column_chart(NASTY, [(NASTY, 1)], x=Axis(NASTY), y=Axis(NASTY)),
        histogram(NASTY, [(1, 2, 3)], x=Axis(NASTY, kind="log"), y=Axis(NASTY), marks=[Mark(1.5, NASTY)]),
    ]
    for chart in charts:
        for svg in drawn(chart):
            assert not list(svg.iter("script"))
            assert not list(svg.iter(f"{SVG}script"))
        page = as_html(chart.figure())
        assert "script" not in tags(page)
        assert not set("\x00\x1b\ud800") & set(page)


@pytest.mark.slow
@settings(max_examples=50)
@given(
    st.lists(st.tuples(finite, anything), max_size=30), st.sampled_from(["linear", "log", "category"]), st.booleans()
)
def test_any_numbers_make_a_line_chart(points: list[tuple[float, float | None]], kind: str, log: bool):
    points = sorted(dict(points).items())
    y = Axis("y", kind="log" if log else "linear")
    drawn(line_chart("T", [Series("a", points), Series("b", points[:1], filled=log)], x=Axis("x", kind=kind), y=y))  # type: ignore[arg-type]


@pytest.mark.slow
@settings(max_examples=50)
@given(st.lists(st.floats(0, 2.0**100, width=32), max_size=20), st.integers(0, 5))
def test_any_numbers_make_columns_and_bars(values: list[float], marked: int):
    buckets = [(10.0**i, 10.0 ** (i + 1), value) for i, value in enumerate(values)]
    marks = [Mark(2.0 * 10**i, f"p{i}") for i in range(marked)]
    drawn(histogram("T", buckets, x=Axis("x", kind="log"), y=Axis("y"), marks=marks))
    drawn(column_chart("T", [(str(i), value) for i, value in enumerate(values)], x=Axis("x"), y=Axis("y")))
    groups = [BarGroup("g", [Bar(str(i), value) for i, value in enumerate(values)]), BarGroup("h", [Bar("none", None)])]
    drawn(bar_chart("T", groups, axis=Axis("y"), shared=bool(marked)))


def test_panels_share_their_axis():
    panels = [
        Panel([Series("a", [(-1, 1), (10, 2)], filled=True)], Axis("rate", units.PER_SECOND)),
        Panel([Series("b", [(-1, 1), (10, 2)]), Series("c", [(-1, 3), (10, None)])], TIME),
    ]
    chart = panels_chart("T", panels, x=Axis("Time", units.SECONDS), spans=[Span(-1, 5, "warm-up")])
    svg, *_ = drawn(chart)
    first, second, *_ = lines(svg)
    assert [x for x, _ in first] == [x for x, _ in second]
    assert max(y for _, y in first) < min(y for _, y in second)
    assert texts(svg).count("Time") == 1
    assert "warm-up" in texts(svg)
    assert chart.table.rows[1][3] == units.UNKNOWN


def test_bars_are_as_long_as_their_numbers():
    groups = [BarGroup("g", [Bar("a", 10.0), Bar("b", 5.0)]), BarGroup("h", [Bar("c", 1.0)])]
    for shared, last in ((True, 0.1), (False, 1.0)):
        svg, *_ = drawn(bar_chart("T", groups, axis=Axis("n"), shared=shared))
        a, b, c = (float(each.get("width", "")) for each in svg.iter() if each.get("class") == "bar")
        assert b / a == pytest.approx(0.5, abs=0.01)
        assert c / a == pytest.approx(last, abs=0.01)


def test_a_bar_without_a_number_says_why():
    svg, *_ = drawn(bar_chart("T", [BarGroup("", [Bar("a", None, "did not start")])], axis=Axis("n")))
    assert "did not start" in texts(svg)


@pytest.mark.parametrize(
    ("unit", "value", "text"),
    [
        (units.MILLISECONDS, 0.0421, "42.1 \u00b5s"),
        (units.MILLISECONDS, 0.9999, "1 ms"),
        (units.MILLISECONDS, 7.0, "7 ms"),
        (units.MILLISECONDS, 12_345.0, "12.3 s"),
        (units.MILLISECONDS, 0.0, "0 ms"),
        (units.MILLISECONDS, None, "\u2013"),
        (units.MILLISECONDS, math.nan, "\u2013"),
        (units.PER_SECOND, 41_234.0, "41.2k/s"),
        (units.PER_SECOND, 999.96, "1k/s"),
        (units.PER_SECOND, 0.25, "0.25/s"),
        (units.NUMBER, -1500.0, "-1.5k"),
        (units.COUNT, 12.0, "12"),
        (units.PERCENT, 0.0134, "1.34 %"),
        (units.RATIO, 3.14159, "3.14\u00d7"),
    ],
)
def test_numbers_are_short(unit: units.Unit, value: float | None, text: str):
    assert unit.text(value).replace("\u00a0", " ") == text


def test_the_ticks_of_an_axis_look_alike():
    assert units.MILLISECONDS.ticks([0, 500, 1000, 1500]) == ["0", "0.5\u00a0s", "1.0\u00a0s", "1.5\u00a0s"]
    assert units.PERCENT.ticks([0, 0.05, 0.1]) == ["0\u00a0%", "5\u00a0%", "10\u00a0%"]


@given(st.floats(1e-9, 1e12), st.floats(1.001, 1e6), st.integers(2, 12))
def test_ticks_are_few_nice_and_in_range(low: float, ratio: float, most: int):
    for scale in (scales.Linear(low, low * ratio), scales.Log(low, low * ratio)):
        ticks = scale.ticks(most)
        assert len(ticks) <= most
        assert ticks == sorted(ticks)
        for tick in ticks:
            assert low * (1 - 1e-6) <= tick <= low * ratio * (1 + 1e-6)
    step = scales.nice_step(low, most)
    assert round(step / 10.0 ** math.floor(math.log10(step) + 1e-9), 6) in (1, 2, 5)
    assert step * (most - 1) >= low * (1 - 1e-6)


@given(st.lists(st.floats(-50, 250), max_size=12))
def test_names_move_apart_and_keep_their_order(wanted: list[float]):
    places = labels.spread(wanted, 15.0, 0.0, 200.0)
    in_order = [place for _, place in sorted(zip(wanted, places, strict=True))]
    assert all(b - a >= 15.0 - 1e-6 for a, b in zip(sorted(in_order), sorted(in_order)[1:], strict=False))
    assert in_order == sorted(in_order)
    assert all(-1e-6 <= place <= 200.0 + 1e-6 for place in places)


@given(st.lists(st.floats(0, 500), max_size=8), st.floats(1, 200))
def test_no_flag_lies_on_a_pole_or_a_flag(places: list[float], width: float):
    places = sorted(places)
    rows = labels.flags(places, [width] * len(places), gap=0.0)
    for i, left in enumerate(places):
        for j in range(i + 1, len(places)):
            assert rows[i] > rows[j] or places[j] >= left + width


dots = st.builds(Dot, st.text(max_size=12), anything, anything, anything, anything, st.just(""), st.booleans())


@given(st.lists(st.builds(DotGroup, st.text(max_size=8), st.lists(dots, max_size=6)), max_size=3), st.booleans())
@settings(max_examples=40, deadline=None)
def test_any_dots_can_be_drawn(groups: list[DotGroup], log: bool):
    x = Axis("Time", units.MILLISECONDS, "log" if log else "linear")
    drawn(scatter_chart("Quality", groups, x=x, y=Axis("Accuracy"), limits=[Limit(0.5, "allowed")]))


def test_dots_are_named_where_their_names_lie_on_nothing():
    near = [Dot(f"candidate-{i}", 1.0 + i * 1e-3, 0.9) for i in range(12)]
    groups = [DotGroup("accepted", [Dot("chosen", 2.0, 0.95, 0.93, 0.97, strong=True), *near])]
    chart = scatter_chart("Quality", groups, x=TIME, y=Axis("Accuracy"), front=[(1.0, 0.9), (2.0, 0.95)])
    svg = drawn(chart)[0]
    named = [text for text in texts(svg) if text.startswith(("chosen", "candidate"))]
    assert "chosen" in named
    assert len(named) < 13
    assert len(chart.table.rows) == 13
    assert len(lines(svg)) == 1
    (start, end) = lines(svg)[0]
    assert start[0] < end[0]
    assert start[1] > end[1]  # better is higher


def test_what_is_not_known_is_no_dot():
    groups = [DotGroup("a", [Dot("one", math.nan, 1.0)]), DotGroup("b", [Dot("two", 1.0, 2.0)])]
    chart = scatter_chart("Quality", groups, x=TIME, y=Axis("Accuracy"))
    assert [row[0] for row in chart.table.rows] == ["two"]


def _luminance(color: str) -> float:
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(a: str, b: str) -> float:
    darker, lighter = sorted((_luminance(a), _luminance(b)))
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("colors", [theme.LIGHT, theme.DARK], ids=["light", "dark"])
def test_every_color_can_be_read(colors: dict[str, str]):
    for name in ("ink", "soft", "accent", "red", "good", "warn", "bad", *theme.TONES):
        assert _contrast(colors[name], colors["surface"]) >= 4.5, name
        assert _contrast(colors[name], colors["page"]) >= 4.0, name
    for name in ("good", "warn", "bad"):
        assert _contrast(colors["ink"], colors[f"{name}-tint"]) >= 7.0


def test_every_tone_has_its_class():
    sheet = theme.style("chart.css")
    for tone in (*theme.TONES, "red", "accent"):
        assert f".chart .{tone} {{" in sheet


def test_a_number_that_cannot_be_drawn_is_our_bug():
    with pytest.raises(ValueError, match="cannot be drawn"):
        element("rect", x=math.nan)
