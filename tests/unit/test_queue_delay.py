"""A policy with a delay, on a virtual clock: who waits for company, how long, and who does not."""

from __future__ import annotations

import pytest

from paceline.core.errors import Overloaded
from paceline.core.requests import InferRequest
from paceline.scheduling import Batch, LatencyModel, Policy, Scheduler

DELAY_S = 0.5
FAST = [(1, 1e-3), (4, 1e-3)]


def scheduler(*, instances: int = 1, delay_s: float = DELAY_S, profile: list[tuple[int, float]] = FAST) -> Scheduler:
    return Scheduler(Policy(4, instances, max_queue_delay_s=delay_s), LatencyModel(profile))


def arrive(to: Scheduler, now: float, *, rows: int = 1, timeout_s: float = 30.0, group: str = "a") -> InferRequest:
    request = InferRequest((), rows, now + timeout_s, _ignore, group)
    to.arrived(request, now)
    to.validate_state()
    return request


def started(by: Scheduler, now: float) -> list[InferRequest]:
    """The requests of the batch that starts now; none when none does."""
    batch = batch_of(by, now)
    return [] if batch is None else batch.requests


def batch_of(by: Scheduler, now: float) -> Batch | None:
    batch, dropped = by.next_batch(now)
    assert not dropped
    by.validate_state()
    return batch


def test_a_single_request_waits_exactly_the_delay():
    one = scheduler()
    request = arrive(one, 10.0)
    assert started(one, 10.0) == started(one, 10.4999) == []
    assert one.next_start() == 10.5
    assert started(one, 10.5) == [request]
    assert request.queue_s == 0.5
    assert one.next_start() == float("inf")


def test_without_a_delay_there_is_nothing_to_look_at_again():
    one = scheduler(delay_s=0.0)
    request = arrive(one, 10.0)
    assert one.next_start() == float("inf")
    assert started(one, 10.0) == [request]


@pytest.mark.parametrize("rows", [[1, 1, 1, 1], [2, 2], [4], [3, 2]])
def test_a_batch_that_nobody_can_join_starts_at_once(rows):
    one = scheduler()
    requests = [arrive(one, 10.0, rows=each) for each in rows]
    fitting = requests if sum(rows) == 4 else requests[:1]
    assert one.next_start() <= 10.0
    assert started(one, 10.0) == fitting


def test_the_delay_counts_from_the_oldest_whatever_its_deadline():
    one = scheduler()
    patient = arrive(one, 10.0, timeout_s=100.0)
    urgent = arrive(one, 10.3, timeout_s=5.0)
    assert one.next_start() == 10.5
    assert started(one, 10.5) == [urgent, patient]


def test_what_a_full_batch_leaves_behind_waits_from_its_own_arrival():
    one = scheduler(instances=2)
    arrive(one, 10.0, rows=3)
    second = arrive(one, 10.2, rows=2)
    assert len(started(one, 10.2)) == 1
    assert one.next_start() == 10.7
    assert started(one, 10.7) == [second]


def test_the_rest_of_a_large_request_waits_for_company():
    one = scheduler(instances=2)
    whole = arrive(one, 10.0, rows=5)
    parts = list(whole.parts or ())
    assert started(one, 10.0) == parts[:1]
    company = arrive(one, 10.1, rows=3)
    assert started(one, 10.1) == [parts[1], company]


def test_when_the_oldest_leaves_the_wait_is_that_of_the_next():
    one = scheduler()
    oldest = arrive(one, 10.0)
    second = arrive(one, 10.2)
    one.cancelled(oldest, 10.3)
    one.validate_state()
    assert started(one, 10.5) == []
    assert one.next_start() == 10.7
    assert started(one, 10.7) == [second]


def test_when_all_leave_nothing_is_waited_for():
    one = scheduler()
    one.cancelled(arrive(one, 10.0), 10.1)
    assert one.next_start() == float("inf")
    assert started(one, 10.5) == []
    arrive(one, 11.0)
    assert one.next_start() == 11.5


@pytest.mark.parametrize("timeout_s", [0.4, 0.1, 0.03])
def test_a_wait_ends_in_time_for_the_deadline_whoever_joins(timeout_s):
    slow = [(1, 0.01), (4, 0.01)]
    one = scheduler(profile=slow)
    request = arrive(one, 10.0, timeout_s=timeout_s)
    start = max(10.0, one.next_start())
    assert start < 10.5
    joined = [arrive(one, start, timeout_s=timeout_s) for _ in range(2)]
    # Timers come late.
    assert started(one, start + 2e-3) == [request, *joined]
    assert start + 2e-3 + one.latency.high(4) <= request.deadline


def test_a_deadline_that_leaves_no_time_to_wait_is_no_reason_to_refuse():
    one = scheduler(profile=[(1, 0.1), (4, 0.1)])
    request = arrive(one, 10.0, timeout_s=one.latency.high(4) + 1e-3)
    assert started(one, 10.0) == [request]
    with pytest.raises(Overloaded):
        arrive(one, 10.0, timeout_s=one.latency.high(4) + 1e-3)


def test_groups_wait_apart():
    one = scheduler(instances=2)
    first = arrive(one, 10.0, group="a")
    others = [arrive(one, 10.1, group="b") for _ in range(4)]
    assert started(one, 10.1) == others
    assert started(one, 10.1) == []
    assert one.next_start() == 10.5
    assert started(one, 10.5) == [first]


def test_a_group_that_cannot_wait_out_another_goes_first():
    one = scheduler(profile=[(1, 0.2), (4, 0.2)])
    urgent = arrive(one, 10.0, group="a", timeout_s=0.5)
    full = [arrive(one, 10.01, group="b") for _ in range(4)]
    # Alone it would wait; behind the batch of the others it would be late.
    batch = batch_of(one, 10.01)
    assert batch is not None
    assert batch.requests == [urgent]
    one.finished(batch, 10.2)
    assert started(one, 10.2) == full


def test_busy_instances_are_waited_for_and_then_nothing_else():
    one = scheduler()
    for _ in range(4):
        arrive(one, 10.0)
    batch = batch_of(one, 10.0)
    assert batch is not None
    late = arrive(one, 10.1)
    assert one.next_start() == float("inf")  # the end of the batch is what to look at next
    one.finished(batch, 11.0)
    assert started(one, 11.0) == [late]


def test_each_of_several_instances_gets_its_full_batch_at_once():
    one = scheduler(instances=3)
    requests = [arrive(one, 10.0) for _ in range(10)]
    assert started(one, 10.0) + started(one, 10.0) == requests[:8]
    assert started(one, 10.0) == []
    assert started(one, 10.5) == requests[8:]


def test_the_halves_of_a_failed_batch_do_not_wait_again():
    one = scheduler()
    requests = [arrive(one, 10.0) for _ in range(4)]
    batch = batch_of(one, 10.0)
    assert batch is not None
    one.failed(batch, 10.1)
    assert started(one, 10.1) == requests[:2]


def test_a_request_that_expires_while_it_waits_is_out_of_the_account():
    one = scheduler(profile=[])
    arrive(one, 10.0, timeout_s=0.2)
    kept = arrive(one, 10.1)
    assert len(one.expired(10.2)) == 1
    one.validate_state()
    assert one.next_start() == 10.6
    assert started(one, 10.6) == [kept]


def _ignore(request: InferRequest) -> None:
    """Nobody waits for the answer."""
