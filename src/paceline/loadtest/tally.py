"""How do the samples of a step add up?

Rules:
- Memory does not grow with the number of requests, nor with more than one entry a stretch of time.
- A sample belongs to the stretch in which it was due.
- What was due during the warm-up is shown in the time line and counts nowhere else.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict

import numpy as np

from paceline.loadtest.histogram import LatencyHistogram
from paceline.loadtest.result import PERCENTILES, Client, Instant, Latency, Slo, StepResult
from paceline.loadtest.samples import Outcome, Samples
from paceline.loadtest.steps import Ended, Step, Users

_STRETCHES = 120
_LEAST_STRETCH_S = 0.25
_LATE_S = 1e-3
_BUSY = 0.9


class _Stretch:
    def __init__(self) -> None:
        self.ok = LatencyHistogram()
        self.failed = 0


class Tally:
    """The sums of one step.

    Args:
        rows: in each request.
        slo: what goodput is counted by.
    """

    def __init__(self, step: Step, rows: int = 1, slo: Slo | None = None) -> None:
        self.step = step
        self.latency = LatencyHistogram()
        self.failed_latency = LatencyHistogram()
        self.queue = LatencyHistogram()
        self.infer = LatencyHistogram()
        self.late = LatencyHistogram()
        self.errors: Counter[str] = Counter()
        self.batch_rows: Counter[int] = Counter()
        self.requests = 0
        self._rows = rows
        self._slo = slo
        self._good = 0
        self._stretch_s = max(_LEAST_STRETCH_S, (step.warmup_s + step.duration_s) / _STRETCHES)
        self._stretches: defaultdict[int, _Stretch] = defaultdict(_Stretch)

    def add(self, samples: Samples) -> None:
        """Count samples, shape [n]; `due_s` counts from the start of the step, its warm-up included."""
        self._add_to_timeline(samples)
        counted = samples[samples["due_s"] >= self.step.warmup_s]
        ok = counted["outcome"] == Outcome.OK
        good, bad = counted[ok], counted[~ok]
        self.requests += counted.size
        self.latency.add(good["latency_s"])
        self.failed_latency.add(bad["latency_s"])
        self.queue.add(good["queue_s"])
        self.infer.add(good["infer_s"])
        self.late.add(counted["late_s"][counted["outcome"] != Outcome.UNSENT])
        if self._slo is not None:
            self._good += int((good["latency_s"] * 1e3 <= self._slo.latency_ms).sum())
        for size, count in zip(*np.unique(good["batch_rows"], return_counts=True), strict=True):
            if size:
                self.batch_rows[int(size)] += int(count)
        for kind, count in zip(*np.unique(bad[["outcome", "status"]], return_counts=True), strict=True):
            self.errors[_error(int(kind["outcome"]), int(kind["status"]))] += int(count)

    def _add_to_timeline(self, samples: Samples) -> None:
        places = (samples["due_s"] / self._stretch_s).astype(np.int64)
        ok = samples["outcome"] == Outcome.OK
        for place in np.unique(places):
            here = places == place
            stretch = self._stretches[int(place)]
            stretch.ok.add(samples["latency_s"][here & ok])
            stretch.failed += int((here & ~ok).sum())

    def result(self, label: str, ended: Ended) -> StepResult:
        """What has been counted, once the step is over."""
        load, wall_s = self.step.load, ended.wall_s
        is_users = isinstance(load, Users)
        goodput = self._good / wall_s if self._slo else None
        return StepResult(
            label=label,
            users=load.count if isinstance(load, Users) else None,
            think_s=load.think_s if isinstance(load, Users) else None,
            offered_rate=self.requests / wall_s,
            duration_s=wall_s,
            requests=self.requests,
            rate=self.latency.count / wall_s,
            rows_per_s=self.latency.count * self._rows / wall_s,
            goodput=goodput,
            slo_met=self._slo_met(),
            errors=dict(self.errors.most_common()),
            latency=summary(self.latency),
            failed_latency=summary(self.failed_latency),
            queue=summary(self.queue) if self.queue.count else None,
            infer=summary(self.infer) if self.infer.count else None,
            batch_rows=dict(sorted(self.batch_rows.items())),
            histogram=[(bound * 1e3, count) for bound, count in self.latency.buckets()],
            timeline=self.timeline(),
            client=self._client(ended, is_users),
        )

    def timeline(self) -> list[Instant]:
        """What has been counted by stretches of time."""
        width = self._stretch_s
        return [
            Instant(
                at_s=place * width - self.step.warmup_s,
                due=(each.ok.count + each.failed) / width,
                answered=each.ok.count / width,
                failed=each.failed / width,
                p50_ms=_ms(each.ok.percentile(50)),
                p99_ms=_ms(each.ok.percentile(99)),
            )
            for place, each in sorted(self._stretches.items())
        ]

    def _slo_met(self) -> bool | None:
        """A request that failed has missed it."""
        if self._slo is None:
            return None
        return bool(self.requests) and self._good >= self.requests * self._slo.percentile / 100.0

    def _client(self, ended: Ended, is_users: bool) -> Client:
        late_s = self.late.percentile(99)
        why = ""
        if ended.cpu > _BUSY:
            why = f"the client took {ended.cpu:.0%} of the one core that it can use"
        elif not is_users and late_s > max(_LATE_S, 0.2 * self.latency.percentile(50)):
            why = f"1 % of the requests left {late_s * 1e3:.1f} ms late, or later"
        return Client(cpu=ended.cpu, late_p99_ms=_ms(late_s), bottleneck=why)


def summary(times: LatencyHistogram) -> Latency:
    """The numbers of reports."""
    percentiles = {name: _ms(times.percentile(percent)) for name, percent in PERCENTILES.items()}
    return Latency(
        count=times.count,
        mean_ms=_ms(times.mean_s),
        max_ms=_ms(times.max_s if times.count else math.nan),
        **percentiles,
    )


def _ms(seconds: float) -> float | None:
    return None if math.isnan(seconds) else seconds * 1e3


def _error(outcome: int, status: int) -> str:
    name = Outcome(outcome).name.lower().replace("_", " ")
    return f"status {status}" if outcome == Outcome.STATUS else name
