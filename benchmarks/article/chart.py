"""How do the response times look? The article's chart: mean response time against users, a line for each set-up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from benchmarks.article import published
from benchmarks.article.results import OURS, Results
from benchmarks.article.setups import SET_UPS
from paceline.reports import units
from paceline.reports.charts import Axis, Chart, Panel, Series, panels_chart

_TONES: Final = {"a": "orange", "b": "gold", "c": "purple", "d": "gray", OURS: "blue", "e1": "sky"}
_HEIGHT: Final = 300.0


def response_times(found: Sequence[Results]) -> Chart:
    """A plot for each model; what the article published stands in the first."""
    panels = [_panel(results, published.MEANS_S if results is found[0] else {}) for results in found]
    return panels_chart(
        "Mean response time, by users who think for 1-3 s",
        panels,
        x=Axis("Users", units.COUNT, "category"),
        note=f"Dashed: published by {published.AUTHOR}, 2020, on a GPU.",
    )


def _panel(results: Results, known: Mapping[str, Mapping[int, float]]) -> Panel:
    series = []
    for shape, key in enumerate(results.set_ups):
        points = [
            (float(users), 1e3 * results.series[key, users].mean_s)
            for users in results.users
            if (key, users) in results.series
        ]
        series.append(Series(SET_UPS[key].label, points, tone=_TONES.get(key, ""), shape=shape))
        theirs = [(float(users), 1e3 * mean_s) for users, mean_s in known.get(key, {}).items()]
        if theirs:
            series.append(Series(f"({key}) published", theirs, expected=True, tone=_TONES.get(key, ""), shape=shape))
    return Panel(series, Axis(results.title, units.MILLISECONDS, "log"), height=_HEIGHT)
