import pytest

from paceline.core.errors import ConfigError
from paceline.loadtest.quantities import parse_duration, parse_range, parse_rate, parse_slo
from paceline.loadtest.result import Slo


@pytest.mark.parametrize(
    ("text", "rate"),
    [("200", 200), ("200/s", 200), (" 0.5 / s ", 0.5), ("90/min", 1.5), ("90/m", 1.5), ("36k/h", 10), ("2M/s", 2e6)],
)
def test_rates(text, rate):
    assert parse_rate(text) == pytest.approx(rate)


@pytest.mark.parametrize("text", ["", "0", "0/s", "-1/s", "fast", "1/x", "1e3", "nan", "inf", "200 per second", "1//s"])
def test_what_is_no_rate(text):
    with pytest.raises(ConfigError, match="expected a rate such as 200/s"):
        parse_rate(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("60", 60), ("60s", 60), ("5m", 300), ("5min", 300), ("1.5h", 5400), ("500ms", 0.5), ("20us", 2e-5), ("0", 0)],
)
def test_times(text, seconds):
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "-1s", "s", "1 fortnight", "1s2s", "nan"])
def test_what_is_no_time(text):
    with pytest.raises(ConfigError, match="expected a time such as 60s"):
        parse_duration(text)


def test_a_time_may_have_a_least():
    with pytest.raises(ConfigError, match=r"expected a time of 0\.1 s or more, got '50ms'"):
        parse_duration("50ms", least_s=0.1)


@pytest.mark.parametrize(
    ("text", "shortest", "longest"),
    [
        ("1s..3s", 1, 3),
        ("1..3s", 1, 3),
        ("1..3", 1, 3),
        ("200..500ms", 0.2, 0.5),
        ("500ms..2s", 0.5, 2),
        ("1.5..3m", 90, 180),
        ("2s", 2, 2),
    ],
)
def test_ranges_of_times(text, shortest, longest):
    assert parse_range(text) == pytest.approx((shortest, longest))


@pytest.mark.parametrize("text", ["3s..1s", "1..", "..3s", "1...3", "", "a..b"])
def test_what_is_no_range(text):
    with pytest.raises(ConfigError):
        parse_range(text)


@pytest.mark.parametrize(
    ("text", "slo"),
    [
        ("p99=50ms", Slo(percentile=99, latency_ms=50)),
        ("p99.9<2s", Slo(percentile=99.9, latency_ms=2000)),
        ("p50<=1ms", Slo(percentile=50, latency_ms=1)),
    ],
)
def test_promises(text, slo):
    assert parse_slo(text) == slo


@pytest.mark.parametrize("text", ["", "99=50ms", "p99", "p100=1s", "p0=1s", "p99=0", "p99=soon", "p99>50ms", "p99=50"])
def test_what_is_no_promise(text):
    with pytest.raises(ConfigError):
        parse_slo(text)
