"""Does `paceline bench --find-capacity` find the knee, and how much sooner than a sweep?

A model that takes 10 ms a batch of up to eight rows, and no processor time: neither the client nor the machine is its
limit. The knee is found by a sweep in steps of 2 %, from half of what a closed loop of 32 users gets to a fifth more
than that, each rate held three times; it is the rate that parts those that met the SLO from those that missed it with
the fewest on the wrong side. Searches take turns with the rounds of the sweep, so that both see the same machine.

Rules:
- A step of the sweep is as long as a step of the search, and judged as there; but it runs to its end.
- Times are those of the whole: warm-up, drain and rest between steps included.
"""

from __future__ import annotations

import random
import time
from collections.abc import Generator, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import NamedTuple

import msgspec
import numpy as np

from benchmarks.bench import BenchError, Group, Run, Table, pinned_as_client, say
from benchmarks.processes import Server, paceline
from paceline.loadtest import capacity, plans
from paceline.loadtest.result import Capacity, Slo, StepResult
from paceline.loadtest.runner import Run as LoadTest
from paceline.loadtest.steps import Step, Users
from paceline.loadtest.target import Target

SLO = Slo(percentile=99.0, latency_ms=50.0)
FLAGS = ("--max-batch-size", "8", "--instances", "1")
MOST_WRONG = 0.1
MOST_OF_SWEEP = 0.1
_FROM, _TO, _RATIO = 0.5, 1.2, 1.02
_USERS = 32
_SERVICE = Path(__file__).parent / "services" / "sleeping.py"


class _Tried(NamedTuple):
    """A rate of the sweep, and whether it was held."""

    rate: float
    met: bool


def measure(run: Run) -> Group:
    """Searches and rounds of a sweep in turn."""
    group = Group(f"--find-capacity: 10 ms a batch of up to 8, p{SLO.percentile:g} within {SLO.latency_ms:g} ms")
    step_s, rounds = run.either(5.0, 2.0), run.either(3, 1)
    tried: list[_Tried] = []
    searches: list[tuple[Capacity, float]] = []
    sweep_s = 0.0
    with paceline(run, _SERVICE, FLAGS) as server, pinned_as_client(run):
        target = _target(server)
        rates = _rates(_closed(target, step_s), run.either(_RATIO, 1.05))
        for turn in range(rounds):
            searches.append(_timed_search(target, step_s, turn))
            found, seconds = _timed_sweep(target, rates, step_s, turn)
            tried += found
            sweep_s += seconds
    knee = _knee(tried)
    _report(group, knee, tried, searches, sweep_s)
    return group


def _report(
    group: Group, knee: float, tried: Sequence[_Tried], searches: Sequence[tuple[Capacity, float]], sweep_s: float
) -> None:
    rows = [("sweep", knee, "", len(tried), sweep_s, "")]
    for found, seconds in searches:
        rows.append(("search", found.rate, f"{found.rate / knee - 1:+.1%}", "", seconds, f"{seconds / sweep_s:.1%}"))
    columns = ("", "capacity/s", "off the knee", "steps", "seconds", "of the sweep's")
    group.tables.append(Table("the knee, and what was found", columns, rows))
    wrong = [abs(found.rate / knee - 1) for found, _ in searches]
    group.check("capacity off the knee (median)", median(wrong), MOST_WRONG, most=True)
    shares = [seconds / sweep_s for _, seconds in searches]
    group.check("time, share of the sweep's (median)", median(shares), MOST_OF_SWEEP, most=True)
    group.notes = [found.why for found, _ in searches]
    group.samples = {
        "sweep": [each._asdict() for each in tried],
        "searches": [{**msgspec.to_builtins(found), "seconds": seconds} for found, seconds in searches],
        "knee": knee,
        "sweep_seconds": sweep_s,
    }


def _target(server: Server) -> Target:
    """Different items, so that none is answered from another."""
    return Target(
        host="127.0.0.1",
        port=server.port,
        protocol="plain",
        path="/predict",
        bodies=tuple(b"[%d]" % number for number in range(1000)),
        headers=(("Content-Type", "application/json"),),
    )


def _closed(target: Target, step_s: float) -> float:
    """Answers per second of a closed loop."""
    test = LoadTest(target, slo=SLO)
    test.follow(plans.fixed([Step(load=Users(count=_USERS), warmup_s=1.0, duration_s=step_s)]))
    return test.steps[0].rate


def _rates(closed: float, ratio: float) -> list[float]:
    count = int(np.log(_TO / _FROM) / np.log(ratio)) + 1
    return [_FROM * closed * ratio**place for place in range(count)]


def _timed_search(target: Target, step_s: float, turn: int) -> tuple[Capacity, float]:
    test, began = LoadTest(target, slo=SLO), time.monotonic()
    test.follow(capacity.search(SLO, step_s=step_s, seed=1000 * turn))
    if test.capacity is None:
        raise BenchError("the search has found nothing")
    seconds = time.monotonic() - began
    say(f"  search {turn + 1}: {test.capacity.rate:g}/s after {len(test.steps)} steps, {seconds:.0f} s")
    return test.capacity, seconds


def _timed_sweep(target: Target, rates: Sequence[float], step_s: float, turn: int) -> tuple[list[_Tried], float]:
    """All rates once, in an order of its own, so that no hour of the machine favors any."""
    order = random.Random(turn).sample(rates, len(rates))
    tried: list[_Tried] = []
    test, began = LoadTest(target, slo=SLO), time.monotonic()
    test.follow(_each(order, step_s, turn, tried))
    seconds = time.monotonic() - began
    say(f"  sweep {turn + 1}: {len(rates)} rates, {seconds:.0f} s")
    return tried, seconds


def _each(order: Sequence[float], step_s: float, turn: int, tried: list[_Tried]) -> Generator[Step, StepResult, None]:
    for place, rate in enumerate(order):
        step = capacity.step_at(rate, SLO, step_s=step_s, seed=1000 * turn + place + 500)
        found = yield msgspec.structs.replace(step, give_up=False)
        tried.append(_Tried(rate, capacity.judge(found, SLO).met))


def _knee(tried: Sequence[_Tried]) -> float:
    """The rate below which most met the SLO and above which most missed it: fewest are on the wrong side."""
    rates = sorted({each.rate for each in tried})
    borders = [rates[0], *(np.sqrt(low * high) for low, high in pairwise(rates)), rates[-1]]
    wrong = [sum(each.met != (each.rate < border) for each in tried) for border in borders]
    best = [border for border, count in zip(borders, wrong, strict=True) if count == min(wrong)]
    return float(median(best))
