import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from paceline.loadtest.histogram import LatencyHistogram

LATENCIES = arrays(np.float64, st.integers(1, 300), elements=st.floats(2e-6, 600.0))
PERCENTS = st.floats(0.1, 100.0)


def counted(*parts):
    found = LatencyHistogram()
    for part in parts:
        found.add(np.asarray(part))
    return found


@given(values=LATENCIES, percent=PERCENTS)
def test_a_percentile_is_within_one_percent(values, percent):
    exact = np.percentile(values, percent, method="inverted_cdf")
    assert counted(values).percentile(percent) == pytest.approx(exact, rel=0.01)


@given(values=LATENCIES, split=st.integers(0, 300))
def test_parts_add_up_to_the_whole(values, split):
    whole, found = counted(values), counted(values[:split], values[split:])
    assert (found.counts == whole.counts).all()
    assert (found.count, found.min_s, found.max_s) == (whole.count, whole.min_s, whole.max_s)
    assert found.mean_s == pytest.approx(whole.mean_s)


@given(values=LATENCIES)
def test_count_mean_minimum_and_maximum_are_exact(values):
    found = counted(values)
    assert found.count == values.size == sum(count for _, count in found.buckets())
    assert found.mean_s == pytest.approx(values.mean())
    assert (found.min_s, found.max_s) == (values.min(), values.max())
    assert found.percentile(100) == values.max()
    assert found.percentile(0) <= values.min() * 1.01


@given(values=LATENCIES)
def test_buckets_hold_what_is_below_their_bound(values):
    found = counted(values)
    for bound, _ in found.buckets():
        below = sum(count for other, count in found.buckets() if other <= bound)
        assert (values < bound * (1 - 1e-9)).sum() <= below <= (values <= bound * (1 + 1e-9)).sum()


def test_nothing_counted_is_no_number():
    found = counted([], [math.nan, math.nan])
    assert found.count == 0
    assert all(math.isnan(number) for number in (found.mean_s, found.percentile(99)))
    assert found.buckets() == []


def test_what_is_no_number_is_left_out():
    found = counted([math.nan, 0.25, math.nan, 0.5])
    assert (found.count, found.mean_s) == (2, 0.375)


def test_what_is_out_of_range_counts_at_its_end():
    found = counted([0.0, 1e-9, 1e6])
    assert found.count == 3
    assert found.percentile(100) == 1e6
    assert found.percentile(50) <= 1.01e-6


def test_single_precision_is_taken_as_it_is():
    assert counted(np.array([0.1], np.float32)).max_s == pytest.approx(0.1, rel=1e-6)
