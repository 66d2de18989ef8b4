import msgspec
import numpy as np
import pytest

from paceline.loadtest.plans import doubling, fixed
from paceline.loadtest.result import Slo
from paceline.loadtest.steps import Ended, Step, Users
from paceline.loadtest.tally import Tally
from support.queues import QueueServer, packed

SLO = Slo(percentile=99.0, latency_ms=1000.0)


def followed(plan, rate_of, **changed):
    """The numbers of users that a plan goes through on a server of that rate."""
    users, step = [], next(plan)
    try:
        while True:
            assert isinstance(step.load, Users)
            users.append(step.load.count)
            rate = rate_of(step.load.count)
            due = np.arange(0.0, step.warmup_s + step.duration_s, 1.0 / rate)
            samples = packed(due, np.full(due.size, step.load.count / rate), step.timeout_s)
            tally = Tally(step)
            tally.add(samples)
            found = tally.result("", Ended(cpu=0.1, wall_s=step.duration_s))
            step = plan.send(msgspec.structs.replace(found, **changed))
    except StopIteration as end:
        assert end.value is None
    return users


def test_fixed_steps_come_whatever_they_show():
    steps = [Step(load=Users(count=count)) for count in (3, 1, 2)]
    plan = fixed(steps)
    result = QueueServer(0.01).hold(steps[0], SLO)
    assert [next(plan), plan.send(result), plan.send(result)] == steps
    with pytest.raises(StopIteration) as end:
        plan.send(result)
    assert end.value.value is None


def test_no_steps_at_all():
    with pytest.raises(StopIteration):
        next(fixed([]))


@pytest.mark.parametrize(
    ("rate_of", "users"),
    [
        (lambda users: 100.0, [1, 2, 4]),
        (lambda users: min(users, 6) * 100.0, [1, 2, 4, 8, 16, 32]),
        (lambda users: 100.0 * users**0.5, [1, 2, 4, 8, 16, 32, 64, 128, 256]),
        (lambda users: 800.0 / users, [1, 2, 4]),
    ],
    ids=["one at a time", "six at a time", "ever more", "worse with each"],
)
def test_users_double_until_more_bring_nothing(rate_of, users):
    assert followed(doubling(), rate_of) == users


def test_one_step_that_brings_nothing_is_not_the_end():
    rates = {1: 100.0, 2: 101.0, 4: 180.0, 8: 181.0, 16: 182.0}
    assert followed(doubling(), rates.__getitem__) == [1, 2, 4, 8, 16]


def test_it_ends_where_requests_fail():
    assert followed(doubling(), lambda users: 100.0 * users, errors={"status 503": 100}) == [1]


def test_it_ends_where_answers_take_half_of_the_time_that_there_is():
    assert followed(doubling(timeout_s=2.0), lambda users: 0.8 * users) == [1]


def test_it_takes_about_a_minute_at_the_most():
    assert len(followed(doubling(), lambda users: 50.0 * users)) * (5.0 + 0.5) < 60.0


def test_fewer_users_at_the_most():
    assert followed(doubling(most_users=20), lambda users: 100.0 * users) == [1, 2, 4, 8, 16]
