"""Are two candidates compared fairly, and is noise taken for noise?"""

import numpy as np
import pytest

from paceline.optimize.measure import Runs, fastest, median_interval, quantile_interval, ratio_of
from paceline.optimize.studying.trial import too_slow


def runs(rounds: list[list[float]], threads: int = 1) -> Runs:
    return Runs(1, threads, [np.array(each) for each in rounds])


def even(seconds: float, threads: int = 1, rounds: int = 12) -> Runs:
    return runs([[seconds] * 20] * rounds, threads)


@pytest.mark.parametrize(
    ("count", "place"), [(1, 0), (5, 0), (6, 0), (8, 0), (9, 1), (12, 2), (20, 5), (25, 7), (50, 17)]
)
def test_the_interval_of_a_median_is_that_of_the_tables(count: int, place: int):
    # Conover's table A3 for the sign test: the largest rank with a probability of 2.5 % at most.
    assert median_interval(np.arange(count, dtype=float)) == (place, count - 1 - place)


def test_the_interval_of_a_median_holds_it_in_95_of_100_cases():
    random = np.random.default_rng(0)
    drawn = np.sort(random.exponential(size=(2000, 15)), axis=1)
    held = [low <= np.log(2) <= high for low, high in map(median_interval, drawn)]
    assert 0.95 <= np.mean(held) <= 0.99


def test_the_interval_of_a_percentile_holds_it_in_95_of_100_cases():
    random = np.random.default_rng(0)
    drawn = random.exponential(size=(1000, 2000))
    held = [low <= -np.log(0.01) <= high for low, high in (quantile_interval(each, 0.99) for each in drawn)]
    assert 0.93 <= np.mean(held) <= 0.98


def test_ratios_are_of_one_round_so_that_a_busy_moment_counts_for_both():
    quiet, busy = [1.0] * 5, [9.0] * 5
    old = runs([quiet, busy, quiet, busy, quiet, busy, quiet])
    new = runs([[seconds / 2 for seconds in each] for each in (quiet, busy, quiet, busy, quiet, busy, quiet)])
    assert ratio_of(old, new) == (2.0, 2.0, 2.0)


def test_one_stalled_round_does_not_move_the_ratio():
    old, new = even(1.0), even(0.5)
    new.rounds[3] = np.array([100.0] * 20)
    speed = new.speed(old)
    assert (speed.ratio, speed.ratio_low, speed.ratio_high) == (2.0, 2.0, 2.0)
    assert speed.median_s == 0.5


def test_a_speed_has_rows_per_second_and_the_tail():
    both = Runs(8, 2, [np.array([0.01] * 98 + [0.5, 0.5])] * 3)
    speed = both.speed(both)
    assert (speed.batch, speed.threads, speed.runs, speed.ratio) == (8, 2, 300, 1.0)
    assert speed.rows_per_s == pytest.approx(800)
    assert speed.p99_s == pytest.approx(0.5)


def test_a_longer_tail_shows_and_a_few_outliers_do_not():
    old = even(1.0, rounds=50)
    long = runs([[0.5] * 18 + [4.0] * 2] * 50)
    assert long.has_longer_tail(old)
    outliers = even(0.5, rounds=50)
    outliers.rounds[0][:3] = 4.0
    assert not outliers.has_longer_tail(old)


def test_more_threads_have_to_be_worth_it():
    base = even(1.0)
    assert fastest([even(0.5, 1), even(0.49, 2)], base).threads == 1
    assert fastest([even(0.5, 1), even(0.3, 2)], base).threads == 2


def reason(new: Runs, old: Runs) -> str:
    return too_slow(new.speed(old), old, new)


def test_a_little_faster_is_not_worth_it():
    assert reason(even(0.97), even(1.0)) == "1.03 times as fast: at least 1.05 times is worth it"
    assert reason(even(1.0), even(1.048)) == "1.04 times as fast: at least 1.05 times is worth it"
    assert reason(even(0.9), even(1.0)) == ""


def test_what_may_be_noise_is_not_faster():
    old, new = even(1.0), even(0.9)
    new.rounds[:5] = [np.array([1.3] * 20)] * 5
    assert "may be noise" in reason(new, old)


def test_faster_in_the_middle_and_slower_at_the_end_is_not_faster():
    long = runs([[0.5] * 18 + [4.0] * 2] * 50)
    assert "99th percentile is longer: 4e+03 ms against 1e+03 ms" in reason(long, even(1.0, rounds=50))
