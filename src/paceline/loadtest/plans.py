"""Which steps does a load test have? Each may depend on what the ones before have shown.

A plan is a generator: it yields a `Step`, is sent its `StepResult`, and returns the capacity if it looked for one.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable

from paceline.loadtest.result import Capacity, StepResult
from paceline.loadtest.steps import Step

Plan = Generator[Step, StepResult, Capacity | None]


def fixed(steps: Iterable[Step]) -> Plan:
    """These steps, whatever they show."""
    for step in steps:  # noqa: UP028 - a list cannot be sent the results
        yield step
    return None
