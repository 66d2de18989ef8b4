"""How do the samples of a step add up?

Rules:
- Memory does not grow with the number of requests, nor with more than one entry a stretch of time.
- A request counts where it was due: its latency, and whether it failed or met the SLO. What was due during the warm-up
  is shown in the time line and counts nowhere else.
- Users wait for their answers: in a stall that begins during the warm-up nothing more is due. So a request of theirs
  that was under way when the counting began counts if most of its time came after.
- Rates count answers when they came. An overloaded server answers in the end all that was due in the step, but later:
  by due time it would seem to do all that is asked of it.
- What was under way when somebody ended the step early neither succeeded nor failed.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paceline.loadtest.histogram import LatencyHistogram
from paceline.loadtest.result import PERCENTILES, Client, Instant, Latency, Slo, StepResult
from paceline.loadtest.samples import Outcome, Samples
from paceline.loadtest.steps import Ended, OpenLoop, Step, Users

_STRETCHES = 120
_LEAST_STRETCH_S = 0.25
_MOMENTS = 25
_LATE_S = 1e-3
_LATE_SHARE = 0.25
_BUSY = 0.9


class _Stretch:
    """Attributes: see `Instant`."""

    def __init__(self) -> None:
        self.ok = LatencyHistogram()
        self.due = 0
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
        self.errors: Counter[str] = Counter()
        self.batch_rows: Counter[int] = Counter()
        self.requests = 0
        self.abandoned = 0
        self.longest_abandoned_s = 0.0
        self._due = 0
        self._good = 0
        self._rows = rows
        self._slo = slo
        # A whole number of stretches, so that the first and the last are as long as the others.
        least_s = max(_LEAST_STRETCH_S, (step.warmup_s + step.duration_s) / _STRETCHES)
        self._whole = max(1, int(step.duration_s / least_s))
        self._stretch_s = step.duration_s / self._whole
        self._stretches: defaultdict[int, _Stretch] = defaultdict(_Stretch)
        # Answers, and those that met the SLO, by when they came: in moments, of which a stretch has `_MOMENTS`.
        self._before = math.ceil(step.warmup_s / self._stretch_s) * _MOMENTS
        self._answered = np.zeros((2, self._before + self._whole * _MOMENTS), np.int64)

    def add(self, samples: Samples) -> None:
        """Count samples, shape [n]; `due_s` counts from the start of the step, its warm-up included."""
        within = self._within(samples)
        self._add_to_timeline(samples, within)
        counts = self._counts(samples)
        self._due += int(counts.sum())
        self._add_abandoned(samples[samples["outcome"] == Outcome.ABANDONED])
        counts &= samples["outcome"] != Outcome.ABANDONED
        ok = samples["outcome"] == Outcome.OK
        good, bad = samples[counts & ok], samples[counts & ~ok]
        self.requests += good.size + bad.size
        self.latency.add(good["latency_s"])
        self.failed_latency.add(bad["latency_s"][bad["outcome"] != Outcome.UNSENT])
        self.queue.add(good["queue_s"])
        self.infer.add(good["infer_s"])
        self._good += int((counts & within).sum())
        for size, count in _counted(good["batch_rows"]):
            if size:
                self.batch_rows[int(size)] += count
        for kind, count in _counted(bad[["outcome", "status"]]):
            self.errors[_error(int(kind["outcome"]), int(kind["status"]))] += count

    def _counts(self, samples: Samples) -> NDArray[np.bool_]:
        """Which were due while the step counted, or had most of their time in it."""
        places = samples["due_s"]
        if isinstance(self.step.load, Users):
            places = places + samples["latency_s"] / 2.0
        counts: NDArray[np.bool_] = places >= self.step.warmup_s
        return counts

    def _add_abandoned(self, samples: Samples) -> None:
        self.abandoned += samples.size
        self.longest_abandoned_s = max(self.longest_abandoned_s, float(samples["latency_s"].max(initial=0.0)))

    def _within(self, samples: Samples) -> NDArray[np.bool_]:
        """Which are predictions within the latency of the SLO; compared as they are stored, in single precision."""
        ok: NDArray[np.bool_] = samples["outcome"] == Outcome.OK
        if self._slo is None:
            return ok & False
        return ok & (samples["latency_s"] <= np.float32(self._slo.latency_ms / 1e3))

    def _add_to_timeline(self, samples: Samples, within: NDArray[np.bool_]) -> None:
        ok = samples["outcome"] == Outcome.OK
        failed = ~ok & (samples["outcome"] != Outcome.ABANDONED)
        places = self._places(samples["due_s"])
        for place, _ in _counted(places):
            here, stretch = places == place, self._stretches[int(place)]
            stretch.ok.add(samples["latency_s"][here & ok])
            stretch.due += int(here.sum())
            stretch.failed += int((here & failed).sum())
        ends = samples["due_s"] + samples["latency_s"]
        for row, of in zip(self._answered, (ok, within), strict=True):
            moments = self._places(ends[of], _MOMENTS) + self._before
            # Later answers are not the step's any more.
            row += np.bincount(np.clip(moments, 0, row.size), minlength=row.size + 1)[:-1]

    def _places(self, times: NDArray[np.float64], parts: int = 1) -> NDArray[np.int64]:
        """The stretches that instants fall into, or the parts of stretches; those of the warm-up are negative."""
        return np.floor((times - self.step.warmup_s) * (parts / self._stretch_s)).astype(np.int64)

    @property
    def hopeless(self) -> bool:
        """So many have missed the SLO that the rest of an open loop cannot make up for it."""
        if self._slo is None or not isinstance(self.step.load, OpenLoop):
            return False
        due = self.step.load.arrivals.rate * self.step.duration_s
        most = max(due + 4.0 * math.sqrt(due), self._due)
        return self.requests - self._good > most * (1.0 - self._slo.percentile / 100.0)

    def result(self, label: str, ended: Ended) -> StepResult:
        """What has been counted, once the step is over."""
        load, wall_s = self.step.load, min(ended.wall_s, self.step.duration_s)
        users = load if isinstance(load, Users) else None
        rate, goodput = self._rates(wall_s)
        return StepResult(
            label=label,
            users=users.count if users else None,
            think_s=users.think_s if users else None,
            offered_rate=self._due / wall_s if wall_s else 0.0,
            duration_s=wall_s,
            requests=self.requests,
            rate=rate,
            rows_per_s=rate * self._rows,
            goodput=goodput if self._slo else None,
            slo_met=self._slo_met(),
            errors=dict(self.errors.most_common()),
            latency=summary(self.latency),
            failed_latency=summary(self.failed_latency),
            queue=summary(self.queue) if self.queue.count else None,
            infer=summary(self.infer) if self.infer.count else None,
            batch_rows=dict(sorted(self.batch_rows.items())),
            histogram=[(bound * 1e3, count) for bound, count in self.latency.buckets()],
            timeline=self.timeline(),
            client=self._client(ended),
        )

    def timeline(self) -> list[Instant]:
        """What has been counted by stretches of time, up to the last one in which anything was due."""
        if not self._stretches:
            return []
        places = range(min(self._stretches), max(self._stretches) + 1)
        return [self._instant(place, self._stretches.get(place) or _Stretch()) for place in places]

    def _instant(self, place: int, stretch: _Stretch) -> Instant:
        begin_s = max(place * self._stretch_s, -self.step.warmup_s)  # the first of the warm-up may be shorter
        width_s = max((place + 1) * self._stretch_s - begin_s, 1e-9)
        first = self._before + place * _MOMENTS
        return Instant(
            at_s=begin_s,
            due=stretch.due / width_s,
            answered=float(self._answered[0, max(0, first) : max(0, first + _MOMENTS)].sum()) / width_s,
            failed=stretch.failed / width_s,
            p50_ms=_ms(stretch.ok.percentile(50)),
            p99_ms=_ms(stretch.ok.percentile(99)),
        )

    def _rates(self, wall_s: float) -> tuple[float, float]:
        """Answers per second while the step counted, and those of them that met the SLO."""
        moment_s = self._stretch_s / _MOMENTS
        whole = int(wall_s / moment_s + 1e-6)
        if not whole:
            return 0.0, 0.0
        rate, goodput = self._answered[:, self._before : self._before + whole].sum(axis=1) / (whole * moment_s)
        return float(rate), float(goodput)

    def _slo_met(self) -> bool | None:
        """A request that failed has missed it."""
        if self._slo is None:
            return None
        return bool(self.requests) and self._good >= self.requests * (self._slo.percentile / 100.0 - 1e-9)

    def _client(self, ended: Ended) -> Client:
        late_s, without = ended.late_p99_s, self.errors[_error(Outcome.NO_SOCKET, 0)]
        why = ""
        if without:
            why = f"the client had no descriptor or port left for a connection, {without} times: see ulimit -n"
        elif ended.cpu > _BUSY:
            why = f"the client took {ended.cpu:.0%} of the one core that it can use"
        elif ended.cpu + ended.waited > _BUSY:
            why = f"the client waited {ended.waited:.0%} of the time for a core, which other processes had"
        elif late_s > max(_LATE_S, _LATE_SHARE * self.latency.percentile(99)):
            why = f"1 % of the requests left {late_s * 1e3:.1f} ms late, or later"
        elif ended.dropped:
            why = f"{ended.dropped} samples were lost in the client"
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


def _counted(values: NDArray[Any]) -> list[tuple[Any, int]]:
    return [(value, int(count)) for value, count in zip(*np.unique(values, return_counts=True), strict=True)]


def _ms(seconds: float) -> float | None:
    return None if math.isnan(seconds) else seconds * 1e3


def _error(outcome: int, status: int) -> str:
    name = Outcome(outcome).name.lower().replace("_", " ")
    return f"status {status}" if outcome == Outcome.STATUS else name
