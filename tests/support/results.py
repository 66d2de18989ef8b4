"""Results of load tests, as a real `Tally` counts them, from samples of a made-up server with one queue."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from paceline.loadtest.arrivals import Poisson
from paceline.loadtest.result import Capacity, Gate, Result, Slo, StepResult
from paceline.loadtest.samples import SAMPLE, Outcome, Samples
from paceline.loadtest.steps import Ended, OpenLoop, Step, Users
from paceline.loadtest.tally import Tally

SLO = Slo(percentile=99.0, latency_ms=50.0)
_MOST_PER_S = 2000.0  # that the made-up server can do


def samples(step: Step, rate: float, *, failing: float = 0.0, timings: bool = True) -> Samples:
    """What comes of so many requests a second: slower and in larger batches, the nearer they are to the most."""
    random = np.random.default_rng(step.seed)
    seconds = step.warmup_s + step.duration_s
    made = np.zeros(int(rate * seconds), SAMPLE)
    load = min(rate / _MOST_PER_S, 0.98)
    made["due_s"] = np.sort(random.uniform(0, seconds, made.size))
    queue = random.exponential(2e-3 * load / (1 - load), made.size)
    infer = 1.2e-3 * random.lognormal(0, 0.15, made.size) * (1 + load)
    made["latency_s"] = queue + infer + random.exponential(3e-4, made.size)
    made["queue_s"], made["infer_s"] = (queue, infer) if timings else (np.nan, np.nan)
    made["batch_rows"] = random.binomial(31, load, made.size) + 1 if timings else 0
    made["status"] = 200
    failed = random.uniform(size=made.size) < failing
    made["outcome"][failed] = random.choice([Outcome.STATUS, Outcome.TIMEOUT, Outcome.RESET], int(failed.sum()))
    made["status"][failed] = np.where(made["outcome"][failed] == Outcome.STATUS, 503, 0)
    return made


def step_result(
    load: int | float,
    *,
    slo: Slo | None = None,
    seconds: float = 10.0,
    failing: float = 0.0,
    timings: bool = True,
    cpu: float = 0.3,
    think_s: tuple[float, float] = (0.0, 0.0),
) -> StepResult:
    """One step: a whole number is users of a closed loop, any other number requests per second of an open one."""
    users = isinstance(load, int)
    step = Step(
        load=Users(count=load, think_s=think_s) if users else OpenLoop(arrivals=Poisson(rate=load)),  # type: ignore[arg-type]
        duration_s=seconds,
        seed=int(load),
    )
    tally = Tally(step, slo=slo)
    rate = _MOST_PER_S * load / (load + 8) if users else load
    tally.add(samples(step, rate, failing=failing, timings=timings))
    label = f"{load} user{'s' * (load != 1)}" if users else f"{load:g}/s"
    late_p99_s = math.nan if users else 2.5e-4
    return tally.result(label, Ended(cpu=cpu, wall_s=seconds, late_p99_s=late_p99_s))


def result(steps: Sequence[StepResult], **changed: Any) -> Result:
    """The document of a test with these steps."""
    return Result(
        **{
            "created": "2024-05-06T07:08:09+00:00",
            "paceline": "0.5.0",
            "command": "paceline bench http://127.0.0.1:8080 --model digits",
            "kind": "closed" if steps and steps[0].users else "open",
            "url": "http://127.0.0.1:8080/v2/models/digits/infer",
            "protocol": "oip",
            "model": "digits",
            "server": "paceline 0.5.0",
            "rows": 1,
            "engine": "paceline",
            "machine": {"cores": 2, "processor": "x86-64", "kernel": "6.1.0", "python": "3.11.2"},
            "slo": None,
            "steps": list(steps),
            **changed,
        }
    )


def closed(*, slo: Slo | None = SLO, timings: bool = True) -> Result:
    """1 to 64 users."""
    return result([step_result(2**n, slo=slo, timings=timings) for n in range(7)], slo=slo)


def capacity() -> Result:
    """A search: a staircase, then a bisection, whose highest steps fail."""
    rates = [100.0, 200.0, 400.0, 800.0, 1600.0, 1950.0, 1750.0, 1850.0]
    return result(
        [step_result(rate, slo=SLO, failing=0.03 if rate > 1800 else 0.0) for rate in rates],
        slo=SLO,
        kind="capacity",
        capacity=Capacity(rate=1600.0, missed_at=1750.0, why="at 1750/s the p99 was 67 ms", goodput=1597.0),
        command="paceline bench http://127.0.0.1:8080 --find-capacity --slo p99=50ms",
    )


def gated() -> Result:
    """A gate that failed, and one that did not."""
    return result(
        [step_result(8, slo=SLO)],
        slo=SLO,
        gates=[
            Gate(rule="p99+10%", label="8 users", before=4.0, now=6.5, ok=False, why="6.5 ms is 62 % above 4 ms"),
            Gate(rule="errors>1%", label="8 users", before=None, now=0.0, ok=True, why="no request failed"),
        ],
        warnings=["the baseline was measured on another machine"],
    )


def without_timings() -> Result:
    """Of a server that says nothing of itself."""
    return closed(slo=None, timings=False)


def failing() -> Result:
    """Nothing but errors."""
    return result([step_result(4, failing=1.0, slo=SLO), step_result(8, failing=1.0, slo=SLO)], slo=SLO)
