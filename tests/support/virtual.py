"""The real scheduler under a virtual clock: a minute of load takes a fraction of a second."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from paceline.core.errors import Overloaded
from paceline.core.requests import InferRequest
from paceline.scheduling import Batch, Scheduler

_NEVER = float("inf")


@dataclass
class Report:
    """What became of the requests.

    Attributes:
        answered: (arrival, latency in seconds) of every answered request, in the order of their answers.
        refused: instants at which a request was refused or dropped.
    """

    answered: list[tuple[float, float]] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    batches: int = 0

    @property
    def mean_latency_s(self) -> float:
        return sum(latency for _, latency in self.answered) / len(self.answered)

    def goodput(self, slo_s: float, since: float, until: float) -> float:
        """Answers per second that met the SLO, among the requests that came in that time."""
        good = sum(since <= arrived < until and latency <= slo_s for arrived, latency in self.answered)
        return good / (until - since)


class Simulation:
    """Feeds arrivals to a scheduler, and its batches to instances that take `service(rows)` seconds."""

    def __init__(self, scheduler: Scheduler, service: Callable[[int], float]) -> None:
        self._scheduler = scheduler
        self._service = service
        self._ends: list[tuple[float, int, Batch]] = []
        self._counter = itertools.count()
        self.report = Report()

    def run(self, arrivals: Iterable[float], timeout_s: float = _NEVER) -> Report:
        """Requests of one row at the instants `arrivals`, until the last has ended."""
        for now in arrivals:
            self._advance(now)
            request = InferRequest((), 1, now + timeout_s, _ignore)
            try:
                self._scheduler.arrived(request, now)
            except Overloaded:
                self.report.refused.append(now)
            self._dispatch(now)
        self._advance(_NEVER)
        return self.report

    def run_one_user(self, requests: int, think_s: float) -> Report:
        """One user, who sends the next request `think_s` after the answer."""
        now = 0.0
        for _ in range(requests):
            self._scheduler.arrived(InferRequest((), 1, now + 1.0, _ignore), now)
            self._dispatch(now)
            now = self._ends[0][0]
            self._advance(now)
            now += think_s
        return self.report

    def _advance(self, now: float) -> None:
        while self._ends and self._ends[0][0] <= now:
            end, _, batch = heapq.heappop(self._ends)
            for request in self._scheduler.finished(batch, end):
                self.report.answered.append((request.arrived, end - request.arrived))
            self._dispatch(end)

    def _dispatch(self, now: float) -> None:
        while self._scheduler.has_work:
            batch, dropped = self._scheduler.next_batch(now)
            self.report.refused += [now] * len(dropped)
            if batch is None:
                return
            self.report.batches += 1
            end = now + self._service(batch.rows)
            heapq.heappush(self._ends, (end, next(self._counter), batch))


def poisson(rate: float, until: float, seed: int = 0) -> Iterator[float]:
    """Arrivals of a Poisson process, from 0 to `until` seconds."""
    gaps = random.Random(seed)
    now = gaps.expovariate(rate)
    while now < until:
        yield now
        now += gaps.expovariate(rate)


def _ignore(request: InferRequest) -> None:
    """The report holds what there is to know."""
