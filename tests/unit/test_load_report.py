import base64
import json
import re
from html.parser import HTMLParser

import msgspec
import numpy as np
import pytest

from paceline.loadtest.histogram import LatencyHistogram
from paceline.loadtest.reporting import figures, html
from paceline.loadtest.result import Capacity, Latency, Result
from support import results


class Text(HTMLParser):
    """What a reader reads, and the tags that it is in."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags = [""]
        self.words = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        if self.tags[-1] != "style":
            self.words += data + "\n"


def nothing() -> Result:
    return results.result([], slo=results.SLO)


def one_request() -> Result:
    return results.result([results.step_result(1.0, seconds=1.0)])


def both_kinds_of_load() -> Result:
    return results.result([results.step_result(load) for load in (4, 100.0, 200.0)])


def ended_in_the_warm_up() -> Result:
    step = results.step_result(4)
    unknown = Latency(
        count=0, **dict.fromkeys(("mean_ms", "p50_ms", "p90_ms", "p95_ms", "p99_ms", "p999_ms", "max_ms"))
    )
    empty = msgspec.structs.replace(
        step, duration_s=0.0, requests=0, rate=0.0, latency=unknown, failed_latency=unknown, histogram=[], timeline=[],
        batch_rows={}, queue=None, infer=None,
    )  # fmt: skip
    return results.result([empty, empty])


KINDS = [
    results.closed, results.capacity, results.gated, results.failing, results.without_timings,
    nothing, one_request, both_kinds_of_load, ended_in_the_warm_up,
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("made", KINDS)
def test_every_result_has_a_page(made):
    result = made()
    page = html.page(result)
    text = Text(page)
    assert "script" not in text.tags
    assert not re.search(r"\b(nan|inf|None)\b", text.words)
    assert not re.search(r'="[^"]*\b(nan|inf)\b', page)
    for step in result.steps:
        assert step.label in text.words
    data = re.search(r'href="data:application/json;base64,([^"]+)"', page)
    assert data
    assert msgspec.json.decode(base64.b64decode(data[1]), type=Result) == result


def test_the_page_asks_nobody_for_anything():
    page = html.page(results.gated())
    assert "default-src 'none'; style-src 'unsafe-inline'" in page
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert "url(" not in page
    assert "@import" not in page


def test_what_a_server_says_is_only_text():
    nasty = "<img src=x onerror=alert(1)></style><script>alert(1)</script>"
    result = results.result(
        [results.step_result(2, failing=0.1)], model=nasty, server=nasty, url=nasty, command=nasty, warnings=[nasty],
        machine={nasty: nasty},
    )  # fmt: skip
    text = Text(html.page(result))
    assert "script" not in text.tags
    assert "img" not in text.tags
    assert nasty in text.words


@pytest.mark.slow
@pytest.mark.parametrize(
    ("made", "said"),
    [
        (
            lambda: results.result([results.step_result(1, slo=results.SLO)], slo=results.SLO),
            "p99 \u2264 50 ms was met",
        ),
        (results.failing, "p99 \u2264 50 ms was missed in every step"),
        (results.failing, "No request succeeded"),
        (results.capacity, "Capacity: 1.6k/s at p99 \u2264 50 ms"),
        (results.gated, "1 of 2 gates failed"),
        (results.gated, "the baseline was measured on another machine"),
        (lambda: results.result([results.step_result(8, cpu=0.97)]), "The client was in the way"),
        (nothing, "Nothing was measured"),
    ],
)
def test_the_verdict_comes_first(made, said: str):
    before_the_charts = html.page(made()).split("<h2>")[0]
    assert said in Text(before_the_charts).words.replace("\u00a0", " ")


def test_a_capacity_that_the_client_has_cut_short_is_a_least_one():
    result = results.result(
        [results.step_result(400.0, slo=results.SLO)],
        slo=results.SLO,
        capacity=Capacity(rate=400.0, missed_at=None, why="the client was the limit", lower_bound=True),
    )
    assert "Capacity: at least 400/s" in Text(html.page(result)).words


@pytest.mark.slow
def test_the_highest_load_that_met_the_slo_is_opened():
    page = html.page(results.closed())
    opened = re.findall(r'<details class="fold" open[^>]*><summary><span>([^<]*)', page)
    assert opened == ["32 users"]


@pytest.mark.slow
def test_server_timings_stand_beside_the_clients():
    assert titles(results.closed()) >= {"Where the time goes", "Rows in a batch by users"}
    assert not titles(results.without_timings()) & {"Where the time goes", "Rows in a batch by users"}
    assert figures.split(results.closed().steps[0])
    assert figures.split(results.without_timings().steps[0]) is None
    assert figures.batches(results.without_timings().steps[0]) is None


def titles(result: Result) -> set[str]:
    return set(re.findall(r"<figcaption>([^<]*)", html.page(result)))


def test_one_step_is_compared_with_nothing():
    result = results.gated()
    assert figures.response_time(result) is None
    assert figures.throughput(result) is None
    assert "By load" not in html.page(result)


def test_of_a_load_that_was_repeated_the_slowest_is_drawn():
    calm, slow = results.step_result(200.0), results.step_result(1900.0)
    repeated = msgspec.structs.replace(slow, label=calm.label, offered_rate=201.0)
    steps, axis = figures.compared(results.result([calm, repeated, results.step_result(400.0)]))
    assert steps[0].latency.p99_ms == slow.latency.p99_ms
    assert len(steps) == 2
    assert axis.label == "Offered requests per second"


def test_times_that_differ_much_stand_on_a_logarithmic_axis():
    fast, slow = results.step_result(1), results.step_result(16)
    fastest = msgspec.structs.replace(fast, latency=msgspec.structs.replace(fast.latency, p50_ms=0.05))
    linear, log = (figures.response_time(results.result([first, slow])) for first in (fast, fastest))
    assert linear
    assert log
    assert ">Response time<" in linear.svg()
    assert ">Response time, logarithmic<" in log.svg()


def test_errors_are_named_with_their_share():
    step = results.step_result(8, failing=0.2)
    chart = figures.errors(step)
    assert chart
    assert {row[0] for row in chart.table.rows} == {"status 503", "timeout", "reset"}
    assert sum(int(row[-1].split(" (")[0].replace(",", "")) for row in chart.table.rows) == step.failed
    assert figures.errors(results.step_result(8)) is None


def test_coarse_columns_keep_every_count_and_its_place():
    random = np.random.default_rng(1)
    for spread in (0.0, 0.01, 0.5, 1.2):
        histogram = LatencyHistogram()
        values = random.lognormal(0, spread, 5000) * 1e-3
        histogram.add(values)
        columns = figures.coarse([(bound * 1e3, count) for bound, count in histogram.buckets()], 48)
        assert sum(count for *_, count in columns) == 5000
        assert len(columns) <= 48
        for low, high, count in columns:
            exact = ((values * 1e3 >= low) & (values * 1e3 < high)).sum()
            assert count == exact


def test_many_batch_sizes_share_columns():
    step = msgspec.structs.replace(results.step_result(2), batch_rows={1: 5, 700: 10, 1000: 5})
    chart = figures.batches(step)
    assert chart
    assert len(chart.table.rows) <= 64
    assert [row[0] for row in chart.table.rows][:2] == ["1\u201316", "17\u201332"]


@pytest.mark.slow
def test_a_step_of_an_hour_is_no_longer_than_one_of_a_minute():
    short, long = (
        len(html.page(results.result([results.step_result(5.0, seconds=seconds)]))) for seconds in (60.0, 3600.0)
    )
    assert long < 1.5 * short
    assert long < 300_000


@pytest.mark.slow
def test_the_page_has_the_numbers_of_its_charts():
    result = results.closed()
    words = Text(html.page(result)).words
    for step in result.steps:
        assert f"{step.requests:,}" in words
    assert json.loads(msgspec.json.encode(result))["schema_version"] == 1
