"""A server that is a formula: one queue, one worker, first come first served, without a socket or a clock.

It is what the capacity search is judged by: its knee is known to any precision, in no time.
"""

from __future__ import annotations

import numpy as np

from paceline.loadtest.plans import Plan
from paceline.loadtest.result import Capacity, Slo, StepResult
from paceline.loadtest.samples import SAMPLE, Outcome, Samples
from paceline.loadtest.steps import Ended, OpenLoop, Step, Users
from paceline.loadtest.tally import Tally

POLL_S = 0.1


class QueueServer:
    """Answers steps as a queue would.

    Args:
        service_s: that each request takes.
        cv: of the service times, which are gamma distributed; 0: all the same.
        hiccup: probability that a step is disturbed by half a second in which nothing is served.
    """

    def __init__(self, service_s: float, *, cv: float = 0.0, hiccup: float = 0.0, seed: int = 0) -> None:
        self.service_s = service_s
        self.cv = cv
        self.hiccup = hiccup
        self.random = np.random.default_rng(seed)
        self.seconds = 0.0
        self.steps: list[StepResult] = []

    def follow(self, plan: Plan, slo: Slo) -> Capacity | None:
        """Run a plan, as the runner would."""
        step = next(plan)
        while True:
            self.steps.append(self.hold(step, slo))
            try:
                step = plan.send(self.steps[-1])
            except StopIteration as end:
                return end.value

    def hold(self, step: Step, slo: Slo) -> StepResult:
        """One step; ended early where it says so."""
        tally = Tally(step, slo=slo)
        samples = self.samples(step)
        ends = samples["due_s"] + samples["latency_s"]
        order = np.argsort(ends)
        ended_s = step.warmup_s + step.duration_s
        for begin in np.arange(0.0, ends.max(initial=0.0) + POLL_S, POLL_S):
            here = slice(*np.searchsorted(ends[order], (begin, begin + POLL_S)))
            tally.add(samples[order[here]])
            if step.give_up and tally.hopeless and begin < ended_s:
                ended_s = begin + POLL_S
                break
        self.seconds += ended_s
        return tally.result("", Ended(cpu=0.1, wall_s=ended_s - step.warmup_s))

    def samples(self, step: Step) -> Samples:
        """Everything that is due in a step."""
        whole_s = step.warmup_s + step.duration_s
        if isinstance(step.load, Users):
            return self._closed(step.load.count, whole_s)
        assert isinstance(step.load, OpenLoop)
        due = np.concatenate([np.zeros(0), *step.load.arrivals.blocks(whole_s, self.random)])
        services = self._services(due.size)
        if due.size and self.random.uniform() < self.hiccup:
            services[self.random.integers(due.size)] += 0.5
        begun = np.maximum.accumulate(due - np.append(0.0, np.cumsum(services)[:-1]))
        return packed(due, begun + np.cumsum(services) - due, step.timeout_s)

    def _closed(self, users: int, whole_s: float) -> Samples:
        """The worker is never idle: answers come one service after another, and each request waits for all others."""
        ends = np.cumsum(self._services(int(whole_s / self.service_s)))
        due = np.append(np.zeros(users), ends)[: ends.size]
        return packed(due, ends - due, np.inf)

    def _services(self, count: int) -> np.ndarray:
        if not self.cv:
            return np.full(count, self.service_s)
        return self.random.gamma(self.cv**-2, self.service_s * self.cv**2, count)


def packed(due: np.ndarray, latency: np.ndarray, timeout_s: float = np.inf) -> Samples:
    """Samples of requests that were answered, or came too late to be."""
    samples = np.zeros(due.size, SAMPLE)
    samples["due_s"], samples["latency_s"] = due, np.minimum(latency, timeout_s)
    samples["queue_s"] = samples["infer_s"] = np.nan
    samples["outcome"] = np.where(latency > timeout_s, Outcome.TIMEOUT, Outcome.OK)
    samples["status"] = np.where(latency > timeout_s, 0, 200)
    return samples


def knee(server: QueueServer, slo: Slo, duration_s: float = 600.0) -> float:
    """Requests per second at which so many meet the SLO as it asks for, by bisection over long steps."""
    low, high = 0.0, 1.2 / server.service_s
    while high - low > 0.001 / server.service_s:
        middle = (low + high) / 2
        due = np.cumsum(server.random.exponential(1.0 / middle, int(middle * duration_s)))
        services = server._services(due.size)
        begun = np.maximum.accumulate(due - np.append(0.0, np.cumsum(services)[:-1]))
        latency_ms = (begun + np.cumsum(services) - due) * 1e3
        low, high = (middle, high) if np.percentile(latency_ms, slo.percentile) <= slo.latency_ms else (low, middle)
    return low
