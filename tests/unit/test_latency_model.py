"""The online estimate of the service time."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paceline.scheduling import LatencyModel, Unpredictable

SIZES = (1, 2, 4, 8, 16, 32)


def profile_of(fixed_s: float, marginal_s: float) -> list[tuple[int, float]]:
    return [(rows, fixed_s + marginal_s * rows) for rows in SIZES]


@settings(max_examples=30)
@given(st.floats(1e-6, 1.0), st.floats(1e-7, 0.1))
def test_the_fit_recovers_fixed_and_marginal_cost(fixed_s: float, marginal_s: float) -> None:
    latency = LatencyModel(profile_of(fixed_s, marginal_s))
    sizes = random.Random(0)
    for _ in range(300):
        rows = sizes.choice(SIZES)
        latency.observe(rows, fixed_s + marginal_s * rows)
    # The pull towards the last slope leaves a trace in the split of a and c, and none worth naming in the sum.
    for rows in SIZES:
        assert latency(rows) == pytest.approx(fixed_s + marginal_s * rows, rel=0.02)
    assert latency.fixed_s == pytest.approx(fixed_s, rel=0.05, abs=0.05 * marginal_s)
    assert latency.marginal_s == pytest.approx(marginal_s, rel=0.05, abs=0.01 * fixed_s)


def test_it_learns_a_and_c_without_a_profile() -> None:
    latency = LatencyModel()
    assert latency(8) == 0.0
    for _ in range(50):
        for rows in SIZES:
            latency.observe(rows, 5e-3 + 1e-3 * rows)
    assert latency.fixed_s == pytest.approx(5e-3, rel=0.02)
    assert latency.marginal_s == pytest.approx(1e-3, rel=0.02)


def test_equal_sizes_move_only_the_fixed_cost() -> None:
    latency = LatencyModel([(8, 5e-3), (8, 5e-3)])
    slope = latency.marginal_s
    for _ in range(30):
        latency.observe(8, 6e-3)
    assert latency.marginal_s == pytest.approx(slope)
    assert latency.fixed_s == pytest.approx(6e-3 - 8 * slope, rel=0.02)


def test_equal_sizes_keep_the_slope_that_the_profile_showed() -> None:
    latency = LatencyModel(profile_of(5e-3, 1e-3))
    for _ in range(1000):
        latency.observe(8, 13e-3)
    assert latency.marginal_s == pytest.approx(1e-3, rel=0.01)
    assert latency(32) == pytest.approx(37e-3, rel=0.01)


@given(st.lists(st.tuples(st.integers(1, 4096), st.floats(0.0, 100.0)), max_size=60))
def test_never_negative(observations: list[tuple[int, float]]) -> None:
    latency = LatencyModel()
    for rows, seconds in observations:
        latency.observe(rows, seconds)
        assert latency.fixed_s >= 0.0
        assert latency.marginal_s >= 0.0
        assert latency.high(rows) >= latency(rows) >= 0.0


def test_a_pause_of_the_machine_is_not_taken_for_the_speed_of_the_model() -> None:
    latency = LatencyModel(profile_of(5e-3, 1e-3))
    for _ in range(100):
        latency.observe(8, 13e-3)
    latency.observe(8, 10.0)
    assert latency(8) < 1.1 * 13e-3
    assert not latency.restarts


def test_drift_is_noticed_and_followed_in_both_directions() -> None:
    for factor in (0.01, 0.3, 3.0, 100.0):
        latency = LatencyModel(profile_of(5e-3, 1e-3))
        for _ in range(100):
            latency.observe(8, 13e-3)
        assert not latency.restarts
        for _ in range(25):
            latency.observe(8, factor * 13e-3)
        assert latency.restarts, factor
        assert latency(8) == pytest.approx(factor * 13e-3, rel=0.25), factor


def test_noise_is_no_drift() -> None:
    noise = random.Random(0)
    latency = LatencyModel(profile_of(5e-3, 1e-3))
    for _ in range(2000):
        rows = noise.choice(SIZES)
        latency.observe(rows, (5e-3 + 1e-3 * rows) * noise.lognormvariate(0.0, 0.2))
    assert not latency.restarts
    assert abs(latency.residual) < 0.1


def test_one_slow_batch_in_ten_is_no_drift() -> None:
    noise = random.Random(0)
    latency = LatencyModel(profile_of(5e-3, 1e-3))
    for _ in range(200):
        latency.observe(8, 13e-3 * (5.0 if noise.random() < 0.1 else 1.0))
    assert latency(8) < 2.5 * 13e-3


def test_high_is_rarely_exceeded() -> None:
    noise = random.Random(0)
    latency = LatencyModel(profile_of(5e-3, 1e-3))
    exceeded = 0
    for _ in range(2000):
        rows = noise.choice(SIZES)
        seconds = (5e-3 + 1e-3 * rows) * noise.lognormvariate(0.0, 0.1)
        exceeded += seconds > latency.high(rows)
        latency.observe(rows, seconds)
    assert exceeded < 0.06 * 2000
    assert latency.high(8) < 1.5 * latency(8)


def test_what_is_unpredictable_teaches_nothing():
    streams = Unpredictable([(1, 1e-3)])
    for _ in range(50):
        streams.observe(1, 60.0)
    assert (streams(1), streams.high(1)) == (Unpredictable([(1, 1e-3)])(1), Unpredictable([(1, 1e-3)]).high(1))
