"""Sums of samples, beside what they should add up to."""

import numpy as np
import pytest

from paceline.loadtest.arrivals import Poisson
from paceline.loadtest.result import Slo
from paceline.loadtest.samples import Outcome
from paceline.loadtest.steps import Ended, OpenLoop, Step, Users
from paceline.loadtest.tally import Tally
from support.queues import packed

OPEN = Step(load=OpenLoop(arrivals=Poisson(rate=100.0)), warmup_s=1.0, duration_s=10.0)
CLOSED = Step(load=Users(count=4, think_s=(0.0, 1.0)), warmup_s=1.0, duration_s=10.0)
DONE = Ended(cpu=0.2, wall_s=10.0)
SLO = Slo(percentile=99.0, latency_ms=50.0)


def due(rate, begin_s=0.0, end_s=11.0):
    return np.arange(begin_s, end_s, 1.0 / rate)


def result(samples, step=OPEN, ended=DONE, slo=SLO, rows=1):
    tally = Tally(step, rows, slo)
    for part in np.array_split(samples, 7):
        tally.add(part)
    return tally.result("", ended)


def steady(rate=100.0, latency_s=0.01):
    times = due(rate)
    return packed(times, np.full(times.size, latency_s))


def test_the_warm_up_is_shown_and_does_not_count():
    samples = steady()
    samples["latency_s"][samples["due_s"] < 1.0] = 0.9
    found = result(samples)
    assert found.requests == found.latency.count == 1000
    assert found.latency.max_ms == pytest.approx(10.0)
    assert found.offered_rate == 100.0
    assert found.timeline[0].at_s == -1.0
    assert found.timeline[0].p50_ms == pytest.approx(900.0, rel=0.01)
    assert found.timeline[-1].p50_ms == pytest.approx(10.0, rel=0.01)


def test_users_who_wait_when_the_counting_begins_count_if_most_of_it_came_after():
    """A server that stops during the warm-up: nothing more is due, for nobody has an answer."""
    stalled = packed(np.array([0.7, 0.8, 0.9]), np.full(3, 30.0), timeout_s=5.0)
    cold = packed(np.array([0.0, 0.1]), np.full(2, 1.2))  # slow, as the first requests may be
    found = result(np.concatenate([cold, stalled]), CLOSED)
    assert (found.requests, found.errors, found.slo_met) == (3, {"timeout": 3}, False)
    assert result(stalled, OPEN).requests == 0, "others are due in the stall, and count"


def test_latencies_are_those_of_numpy():
    times = due(1000.0)
    latency_s = np.random.default_rng(1).lognormal(-5, 1, times.size)
    found = result(packed(times, latency_s)).latency
    counted = np.sort(latency_s[times >= 1.0] * 1e3)
    expected = [counted[rank - 1] for rank in (5000, 9000, 9500, 9900, 9990)]
    assert [found.p50_ms, found.p90_ms, found.p95_ms, found.p99_ms, found.p999_ms] == pytest.approx(expected, rel=0.01)
    assert (found.count, found.mean_ms) == (counted.size, pytest.approx(counted.mean(), rel=1e-5))
    assert found.max_ms == pytest.approx(counted.max(), rel=1e-6)


def test_a_server_that_falls_behind_does_not_answer_at_the_rate_that_is_asked_of_it():
    """It does 50 a second of 100 that are due: in the end all are answered, but not in time."""
    times = due(100.0)
    answered = (np.arange(times.size) + 1) / 50.0
    found = result(packed(times, answered - times))
    assert found.offered_rate == 100.0
    assert found.rate == pytest.approx(50.0, abs=0.5)
    assert found.latency.count == 1000, "their latencies count all the same"
    assert all(instant.answered == pytest.approx(50.0, abs=4.1) for instant in found.timeline)


def test_goodput_is_what_came_within_the_slo():
    samples = steady()
    samples["latency_s"][::4] = 0.0501
    found = result(samples)
    assert found.rate == pytest.approx(100.0, abs=0.5)
    assert found.goodput == pytest.approx(75.0, abs=0.5)
    assert found.slo_met is False


@pytest.mark.parametrize(("missed", "met"), [(10, True), (11, False)])
@pytest.mark.parametrize("how", ["late", "failed"])
def test_one_in_a_hundred_may_miss_a_promise_of_p99(missed, met, how):
    samples = steady()
    here = np.flatnonzero(samples["due_s"] >= 1.0)[:missed]
    if how == "late":
        samples["latency_s"][here] = 0.2
    else:
        samples["outcome"][here] = Outcome.STATUS
        samples["status"][here] = 503
    found = result(samples)
    assert found.requests == 1000
    assert found.slo_met is met


def test_a_latency_as_long_as_the_slo_meets_it():
    assert result(steady(latency_s=0.05)).slo_met is True


def test_nothing_answered_meets_no_slo():
    found = result(packed(due(100.0), np.full(1100, 9.0), timeout_s=1.0))
    assert (found.slo_met, found.rate, found.goodput) == (False, 0.0, 0.0)
    assert (found.latency.count, found.latency.p50_ms, found.latency.max_ms) == (0, None, None)
    assert found.errors == {"timeout": 1000}
    assert found.failed_latency.p50_ms == pytest.approx(1000.0, rel=0.01)


def test_without_an_slo_there_is_no_goodput():
    found = result(steady(), slo=None)
    assert (found.goodput, found.slo_met) == (None, None)


def test_what_was_never_sent_took_no_time_to_fail():
    samples = packed(due(100.0), np.full(1100, 9.0), timeout_s=1.0)
    samples["outcome"][::2], samples["latency_s"][::2] = Outcome.UNSENT, 0.0
    found = result(samples)
    assert found.errors == {"unsent": 500, "timeout": 500}
    assert found.failed_latency.count == 500
    assert found.failed_latency.p50_ms == pytest.approx(1000.0, rel=0.01)


def test_errors_count_by_kind():
    samples = steady()
    counted = np.flatnonzero(samples["due_s"] >= 1.0)
    for place, (outcome, status) in enumerate(
        [(Outcome.STATUS, 503)] * 3 + [(Outcome.STATUS, 429)] * 2 + [(Outcome.RESET, 0), (Outcome.NOT_CONNECTED, 0)]
    ):
        samples["outcome"][counted[place]], samples["status"][counted[place]] = outcome, status
    found = result(samples)
    assert found.errors == {"status 503": 3, "status 429": 2, "reset": 1, "not connected": 1}
    assert found.failed == 7
    assert found.latency.count == 993


def test_what_was_under_way_at_an_early_end_is_no_error():
    samples = steady()[:600]
    samples["outcome"][-5:] = Outcome.ABANDONED
    found = result(samples, ended=Ended(cpu=0.2, wall_s=5.0))
    assert (found.requests, found.failed, found.duration_s) == (495, 0, 5.0)
    assert found.rate == pytest.approx(99.0, abs=1.0)


def test_a_step_that_ended_in_its_warm_up_has_counted_nothing():
    found = result(steady()[:50], ended=Ended(cpu=0.1, wall_s=0.0))
    assert (found.requests, found.rate, found.offered_rate, found.goodput) == (0, 0.0, 0.0, 0.0)
    assert len(found.timeline) == 2


def test_no_samples_at_all():
    tally = Tally(OPEN, slo=SLO)
    tally.add(steady()[:0])
    found = tally.result("", DONE)
    assert (found.requests, found.slo_met, found.timeline, found.histogram) == (0, False, [], [])


def test_the_time_line_has_stretches_of_one_length_without_gaps():
    samples = steady()
    stalled = samples[(samples["due_s"] < 4.0) | (samples["due_s"] > 6.0)]
    found = result(stalled).timeline
    width = 0.25
    assert [instant.at_s for instant in found] == pytest.approx(np.arange(-1.0, 10.0, width))
    assert [each.due for each in found if 3.0 <= each.at_s < 4.75] == [0.0] * 7
    assert {each.due for each in found if each.at_s >= 5.25} <= {96.0, 100.0, 104.0}


def test_a_stall_shows_as_no_answers_and_then_many():
    """All that was due in the second of the stall is answered at its end."""
    times = due(100.0)
    latency_s = np.where((times >= 4.0) & (times < 5.0), 5.1 - times, 0.001)
    found = {instant.at_s: instant for instant in result(packed(times, latency_s)).timeline}
    assert found[3.25].answered == 0.0
    assert found[4.0].answered >= 400.0
    assert found[3.0].p50_ms == pytest.approx(980.0, rel=0.02)


def test_a_long_step_has_no_more_stretches_than_a_short_one():
    step = Step(load=Users(count=1), warmup_s=0.0, duration_s=7200.0)
    tally = Tally(step)
    times = np.arange(0.0, 7200.0, 1.0)
    tally.add(packed(times, np.full(times.size, 0.5)))
    assert 100 < len(tally.timeline()) <= 120


def test_the_servers_split_and_batches():
    samples = steady()
    samples["queue_s"], samples["infer_s"] = 0.002, 0.005
    samples["batch_rows"][::2] = 8
    found = result(samples, rows=3)
    assert found.queue.p50_ms == pytest.approx(2.0, rel=0.01)
    assert found.infer.p99_ms == pytest.approx(5.0, rel=0.01)
    assert found.batch_rows == {8: 500}
    assert found.rows_per_s == pytest.approx(3 * found.rate)
    assert result(steady()).queue is None


def test_a_closed_loop_offers_what_it_sends():
    found = result(steady(), step=CLOSED)
    assert (found.users, found.think_s, found.offered_rate) == (4, (0.0, 1.0), 100.0)


# -- was the client in the way? ---------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [OPEN, CLOSED], ids=["open", "closed"])
def test_a_client_whose_core_is_full_is_in_the_way(step):
    found = result(steady(), step, ended=Ended(cpu=0.97, wall_s=10.0))
    assert found.client.bottleneck == "the client took 97% of the one core that it can use"
    assert result(steady(), step, ended=Ended(cpu=0.8, wall_s=10.0)).client.bottleneck == ""


@pytest.mark.parametrize(("waited", "in_the_way"), [(0.75, True), (0.65, False)])
def test_a_client_that_gets_no_core_is_in_the_way(waited, in_the_way):
    found = result(steady(), CLOSED, ended=Ended(cpu=0.2, wall_s=10.0, waited=waited))
    assert bool(found.client.bottleneck) is in_the_way


@pytest.mark.parametrize("step", [OPEN, CLOSED], ids=["open", "closed"])
def test_a_client_that_is_late_itself_is_in_the_way(step):
    found = result(steady(latency_s=0.002), step, ended=Ended(cpu=0.2, wall_s=10.0, late_p99_s=0.004))
    assert found.client.late_p99_ms == pytest.approx(4.0)
    assert "1 % of the requests left 4.0 ms late" in found.client.bottleneck


def test_lateness_that_is_small_beside_the_latencies_is_not_in_the_way():
    assert not result(steady(latency_s=0.1), ended=Ended(cpu=0.2, wall_s=10.0, late_p99_s=0.004)).client.bottleneck


def test_who_waits_for_a_connection_waits_for_the_server():
    samples = steady(latency_s=0.4)
    samples["late_s"] = 0.3
    found = result(samples, ended=Ended(cpu=0.2, wall_s=10.0, late_p99_s=0.0001))
    assert found.client.bottleneck == ""


def test_a_client_without_sockets_is_in_the_way():
    samples = steady()
    samples["outcome"][-3:] = Outcome.NO_SOCKET
    found = result(samples)
    assert found.errors == {"no socket": 3}
    assert "no descriptor or port left for a connection, 3 times" in found.client.bottleneck


def test_samples_that_nobody_took_are_told():
    assert "12 samples were lost" in result(steady(), ended=Ended(cpu=0.2, wall_s=10.0, dropped=12)).client.bottleneck


# -- giving up ----------------------------------------------------------------------------------------------------


def test_a_step_is_hopeless_once_the_rest_could_not_make_up_for_it():
    samples = steady()
    samples["latency_s"][samples["due_s"] >= 1.0] = 0.2
    tally = Tally(OPEN, slo=SLO)
    seen = []
    for sample in np.array_split(samples, samples.size):
        tally.add(sample)
        seen.append(tally.hopeless)
    first = seen.index(True)
    missed = (samples["due_s"][: first + 1] >= 1.0).sum()
    assert 0.01 * 1000 < missed <= 0.01 * 1200, "by a few more than the mean number of arrivals, which may vary"
    assert all(seen[first:])


def test_a_hopeless_step_has_missed_the_slo_whatever_comes():
    random = np.random.default_rng(3)
    for share in (0.005, 0.009, 0.011, 0.02):
        samples = steady()
        samples["latency_s"][random.uniform(size=samples.size) < share] = 1.0
        tally = Tally(OPEN, slo=SLO)
        tally.add(samples[:700])
        was = tally.hopeless
        tally.add(samples[700:])
        assert not (was and tally.result("", DONE).slo_met)


def test_a_closed_loop_is_never_hopeless():
    tally = Tally(CLOSED, slo=SLO)
    tally.add(steady(latency_s=1.0))
    assert not tally.hopeless
