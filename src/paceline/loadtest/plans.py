"""Which steps does a load test have? Each may depend on what the ones before have shown.

A plan is a generator: it yields a `Step`, is sent its `StepResult`, and returns the capacity if it looked for one.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from typing import Final

from paceline.loadtest.result import Capacity, StepResult
from paceline.loadtest.steps import Step, Users

Plan = Generator[Step, StepResult, Capacity | None]

MOST_USERS: Final = 256
_LEAST_GROWTH: Final = 1.05
_MOST_FAILED: Final = 0.05
_SHARE_OF_TIMEOUT: Final = 0.5


def fixed(steps: Iterable[Step]) -> Plan:
    """These steps, whatever they show."""
    for step in steps:  # noqa: UP028 - a list cannot be sent the results
        yield step
    return None


def doubling(
    *,
    duration_s: float = 5.0,
    warmup_s: float = 0.5,
    timeout_s: float = 30.0,
    most_users: int = MOST_USERS,
    seed: int = 0,
) -> Plan:
    """A closed loop of 1, 2, 4, ... users until more of them bring nothing: about a minute at the most, as it comes.

    It ends when two steps in a row have brought less than 5 % more answers than the best one before, when requests fail
    (more than 5 % of them), and when the slowest answers take half of the time that a request has at all.
    """
    users, best, without_gain = 1, 0.0, 0
    while users <= most_users and without_gain < 2:
        found = yield Step(
            load=Users(count=users), warmup_s=warmup_s, duration_s=duration_s, timeout_s=timeout_s, seed=seed
        )
        if found.failed > _MOST_FAILED * found.requests or not found.requests:
            break
        if (found.latency.p99_ms or 0.0) > _SHARE_OF_TIMEOUT * timeout_s * 1e3:
            break
        without_gain = 0 if found.rate > _LEAST_GROWTH * best else without_gain + 1
        best = max(best, found.rate)
        users *= 2
    return None
