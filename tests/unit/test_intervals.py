"""Intervals: those of shares against published or exact values, the bootstrap against theory."""

import math

import numpy as np
import pytest
from scipy import stats

from paceline.optimize.judging import intervals
from paceline.optimize.judging.intervals import Z


@pytest.mark.parametrize(("successes", "rows"), [(0, 10), (1, 10), (95, 100), (100, 100), (1990, 2000), (7000, 10_000)])
def test_the_interval_of_a_share_is_exact(successes: int, rows: int):
    found = intervals.share(successes, rows)
    expected = stats.binomtest(successes, rows).proportion_ci(0.95, method="exact")
    assert found == pytest.approx((expected.low, expected.high), abs=1e-9)


@pytest.mark.parametrize(
    ("gained", "lost", "rows"), [(0, 0, 100), (3, 9, 200), (12, 2, 50), (0, 20, 400), (40, 40, 90)]
)
def test_the_paired_interval_holds_what_its_test_does_not_reject(gained: int, lost: int, rows: int):
    low, high = intervals.paired_shares(gained, lost, rows)
    assert -1.0 <= low <= (gained - lost) / rows <= high <= 1.0
    for end, sign in ((low, 1.0), (high, -1.0)):
        losing = most_likely(gained, lost, rows, end)
        spread = math.sqrt(rows * (2 * losing + end - end * end))
        assert (gained - lost - rows * end) / spread == pytest.approx(sign * Z, rel=1e-4)


def most_likely(gained: int, lost: int, rows: int, difference: float) -> float:
    """The probability to lose a row that explains these numbers best, looked for on a fine grid."""
    low, high = max(0.0, -difference), (1.0 - difference) / 2.0
    for _ in range(4):
        tried = np.linspace(low, high, 2001)[1:-1]
        with np.errstate(divide="ignore", invalid="ignore"):
            kept = (rows - gained - lost) * np.log(1.0 - 2.0 * tried - difference)
            turned = [count * np.log(p) if count else 0.0 for count, p in ((gained, tried + difference), (lost, tried))]
        best = tried[np.nanargmax(kept + turned[0] + turned[1])]
        step = (high - low) / 2000
        low, high = max(low, best - 2 * step), min(high, best + 2 * step)
    return float(best)


def test_no_change_on_few_rows_is_no_certainty():
    for rows in (10, 100, 1000):
        width = Z**2 / (rows + Z**2)
        assert intervals.paired_shares(0, 0, rows) == pytest.approx((-width, width))


def test_the_bootstrap_of_a_mean_is_that_of_theory():
    values = np.random.default_rng(1).normal(size=500)
    low, high = intervals.bootstrap(lambda weights: weights @ values / weights.sum(axis=1), 500, seed=3)
    half = Z * values.std() / math.sqrt(500)
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.15 * half)
    again = intervals.bootstrap(lambda weights: weights @ values / weights.sum(axis=1), 500, seed=3)
    assert again == (low, high)


def test_the_bootstrap_leans_to_where_rare_rows_are():
    values = np.random.default_rng(2).lognormal(sigma=1.5, size=300)
    low, high = intervals.bootstrap(lambda weights: weights @ values / weights.sum(axis=1), 300, seed=3)
    assert high - values.mean() > 1.2 * (values.mean() - low)


def test_what_no_resample_defines_has_no_interval():
    found = intervals.bootstrap(lambda weights: np.full(len(weights), math.nan), 50, seed=0)
    assert all(map(math.isnan, found))
    nothing = intervals.paired_rates(
        lambda weights: np.full(len(weights), math.nan), lambda weights: np.full(len(weights), 0.5), 50, seed=0
    )
    assert all(map(math.isnan, nothing))


def test_rates_near_one_have_wide_intervals_on_the_far_side():
    right = np.ones(200)
    right[:2] = 0.0
    perfect = np.ones(200)
    low, high = intervals.paired_rates(mean(perfect), mean(right), 200, seed=0)
    assert low < -0.02 < -0.01 < high
    assert low < intervals.bootstrap(lambda w: mean(right)(w) - mean(perfect)(w), 200, seed=0).low


def mean(values: np.ndarray):
    return lambda weights: weights @ values / weights.sum(axis=1)


def test_how_many_times_the_rows_it_takes():
    times = intervals.factor_needed(lambda times: -0.02 / math.sqrt(times), -0.01)
    assert times == pytest.approx(4.0, rel=0.02)
    assert intervals.factor_needed(lambda _: -1.0, -0.01) is None


@pytest.mark.parametrize("rows", [30, 100])
def test_a_rate_of_one_that_never_varies_is_not_certain(rows: int):
    def perfect(weights):
        return np.ones(len(weights))

    found = intervals.paired_rates(perfect, perfect, rows, seed=0)
    assert found.low < -1.0 / rows
    assert found.high > 1.0 / rows


def test_numbers_that_overflow_when_squared_end_in_an_interval():
    huge = 1e300 * np.random.default_rng(0).standard_normal(50)
    found = intervals.bootstrap(lambda weights: weights @ huge / weights.sum(axis=1), 50, seed=0)
    assert found.low < found.high
