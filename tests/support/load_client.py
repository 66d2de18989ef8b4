"""The client of load tests, as a test uses it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from paceline.loadtest.arrivals import Arrivals, Constant
from paceline.loadtest.generator import Generator
from paceline.loadtest.samples import SAMPLE, Outcome, Samples
from paceline.loadtest.steps import Ended, OpenLoop, Step, Users
from paceline.loadtest.target import Target


class Held(NamedTuple):
    """What a step brought."""

    samples: Samples
    ended: Ended

    @property
    def outcomes(self) -> Counter[Outcome]:
        return Counter(Outcome(int(each)) for each in self.samples["outcome"])

    def of(self, outcome: Outcome) -> Samples:
        chosen: Samples = self.samples[self.samples["outcome"] == outcome]
        return chosen


def target(server: Any, *bodies: bytes, **others: Any) -> Target:
    """What listens at `host` and `port`, asked for /."""
    given = {"protocol": "raw", "path": "/", "bodies": bodies or (b"[1]",), **others}
    return Target(host=server.host, port=server.port, **given)


def users(count: int, *, think_s: tuple[float, float] = (0.0, 0.0), **others: Any) -> Step:
    """A closed loop without a warm-up."""
    return Step(load=Users(count=count, think_s=think_s), **{"warmup_s": 0.0, "duration_s": 0.5, **others})


def open_loop(rate: float, kind: type[Arrivals] = Constant, **others: Any) -> Step:
    """An open loop without a warm-up."""
    load = OpenLoop(arrivals=kind(rate=rate))  # type: ignore[arg-type]
    return Step(load=load, **{"warmup_s": 0.0, "duration_s": 0.5, **others})


def hold(
    generator: Generator, step: Step, watch: Callable[[Samples], None] = lambda _: None, poll_s: float = 0.05
) -> Held:
    """Run a step to its end; `watch` is shown what has come so far, several times a second."""
    generator.begin(step)
    parts = [np.zeros(0, SAMPLE)]
    while generator.ended is None:
        part = generator.poll(poll_s)
        if part is not None:
            parts.append(part)
        watch(np.concatenate(parts))
    return Held(np.concatenate(parts), generator.ended)


def held(to: Target, step: Step) -> Held:
    """Run one step in a client of its own."""
    with Generator(to) as generator:
        return hold(generator, step)
