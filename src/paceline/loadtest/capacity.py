"""How much can a server take and still keep its promise? Found with few steps, where a sweep would take many.

Open-loop steps, whose requests arrive at random, go up from a low rate in a staircase until one misses the SLO. Then
comes the geometric middle of the highest rate that met it and the lowest one that missed it, until these two are within
5 % of each other. Both are then measured again.

Rules:
- What comes next is a pure function of what has been measured: `next_rate`.
- Of two measurements that contradict each other, a third one decides. A miss that may be the client's own is measured
  again before it counts, and so is the lowest miss before the search goes below it.
- A rate meets the SLO if enough of its requests did, few failed, and the queue did not grow while it was held: a loose
  SLO and a short step would else take a queue that grows without end for a long one.
- It ends where requests miss the SLO that hardly ever meet another: nothing is quicker than an idle server.
- A step that can no longer meet the SLO is ended at once, and tells the same.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Generator, Mapping, Sequence
from statistics import median
from typing import Final, NamedTuple

from paceline.loadtest.arrivals import Poisson
from paceline.loadtest.plans import Plan
from paceline.loadtest.result import Capacity, Slo, StepResult
from paceline.loadtest.steps import OpenLoop, Step, Users
from paceline.reports.units import MILLISECONDS

TOLERANCE: Final = 0.05
"""The two rates between which the capacity lies differ by no more than this share."""
_STAIR: Final = 1.4
_SMALL_STAIRS: Final = 4
_LARGE_STAIR: Final = 2.0
_SURE: Final = 2
_LEAST_RATE: Final = 0.05
_LEAST_REQUESTS_BEYOND: Final = 5.0
_LONGEST: Final = 3.0
_TIMEOUT_SLOS: Final = 4.0
_LEAST_TIMEOUT_S: Final = 1.0
_MOST_FAILED: Final = 0.01
_MOST_LEFT: Final = 0.02
_GROWN: Final = 1.5
_LEAST_STRETCHES: Final = 6
_ALONE: Final = 0.2
"""Mean number of requests at once, of which hardly any meets another."""
_ESTIMATE_USERS: Final = 32
_ESTIMATE_SHARE: Final = 0.5


class Verdict(NamedTuple):
    """What a step says of its rate.

    Attributes:
        met: the rate can be held.
        why: in words.
        by_client: it missed, and had met without the client's own delay.
        alone: it missed although there were hardly ever two requests at once: lower rates miss it, too.
    """

    met: bool
    why: str
    by_client: bool = False
    alone: bool = False


class Trial(NamedTuple):
    """A step, and what it says of its rate."""

    verdict: Verdict
    result: StepResult


Trials = Mapping[float, Sequence[Trial]]
"""By rate."""


def search(
    slo: Slo,
    *,
    start_rate: float | None = None,
    step_s: float = 10.0,
    warmup_s: float = 1.0,
    most_steps: int = 24,
    connections: int = 1000,
    seed: int = 0,
) -> Plan:
    """Look for the highest rate that meets the SLO.

    Args:
        start_rate: requests per second of the lowest stair; None: half of what a short closed loop of 32 users gets.
        step_s: how long a rate is held; up to three times as long where it would bring too few requests to judge by.
        most_steps: open-loop steps; then the best that is known is the answer.
    """
    if start_rate is None:
        start_rate = yield from _estimate(slo, step_s / 2.0, warmup_s, seed)
    trials: defaultdict[float, list[Trial]] = defaultdict(list)
    for number in range(most_steps):
        rate = next_rate(trials, start_rate)
        if rate is None:
            return _found(trials, slo, complete=True)
        result = yield step_at(rate, slo, step_s=step_s, warmup_s=warmup_s, connections=connections, seed=seed + number)
        trials[rate].append(Trial(judge(result, slo), result))
    return _found(trials, slo, complete=False)


def next_rate(trials: Trials, start_rate: float) -> float | None:
    """Which rate to try next; None: the capacity is known, or there is none worth the name."""
    scores = {rate: _score(found) for rate, found in trials.items()}
    tied = [rate for rate, score in scores.items() if score == 0]
    if tied or not scores:
        return min(tied, default=_rounded(start_rate))
    met, missed = _bracket(trials)
    if missed is None:
        return _rounded(max(scores) * (_STAIR if len(scores) < _SMALL_STAIRS else _LARGE_STAIR))
    if met is None:
        if len(trials[missed]) < _SURE:
            return missed
        if all(trial.verdict.alone for trial in trials[missed]):
            return None
        down = _rounded(missed / _STAIR ** (2 * len(scores)))  # ever faster: it may be the wrong order of magnitude
        return down if down >= _LEAST_RATE else None
    middle = _rounded(math.sqrt(met * missed))
    if missed > met * (1.0 + TOLERANCE) and met < middle < missed:
        return middle
    return next((rate for rate in (met, missed) if len(trials[rate]) < _SURE), None)


def judge(result: StepResult, slo: Slo) -> Verdict:
    """Whether a rate can be held, by one step at it."""
    percentile = f"p{slo.percentile:g}"
    found_ms = _percentile(result, slo)
    seen = f"{percentile} was {MILLISECONDS.text(found_ms)}" if found_ms is not None else "nothing was answered"
    why = ""
    if not result.slo_met:
        why = seen if found_ms is None or found_ms > slo.latency_ms else f"{result.failed} requests failed"
    elif result.failed > _MOST_FAILED * result.requests:
        why = f"{result.failed} of {result.requests} requests failed"
    elif _queue_grew(result):
        why = f"the queue grew ({seen})"
    if not why:
        return Verdict(True, seen)
    # A client that sends late sees answers as late.
    server_ms = 0.0 if found_ms is None else found_ms - 2.0 * (result.client.late_p99_ms or 0.0)
    by_client = bool(result.client.bottleneck) and server_ms <= slo.latency_ms
    return Verdict(False, why, by_client=by_client, alone=not by_client and _is_slow_alone(result))


def _estimate(slo: Slo, step_s: float, warmup_s: float, seed: int) -> Generator[Step, StepResult, float]:
    """Half of what a closed loop gets: nearly always below the capacity, and seldom far below."""
    load = Users(count=_ESTIMATE_USERS)
    found = yield Step(load=load, warmup_s=warmup_s, duration_s=step_s, timeout_s=_timeout_s(slo), seed=seed)
    return max(found.rate * _ESTIMATE_SHARE, 1.0)


def step_at(
    rate: float, slo: Slo, *, step_s: float = 10.0, warmup_s: float = 1.0, connections: int = 1000, seed: int = 0
) -> Step:
    """How a search holds a rate, for what `judge` wants to know of it."""
    requests = _LEAST_REQUESTS_BEYOND / (1.0 - slo.percentile / 100.0)
    return Step(
        load=OpenLoop(arrivals=Poisson(rate=rate)),
        warmup_s=warmup_s,
        duration_s=min(max(step_s, requests / rate), _LONGEST * step_s),
        timeout_s=_timeout_s(slo),
        connections=connections,
        seed=seed,
        give_up=True,
    )


def _timeout_s(slo: Slo) -> float:
    """A request that took so long has missed it by far: to wait for it longer tells nothing."""
    return max(_LEAST_TIMEOUT_S, _TIMEOUT_SLOS * slo.latency_ms / 1e3)


def _score(found: Sequence[Trial]) -> int:
    """Above 0: the rate is held; below: it is not; 0: another measurement has to tell."""
    if len(found) < _SURE and any(trial.verdict.by_client for trial in found):
        return 0
    return sum(1 if trial.verdict.met else -1 for trial in found)


def _bracket(trials: Trials) -> tuple[float | None, float | None]:
    """The highest rate that met the SLO below the lowest one that missed it, and that one."""
    missed = min((rate for rate, found in trials.items() if _score(found) < 0), default=None)
    met = (rate for rate, found in trials.items() if _score(found) > 0 and (missed is None or rate < missed))
    return max(met, default=None), missed


def _found(trials: Trials, slo: Slo, *, complete: bool) -> Capacity:
    met, missed = _bracket(trials)
    held = [trial for trial in trials.get(met or 0.0, ()) if trial.verdict.met]
    lost = [trial for trial in trials.get(missed or 0.0, ()) if not trial.verdict.met]
    by_client = bool(lost) and all(trial.verdict.by_client for trial in lost)
    said = [f"{here[0].verdict.why} at {rate:g}/s" for rate, here in ((met, held), (missed, lost)) if here]
    if by_client:
        said.append("the client was in the way, so the server may do more")
    if met is None and lost and all(trial.verdict.alone for trial in lost):
        said.append("hardly two requests were there at once, so no lower rate keeps it")
    if not complete:
        said.append("the search ended before it was sure")
    if held and held[0].result.requests * (100.0 - slo.percentile) < 100.0:
        said.append(f"{held[0].result.requests} requests are few for p{slo.percentile:g}: longer steps would tell more")
    return Capacity(
        rate=met or 0.0,
        missed_at=missed,
        why="; ".join(said),
        goodput=median(trial.result.goodput or 0.0 for trial in held) if held else None,
        lower_bound=by_client or missed is None,
    )


def _percentile(result: StepResult, slo: Slo) -> float | None:
    """Of what was answered, in milliseconds."""
    rank = math.ceil(result.latency.count * slo.percentile / 100.0)
    counted = 0
    for bound_ms, count in result.histogram:
        counted += count
        if counted >= rank:
            return min(bound_ms, result.latency.max_ms or bound_ms)
    return None


def _queue_grew(result: StepResult) -> bool:
    """Fewer were answered than were due, and the later ones waited longer."""
    left = result.offered_rate - result.rate - result.failed / result.duration_s
    medians = [instant.p50_ms for instant in result.timeline if instant.at_s >= 0 and instant.p50_ms is not None]
    third = len(medians) // 3
    if left < _MOST_LEFT * result.offered_rate or len(medians) < _LEAST_STRETCHES:
        return False
    return median(medians[-third:]) > _GROWN * median(medians[:third])


def _is_slow_alone(result: StepResult) -> bool:
    """Most answers missed the SLO, and no request had another to wait for."""
    at_once = result.offered_rate * (result.latency.mean_ms or math.inf) / 1e3
    return at_once < _ALONE and (result.goodput or 0.0) < result.rate / 2.0


def _rounded(rate: float) -> float:
    """As it is written in a label."""
    return float(f"{rate:.3g}")
