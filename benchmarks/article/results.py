"""What do the measured response times say? Means with their uncertainty, and the targets.

Rules:
- The article plots means, so means are compared; medians and 95th percentiles stand beside them.
- Response times of one run depend on each other: one long wait is followed by others. The standard error comes from the
  means of consecutive batches of them, not from single requests.
- Two means that differ by less than twice the standard error of the difference are a tie, and called so.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, median, stdev
from typing import Any, Final

from benchmarks.article.load import Measured

OURS: Final = "e"
ONE_WORKER: Final = "a"
MOST_OVER_BARE: Final = 0.05
LEAST_SHORTER: Final = 6.0
MANY_USERS: Final = 20

_BATCHES: Final = 10
_MOST_BUSY: Final = 0.5


@dataclass
class Series:
    """All rounds of one set-up at one number of users.

    Attributes:
        rounds: seconds of each answered request, for each round.
    """

    set_up: str
    users: int
    rounds: list[list[float]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    busy: list[float] = field(default_factory=list)

    @property
    def all_s(self) -> list[float]:
        """Of all rounds."""
        return [value for values in self.rounds for value in values]

    @property
    def mean_s(self) -> float:
        """NaN when nothing was answered."""
        return fmean(self.all_s) if self.all_s else math.nan

    @property
    def error_s(self) -> float:
        """Standard error of the mean, from batch means; NaN for fewer than four requests."""
        return standard_error(self.all_s)

    def as_row(self) -> dict[str, Any]:
        """For tables and JSON: milliseconds."""
        values = sorted(self.all_s)
        p95_s = values[max(0, math.ceil(0.95 * len(values)) - 1)] if values else math.nan
        return {
            "set_up": self.set_up,
            "users": self.users,
            "requests": len(values),
            "mean_ms": 1e3 * self.mean_s,
            "standard_error_ms": 1e3 * self.error_s,
            "median_ms": 1e3 * median(values) if values else math.nan,
            "p95_ms": 1e3 * p95_s,
            "failures": len(self.failures),
        }


@dataclass
class Results:
    """What one model gave.

    Attributes:
        calls_s: rows -> seconds of each call alone, in a loop, with all cores.
        judged: the targets are meant for it.
        waits: it takes no processor time.
        chosen: set-up -> what Paceline says of its instances.
        series: by set-up and number of users.
    """

    key: str
    title: str
    calls_s: dict[int, list[float]] = field(default_factory=dict)
    judged: bool = True
    waits: bool = True
    chosen: dict[str, str] = field(default_factory=dict)
    series: dict[tuple[str, int], Series] = field(default_factory=dict)

    def add(self, measured: Iterable[Measured]) -> None:
        """A wave of measurements."""
        for each in measured:
            series = self.series.setdefault((each.set_up, each.users), Series(each.set_up, each.users))
            series.rounds.append(each.answered_s)
            series.failures += each.failures
            series.busy.append(each.busy)

    def add_calls(self, calls_s: Mapping[int, Sequence[float]]) -> None:
        """A round of the model alone."""
        for rows, taken in calls_s.items():
            self.calls_s.setdefault(rows, []).extend(taken)

    @property
    def bare_s(self) -> dict[int, float]:
        """Rows -> median seconds of a call alone: nobody waits for it, so what is longer is the machine's doing."""
        return {rows: median(taken) for rows, taken in self.calls_s.items()}

    @property
    def busy(self) -> float:
        """The share of all cores that was in use in the busiest window."""
        return max((share for series in self.series.values() for share in series.busy), default=0.0)

    @property
    def disturbed(self) -> bool:
        """Something else took so much of the processor that the response times are not the set-ups' own."""
        return self.waits and self.busy > _MOST_BUSY

    @property
    def set_ups(self) -> list[str]:
        """In their order."""
        return sorted({set_up for set_up, _ in self.series})

    @property
    def users(self) -> list[int]:
        """Ascending."""
        return sorted({users for _, users in self.series})

    def checks(self) -> list[Check]:
        """The targets, for what was measured of them."""
        found: list[Check] = []
        for users in self.users if self.judged else ():
            ours = self.series.get((OURS, users))
            if ours is None:
                continue
            if users == 1:
                found.append(_over_bare(ours, self.bare_s[1]))
            others = [self.series[key, users] for key in self.set_ups if key in "abcd" and (key, users) in self.series]
            found += [_shorter(ours, other) for other in others]
            if users == MANY_USERS:
                found += [_times_shorter(ours, other) for other in others if other.set_up == ONE_WORKER]
        return found


@dataclass(frozen=True)
class Check:
    """A target, and what was measured.

    Attributes:
        ok: None: too few requests to say.
    """

    what: str
    target: str
    measured: str
    ok: bool | None


def standard_error(values: Sequence[float]) -> float:
    """Of the mean of values in their order, by the method of batch means; NaN for fewer than four."""
    size = max(1, len(values) // _BATCHES)
    means = [fmean(values[i : i + size]) for i in range(0, len(values) - size + 1, size)]
    return stdev(means) / math.sqrt(len(means)) if len(means) >= 4 else math.nan


def _over_bare(ours: Series, bare_s: float) -> Check:
    share = ours.mean_s / bare_s - 1
    what = f"(e) at 1 user, over the bare {1e3 * bare_s:.0f} ms of the model"
    return Check(what, f"<= {MOST_OVER_BARE:.0%}", f"{share:+.1%}", share <= MOST_OVER_BARE)


def _times_shorter(ours: Series, other: Series) -> Check:
    times = other.mean_s / ours.mean_s
    what = f"({other.set_up}) / (e) at {ours.users} users"
    return Check(what, f">= {LEAST_SHORTER:g}", f"{times:.2f}", times >= LEAST_SHORTER)


def _shorter(ours: Series, other: Series) -> Check:
    times = other.mean_s / ours.mean_s
    noise_s = 2 * math.hypot(ours.error_s, other.error_s)
    what = f"({other.set_up}) / (e) at {ours.users} user{'s' * (ours.users > 1)}"
    if math.isnan(noise_s):
        return Check(what, "> 1", f"{times:.3f}, of too few requests", None)
    tie = abs(other.mean_s - ours.mean_s) <= noise_s
    return Check(what, "> 1", f"{times:.3f}{', a tie within the noise' if tie else ''}", tie or times > 1)
