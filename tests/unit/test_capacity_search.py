"""Is the capacity found where it is? Judged by a queue whose knee is known."""

import re

import msgspec
import numpy as np
import pytest

from paceline.loadtest import capacity
from paceline.loadtest.capacity import Trial, Verdict, judge, next_rate, search
from paceline.loadtest.result import Slo
from paceline.loadtest.steps import OpenLoop, Users
from support.queues import QueueServer, knee

SLO = Slo(percentile=99.0, latency_ms=25.0)
SERVICE_S = 0.002
# A fine sweep: steps of 2 % from half of the most that the server does to all of it, each held three times for 10 s.
SWEEP_S = 3 * 10.0 * np.log(2.0) / np.log(1.02)


@pytest.fixture(scope="module")
def server_knee():
    return knee(QueueServer(SERVICE_S, cv=1.0, seed=1), SLO)


@pytest.mark.slow
def test_the_capacity_is_within_ten_percent_of_the_knee_in_a_tenth_of_a_sweeps_time(server_knee):
    errors, seconds = [], []
    for seed in range(12):
        server = QueueServer(SERVICE_S, cv=1.0, seed=seed)
        found = server.follow(search(SLO, seed=seed), SLO)
        errors.append(found.rate / server_knee - 1.0)
        seconds.append(server.seconds)
    assert abs(np.median(errors)) < 0.05
    assert np.quantile(np.abs(errors), 0.8) < 0.1
    assert np.median(seconds) < SWEEP_S / 10


@pytest.mark.slow
@pytest.mark.parametrize("start_rate", [1.0, 40.0, 5000.0])
def test_it_is_found_from_wherever_the_search_starts(server_knee, start_rate):
    server = QueueServer(SERVICE_S, cv=1.0, seed=2)
    found = server.follow(search(SLO, start_rate=start_rate), SLO)
    assert found.rate == pytest.approx(server_knee, rel=0.15)
    assert found.missed_at <= found.rate * 1.06
    assert not found.lower_bound


@pytest.mark.slow
def test_a_hiccup_does_not_move_it_far(server_knee):
    """One step in ten holds half a second in which nothing is served, as on a machine that others use, too."""
    found = [
        QueueServer(SERVICE_S, cv=1.0, hiccup=0.1, seed=seed).follow(search(SLO, seed=seed), SLO).rate
        for seed in range(10)
    ]
    assert np.median(found) == pytest.approx(server_knee, rel=0.1)
    assert min(found) > 0.7 * server_knee


@pytest.mark.slow
def test_a_loose_promise_does_not_hide_a_queue_that_grows():
    """Ten seconds at 5 % more than it can do make a queue of half a second: within the promise, and not to be held."""
    slo = Slo(percentile=99.0, latency_ms=2000.0)
    server = QueueServer(0.005, seed=3)
    found = server.follow(search(slo), slo)
    assert found.rate == pytest.approx(200.0, rel=0.06)
    assert found.missed_at < 220.0


def test_a_promise_that_no_rate_keeps_has_no_capacity():
    slo = Slo(percentile=99.0, latency_ms=5.0)
    server = QueueServer(0.02)
    found = server.follow(search(slo), slo)
    assert (found.rate, found.goodput) == (0.0, None)
    assert found.why.startswith("p99 was 20\u00a0ms")
    assert found.why.endswith("hardly two requests were there at once, so no lower rate keeps it")
    assert len(server.steps) < 10
    assert found.missed_at > 0.5, "an idle server is no quicker at lower rates"
    assert server.seconds < 60.0, "a step that is hopeless ends at once"


def test_a_search_that_may_not_go_on_says_what_it_knows():
    server = QueueServer(SERVICE_S)
    found = server.follow(search(SLO, start_rate=10.0, most_steps=3), SLO)
    assert len(server.steps) == 3
    assert 10.0 < found.rate < 50.0
    assert (found.missed_at, found.lower_bound) == (None, True)
    assert "the search ended before it was sure" in found.why


@pytest.mark.slow
def test_the_goodput_is_that_of_the_capacity():
    server = QueueServer(SERVICE_S, seed=4)
    found = server.follow(search(SLO), SLO)
    assert 0.95 * found.rate < found.goodput < 1.05 * found.rate


def test_it_starts_at_half_of_what_a_closed_loop_gets():
    plan = search(SLO, step_s=2.0)
    first = next(plan)
    assert isinstance(first.load, Users)
    assert not first.give_up
    second = plan.send(QueueServer(SERVICE_S).hold(first, SLO))
    assert isinstance(second.load, OpenLoop)
    assert second.load.arrivals.rate == pytest.approx(250.0, rel=0.02)
    assert second.give_up


def test_a_rate_that_brings_few_requests_is_held_longer():
    slow, fast = (next(search(SLO, start_rate=rate, step_s=10.0)).duration_s for rate in (25.0, 1000.0))
    assert (slow, fast) == (pytest.approx(20.0), 10.0)
    assert next(search(SLO, start_rate=0.1, step_s=10.0)).duration_s == 30.0, "and no more than three times as long"


# -- which rate comes next -----------------------------------------------------------------------------------------


def trials(**by_rate):
    """`r100="++-"`: at 100 a second two steps met the SLO, and one did not; c: for the client's sake; a: alone."""
    return {
        float(rate[1:]): [
            Trial(Verdict(sign == "+", "", by_client=sign == "c", alone=sign == "a"), None) for sign in signs
        ]
        for rate, signs in by_rate.items()
    }


@pytest.mark.parametrize(
    ("known", "rate"),
    [
        ({}, 100.0),
        ({"r100": "+"}, 140.0),
        ({"r100": "+", "r140": "+"}, 196.0),
        ({"r100": "+", "r140": "+", "r196": "+", "r274": "+"}, 548.0),
        ({"r100": "-"}, 100.0),
        ({"r100": "--"}, 51.0),
        ({"r100": "--", "r51": "--"}, 13.3),
        ({"r100": "c"}, 100.0),
        ({"r100": "cc"}, 51.0),
        ({"r100": "c+"}, 100.0),
        ({"r100": "c++"}, 140.0),
        ({"r100": "+", "r140": "-"}, 118.0),
        ({"r100": "+", "r104": "-"}, 100.0),
        ({"r100": "++", "r104": "-"}, 104.0),
        ({"r100": "++", "r104": "--"}, None),
        ({"r100": "+-", "r104": "-"}, 100.0),
        ({"r100": "+--", "r104": "-", "r90": "+"}, 94.9),
        ({"r100": "++", "r104": "-+"}, 104.0),
        ({"r100": "++", "r104": "-++", "r108": "--"}, None),
        ({"r100": "+", "r120": "+", "r110": "--"}, 105.0),
        ({"r0.06": "--"}, None),
        ({"r100": "a"}, 100.0),
        ({"r100": "a-"}, 51.0),
        ({"r100": "aa"}, None),
    ],
    ids=str,
)
def test_next_rate(known, rate):
    assert next_rate(trials(**known), 100.0) == rate


def test_what_is_known_ends_the_search_whatever_the_order():
    known = trials(r100="++", r104="--", r50="+", r200="-")
    for order in (sorted(known), sorted(known, reverse=True)):
        assert next_rate({rate: known[rate] for rate in order}, 100.0) is None


# -- what a step says -----------------------------------------------------------------------------------------------


def step_at(rate, **options):
    step = msgspec.structs.replace(next(search(SLO, start_rate=rate)), give_up=False)
    return QueueServer(SERVICE_S, **options).hold(step, SLO)


def test_a_step_that_meets_the_slo():
    assert judge(step_at(100.0), SLO).met


def test_a_step_that_misses_it_says_by_how_much():
    verdict = judge(step_at(600.0), SLO)
    assert not verdict.met
    assert re.fullmatch(r"p99 was \d{3}\u00a0ms|p99 was 1[.0-9]*\u00a0s", verdict.why)
    assert not verdict.by_client


def test_failures_count_though_the_rest_is_fast():
    found = step_at(100.0)
    some = msgspec.structs.replace(found, errors={"status 503": found.requests // 20}, slo_met=True)
    assert judge(some, SLO).why == f"{some.failed} of {some.requests} requests failed"
    most = msgspec.structs.replace(found, errors={"status 503": found.requests // 2}, slo_met=False)
    assert judge(most, SLO).why == f"{most.failed} requests failed"


def test_a_client_that_was_late_is_named_where_it_made_the_difference():
    found = step_at(600.0)
    p99_ms = found.latency.p99_ms
    for late_ms, by_client in (((p99_ms - 10.0) / 2, True), ((p99_ms - 100.0) / 2, False)):
        client = msgspec.structs.replace(found.client, late_p99_ms=late_ms, bottleneck="late")
        assert judge(msgspec.structs.replace(found, client=client), SLO).by_client is by_client


@pytest.mark.slow
def test_a_capacity_that_the_client_has_set_is_a_lower_bound():
    plan = search(SLO, start_rate=100.0)
    server, step = QueueServer(SERVICE_S, seed=5), next(plan)
    try:
        while True:
            found = server.hold(msgspec.structs.replace(step, give_up=False), SLO)
            if not found.slo_met:
                client = msgspec.structs.replace(found.client, late_p99_ms=found.latency.p99_ms, bottleneck="late")
                found = msgspec.structs.replace(found, client=client)
            step = plan.send(found)
    except StopIteration as end:
        assert end.value.lower_bound
        assert "the client was in the way, so the server may do more" in end.value.why


@pytest.mark.slow
def test_few_requests_are_said_to_be_few():
    slo = Slo(percentile=99.0, latency_ms=2000.0)
    found = QueueServer(0.3).follow(search(slo, step_s=2.0), slo)
    assert "requests are few for p99" in found.why


def test_the_longest_step_is_bounded():
    assert capacity.TOLERANCE == 0.05
    for rate in (0.001, 1.0, 1e6):
        step = next(search(SLO, start_rate=rate))
        assert 10.0 <= step.duration_s <= 30.0
        assert step.timeout_s == 1.0
