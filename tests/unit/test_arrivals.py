"""Arrival processes, held to the numbers that they promise.

Bounds are six standard deviations of what is compared, or as seldom passed: the odds that a process as it should be
fails here are below one in a million.
"""

from __future__ import annotations

import math
import tracemalloc
from itertools import pairwise

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paceline.core.errors import ConfigError
from paceline.loadtest.arrivals import (
    KINDS,
    AnyArrivals,
    BlackFriday,
    Constant,
    Diurnal,
    Gamma,
    Mmpp,
    Poisson,
    Trace,
    parse,
)

SIGMAS = 6.0
EVERY = [
    Constant(rate=800.0),
    Poisson(rate=800.0),
    Gamma(rate=800.0, cv=3.0),
    Mmpp(rate=800.0, burst_s=0.1),
    Diurnal(rate=800.0, period_s=7.0),
    Diurnal(rate=800.0),
    BlackFriday(rate=800.0),
    Trace.of(np.sort(np.random.default_rng(5).uniform(0, 30, 20_000)), rate=800.0),
]
SEEDS = st.integers(0, 2**32)
RATES = st.floats(0.5, 20_000)


def drawn(arrivals: AnyArrivals, duration_s: float, seed: int = 0) -> np.ndarray:
    return np.concatenate([np.zeros(0), *arrivals.blocks(duration_s, np.random.default_rng(seed))])


def count_deviation(arrivals: AnyArrivals, expected: float) -> float:
    """Standard deviation of the number of arrivals."""
    if isinstance(arrivals, Gamma):
        return arrivals.cv * math.sqrt(expected)
    if isinstance(arrivals, Mmpp):
        share, factor, burst_s = arrivals.burst_share, arrivals.burst_factor, arrivals.burst_s
        quiet = arrivals.rate / (1 - share + share * factor)
        memory_s = burst_s * (1 - share)
        duration_s = expected / arrivals.rate
        swings = 2 * share * (1 - share) * (quiet * (factor - 1)) ** 2 * memory_s * duration_s
        return math.sqrt(expected + swings)
    return math.sqrt(expected)


def is_exponential(gaps: np.ndarray) -> None:
    """Of mean one, by the inequality of Dvoretzky, Kiefer, Wolfowitz and Massart."""
    found = np.sort(gaps)
    steps = np.arange(1, found.size + 1) / found.size
    assert np.abs(steps - -np.expm1(-found)).max() < math.sqrt(math.log(2e9) / (2 * found.size)) + 1 / found.size


@pytest.mark.parametrize("arrivals", EVERY, ids=repr)
@pytest.mark.parametrize("duration_s", [0.001, 3.7, 30.0])
def test_instants_ascend_within_the_duration_and_depend_on_the_seed_alone(arrivals, duration_s):
    found = drawn(arrivals, duration_s, seed=3)
    assert (np.diff(found) >= 0).all()
    assert found.size == 0 or (found[0] >= 0 and found[-1] < duration_s)
    assert np.array_equal(found, drawn(arrivals, duration_s, seed=3))
    if not isinstance(arrivals, Constant | Trace) and duration_s > 1:
        assert not np.array_equal(found, drawn(arrivals, duration_s, seed=4))


@pytest.mark.parametrize("arrivals", EVERY, ids=repr)
def test_they_travel_to_another_process(arrivals):
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(arrivals), type=AnyArrivals) == arrivals


@pytest.mark.slow
@settings(derandomize=True, max_examples=30)
@given(seed=SEEDS, rate=RATES, count=st.integers(500, 20_000), cv=st.floats(0.05, 10), share=st.floats(0.02, 0.9))
def test_the_mean_rate_is_the_one_that_was_asked_for(seed, rate, count, cv, share):
    duration_s = count / rate
    for arrivals in (
        Poisson(rate=rate),
        Gamma(rate=rate, cv=cv),
        Diurnal(rate=rate, peak=1.9),
        BlackFriday(rate=rate, peak=20.0),
        Mmpp(rate=rate, burst_share=share, burst_s=max(1e-3, duration_s / 2000)),
    ):
        if duration_s < 500 * getattr(arrivals, "burst_s", 0.0):
            continue  # too few bursts for the bound, which is that of many
        found = drawn(arrivals, duration_s, seed).size
        # Far from the normal distribution, which the bound is of, an extra hair for clumps of `cv` squared.
        bound = SIGMAS * count_deviation(arrivals, count) + 20 * getattr(arrivals, "cv", 1.0) ** 2
        assert abs(found - count) <= bound, arrivals


def test_evenly_spaced_arrivals_are_as_many_as_asked_for():
    for duration_s in (1.0, 10.0, 3600.0):
        found = drawn(Constant(rate=100.0), duration_s)
        assert found.size == 100 * duration_s
        assert np.abs(np.diff(found) - 0.01).max() < 1e-11, "rounding does not add up"


@pytest.mark.slow
@settings(derandomize=True, max_examples=40)
@given(seed=SEEDS, rate=RATES, cv=st.floats(0.05, 4))
def test_gaps_vary_as_much_as_asked_for(seed, rate, cv):
    count = 30_000
    gaps = np.diff(drawn(Gamma(rate=rate, cv=cv), count / rate, seed))
    deviation = cv * math.sqrt((1 + cv**2) / (2 * gaps.size))
    assert abs(gaps.std() / gaps.mean() - cv) <= SIGMAS * deviation + 10 * cv**3 / count


@settings(derandomize=True, max_examples=20)
@given(seed=SEEDS, rate=RATES)
def test_gaps_of_a_poisson_process_are_exponential(seed, rate):
    is_exponential(np.diff(drawn(Poisson(rate=rate), 20_000 / rate, seed)) * rate)


@pytest.mark.slow
def test_the_longest_and_the_shortest_gap_are_not_clipped():
    """Of n gaps of mean one the longest is about ln n, the shortest about 1/n."""
    gaps = np.diff(drawn(Poisson(rate=1000.0), 1000.0, seed=11)) * 1000.0
    assert math.log(gaps.size / 16.2) < gaps.max() < math.log(gaps.size) + 16.2
    assert 1e-7 < gaps.min() * gaps.size < 16.2


@pytest.mark.slow
def test_a_process_is_the_same_at_the_start_as_later():
    """Clumpy arrivals do not begin with a clump: the first second has as many as any."""
    process = Gamma(rate=50.0, cv=4.0)
    starts = [drawn(process, 1.0, seed).size for seed in range(3000)]
    assert abs(np.mean(starts) - 50.0) < SIGMAS * np.std(starts) / math.sqrt(len(starts))


@pytest.mark.parametrize("arrivals", [Diurnal(rate=900.0, period_s=0.3), Diurnal(rate=900.0), BlackFriday(rate=900.0)])
def test_a_shaped_process_is_a_poisson_process_in_its_own_time(arrivals):
    """Across the borders of blocks and pieces of its curve, too."""
    is_exponential(np.diff(arrivals.expected(drawn(arrivals, 40.0, seed=2), 40.0)))


@pytest.mark.parametrize(
    "arrivals", [Poisson(rate=5000.0), Mmpp(rate=5000.0, burst_factor=1.0), Gamma(rate=5000.0, cv=1.0)]
)
def test_borders_of_blocks_leave_no_trace(arrivals):
    blocks = [block for block in arrivals.blocks(400.0, np.random.default_rng(8)) if block.size]
    gaps = np.array([after[0] - before[-1] for before, after in pairwise(blocks)]) * 5000.0
    assert gaps.size > 400
    is_exponential(gaps)


def test_a_diurnal_load_starts_at_its_lowest_and_peaks_at_noon():
    process = Diurnal(rate=2000.0, period_s=10.0, peak=1.8)
    found = drawn(process, 40.0, seed=1) % 10.0
    night, noon = np.histogram(found, bins=[0.0, 0.5, 4.75, 5.25, 10.0])[0][[0, 2]] / (0.5 * 4)
    assert night == pytest.approx(2000 * 0.2, rel=0.25)
    assert noon == pytest.approx(2000 * 1.8, rel=0.15)


def test_black_friday_is_quiet_until_the_ramp_and_peaks_where_it_should():
    process = BlackFriday(rate=2000.0, peak=10.0, at=0.5, ramp=0.01, decay=0.1)
    quiet, peak, late = np.histogram(drawn(process, 100.0, seed=1), bins=[0, 49, 50, 51, 90, 100])[0][[0, 2, 4]]
    assert peak / 1.0 == pytest.approx(10 * quiet / 49.0, rel=0.15)
    assert late / 10.0 == pytest.approx(quiet / 49.0, rel=0.4), "nearly back"


def test_bursts_take_their_share_of_the_time():
    process = Mmpp(rate=2000.0, burst_factor=20.0, burst_share=0.1, burst_s=0.5)
    gaps = np.diff(drawn(process, 2000.0, seed=1)) * 2000.0
    quiet = 1 / (0.9 + 0.1 * 20)
    assert np.var(gaps) == pytest.approx(2 * (0.9 / quiet + 0.1 / (20 * quiet)) - 1, rel=0.2)


@pytest.mark.slow
@pytest.mark.parametrize(
    "arrivals", [Poisson(rate=10_000.0), Mmpp(rate=10_000.0), Diurnal(rate=10_000.0, period_s=1.0)]
)
def test_memory_is_that_of_a_block_however_long_it_goes_on(arrivals):
    tracemalloc.start()
    try:
        count = sum(block.size for block in arrivals.blocks(300.0, np.random.default_rng(0)))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count > 2_000_000
    assert peak < 2 << 20


def test_a_trace_is_played_as_it_was_recorded():
    recorded = np.array([1000.0, 1000.5, 1003.0, 1010.0])
    trace = Trace.of(recorded)
    assert (trace.rate, trace.span_s) == (0.3, 10.0)
    assert drawn(trace, 60.0).tolist() == [0.0, 0.5, 3.0, 10.0]
    assert drawn(trace, 5.0).tolist() == [0.0, 0.5, 3.0]


def test_a_trace_runs_faster_for_another_rate_or_time_scale():
    recorded = np.array([0.0, 0.5, 3.0, 10.0])
    assert drawn(Trace.of(recorded, rate=3.0), 60.0) == pytest.approx([0.0, 0.05, 0.3, 1.0])
    assert drawn(Trace.of(recorded, time_scale=2.0), 60.0) == pytest.approx([0.0, 1.0, 6.0, 20.0])


@settings(derandomize=True, max_examples=20)
@given(seed=SEEDS, factor=st.floats(0.1, 5), scale=st.floats(0.1, 5))
def test_a_trace_with_a_rate_and_a_time_scale_keeps_its_pattern(seed, factor, scale):
    """Arrivals are left out, or added, and where none were recorded none are."""
    recorded = np.concatenate([np.linspace(0, 10, 3000), np.linspace(40, 50, 9000)])
    natural = (recorded.size - 1) / 50.0
    trace = Trace.of(recorded, rate=natural / scale * factor, time_scale=scale)
    found = drawn(trace, 1000.0, seed)
    assert (np.diff(found) >= 0).all()
    expected = recorded.size * factor
    assert abs(found.size - expected) <= SIGMAS * math.sqrt(recorded.size) / 2 + 1
    early, late = (found < 10.0 * scale).sum(), (found >= 40.0 * scale).sum()
    assert early == pytest.approx(expected / 4, rel=0.35)
    assert late == pytest.approx(expected * 3 / 4, rel=0.2)
    assert found.size - early - late <= factor + 1, "only what follows the last one before the break"


@pytest.mark.parametrize(
    ("kind", "rate", "options", "message", "hint"),
    [
        ("gama", 1.0, {}, "got 'gama'", "did you mean 'gamma'?"),
        ("poisson", 0.0, {}, "poisson arrivals: rate: expected more than 0, got 0", None),
        ("poisson", math.nan, {}, "rate: expected more than 0, got nan", None),
        ("poisson", math.inf, {}, "rate: expected more than 0, got inf", None),
        ("poisson", None, {}, "poisson arrivals need a rate", "such as --rate 200/s"),
        ("poisson", 1.0, {"cv": 2.0}, "cv has no meaning here", "poisson takes nothing but a rate"),
        ("gamma", 1.0, {"peak": 2.0}, "peak has no meaning here", "gamma takes cv"),
        ("gamma", 1.0, {"cv": 0.0}, "cv: expected 0.01 to 100, got 0", None),
        ("mmpp", 1.0, {"burst_share": 1.0}, "burst_share: expected a share between 0 and 1, got 1", None),
        ("diurnal", 1.0, {"peak": 3.0}, "peak: expected 1 to 2", None),
        ("black-friday", 1.0, {"at": 0.1, "ramp": 0.2}, "ramp: expected a share from 0.0001 up to `at`, 0.1", None),
        ("trace", None, {}, "need a file", None),
        ("trace", None, {"file": "/no/such"}, "/no/such: cannot be read", None),
        ("trace", None, {"cv": 1.0}, "cv has no meaning here", "trace takes file, time_scale"),
    ],
)
def test_what_cannot_be_is_refused(kind, rate, options, message, hint):
    with pytest.raises(ConfigError) as raised:
        parse(kind, rate, **options)
    assert message in str(raised.value)
    assert raised.value.hint == hint


def test_options_that_were_not_given_are_left_out():
    assert parse("gamma", 5.0, cv=None, peak=None) == Gamma(rate=5.0)
    assert parse("black-friday", 5.0, peak=3.0) == BlackFriday(rate=5.0, peak=3.0)


def test_every_kind_has_a_name_for_the_command_line(tmp_path):
    file = tmp_path / "trace.txt"
    file.write_text("0\n1\n2.5\n")
    for kind in KINDS:
        made = parse(kind, 4.0, **({"file": file} if kind == "trace" else {}))
        assert made.rate == 4.0
        assert made.__struct_config__.tag == kind


@pytest.mark.parametrize("instants", [[], [1.0], [2.0, 2.0]])
def test_a_trace_needs_two_instants(instants):
    with pytest.raises(ConfigError, match="two or more instants"):
        Trace.of(np.array(instants))
