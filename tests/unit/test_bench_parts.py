"""The parts of `paceline bench` that need no server."""

from __future__ import annotations

import io
import math
import os
import time

import numpy as np
import pytest

from paceline.cli import bench_options
from paceline.loadtest import arrivals
from paceline.loadtest.histogram import LatencyHistogram
from paceline.loadtest.reporting.document import typed
from paceline.loadtest.result import Capacity, Gate, Result, Slo, StepResult
from paceline.loadtest.runner import label
from paceline.loadtest.samples import SAMPLE, Outcome, Samples
from paceline.loadtest.steps import Ended, OpenLoop, Step, Users
from paceline.loadtest.tally import Tally
from paceline.loadtest.terminal import summary as summary_text
from paceline.loadtest.terminal.live import LineView
from paceline.loadtest.terminal.recent import CpuShare, Recent, percentiles_ms
from paceline.loadtest.terminal.screen import bars, histogram
from paceline.reports.units import UNKNOWN
from support import results


def samples(*latencies_s: float, outcome: Outcome = Outcome.OK, due_s: float = 0.0) -> Samples:
    made = np.zeros(len(latencies_s), SAMPLE)
    made["latency_s"], made["outcome"], made["due_s"] = latencies_s, outcome, due_s
    made["queue_s"] = made["infer_s"] = math.nan
    return made


def tally(load: Users | OpenLoop, found: Samples, slo: Slo | None = None) -> Tally:
    summed = Tally(Step(load=load, warmup_s=0.0, duration_s=1.0), 1, slo)
    summed.add(found)
    return summed


def step(name: str = "1 user", found: Samples | None = None, cpu: float = 0.1) -> StepResult:
    found = samples(0.001, 0.002) if found is None else found
    return tally(Users(count=1), found).result(name, Ended(cpu=cpu, wall_s=1.0))


def result(*steps: StepResult, **more: object) -> Result:
    return results.result(steps, **{"kind": "users", **more})


def written(shown: Result) -> str:
    file = io.StringIO()
    summary_text.write(shown, file)
    return file.getvalue()


def test_the_last_second_is_a_second_and_the_minute_a_minute():
    recent = Recent()
    for tenth in range(700):
        recent.add(samples(0.001, tenth / 1000), tenth / 10)
    assert recent.samples().size == 20
    assert percentiles_ms(recent.samples())[-1] == pytest.approx(699, rel=1e-3)
    assert recent.rates == [20] * 59
    recent.add(None, 75.0)
    assert recent.samples().size == 0
    assert recent.rates[-5:] == [0] * 5


def test_without_predictions_there_are_no_percentiles():
    assert all(map(math.isnan, percentiles_ms(samples(0.5, outcome=Outcome.TIMEOUT))))


def test_the_cpu_share_is_that_of_the_process():
    share = CpuShare(os.getpid())
    until = time.monotonic() + 0.2
    while time.monotonic() < until:
        pass
    assert 0.0 < share.since_last() < 2.0
    assert math.isnan(CpuShare(2**30).since_last())


def test_bars_are_as_high_as_their_share_and_none_that_is_something_vanishes():
    assert bars([0, 1, 1000]) == " ▁█"
    assert bars([0, 0]) == bars([]) == UNKNOWN


def test_a_histogram_keeps_all_that_it_is_given():
    times = LatencyHistogram()
    times.add(np.array([1e-4] * 7 + [1e-2] * 2 + [3.0]))
    counts = histogram(times, 20)
    assert (len(counts), sum(counts), counts[0], counts[-1]) == (20, 10, 7, 1)
    assert histogram(LatencyHistogram()) == []
    times = LatencyHistogram()
    times.add(np.array([0.5]))
    assert sum(histogram(times, 20)) == 1


@pytest.mark.parametrize(
    ("load", "said"),
    [
        (Users(count=1), "1 user"),
        (Users(count=20), "20 users"),
        (OpenLoop(arrivals=arrivals.Constant(rate=200.0)), "200/s"),
        (OpenLoop(arrivals=arrivals.Poisson(rate=12345.5)), "12345.5/s"),
        (OpenLoop(arrivals=arrivals.Gamma(rate=0.5, cv=2.0)), "0.5/s gamma"),
    ],
)
def test_loads_have_short_names(load: Users | OpenLoop, said: str):
    assert label(load) == said


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["bench", "x", "-H", "A: secret"], "paceline bench x -H 'A: ...'"),
        (["bench", "x", "-HA:secret", "--users", "1"], "paceline bench x '-HA: ...' --users 1"),
        (["bench", "x", "--header=A: secret"], "paceline bench x '--header=A: ...'"),
        (["bench", "x", "--header", "-H", "B: b"], "paceline bench x --header -H 'B: b'"),
        (["bench", "a file.py", "--", "--port", "0"], "paceline bench 'a file.py' -- --port 0"),
    ],
)
def test_the_command_is_shown_as_typed_without_the_values_of_headers(arguments: list[str], shown: str):
    assert typed(arguments) == shown


def test_the_names_in_help_are_those_of_the_parts_that_read_them():
    assert bench_options.KINDS == arrivals.KINDS


def test_a_long_step_has_a_line_every_ten_seconds(capsys: pytest.CaptureFixture[str]):
    view = LineView()
    found = tally(Users(count=3), samples(0.01, 0.01))
    found.add(samples(1.0, outcome=Outcome.TIMEOUT))
    view.began(Step(load=Users(count=3), warmup_s=1.0, duration_s=29.0), "3 users", 1)
    for tenth in range(300):
        view.progress(found, None, tenth / 10)
    said = capsys.readouterr()
    assert said.out == ""
    lines = said.err.splitlines()
    assert [line.partition(":")[2].partition(":")[0] for line in lines] == [
        " 3 users, 10 of 30 s",
        " 3 users, 20 of 30 s",
    ]
    assert lines[0].endswith(", 1 timeout")


def test_the_summary_says_what_follows_from_the_steps():
    failed = np.concatenate([samples(0.001), samples(0.2, 0.2, outcome=Outcome.CLOSED)])
    shown = written(
        result(
            step(),
            step("2 users", failed, cpu=0.99),
            gates=[Gate(rule="p99>1ms", label="1 user", before=None, now=2.0, ok=False, why="p99 is 2 ms")],
            warnings=["beware of [this]"],
        )
    )
    assert "failed: p99>1ms, 1 user: p99 is 2 ms" in shown
    assert "errors: 2 users: 2 closed" in shown
    assert "warning: beware of [this]\n" in shown
    assert "warning: 2 users: the client took 99" in shown
    assert "next: " in shown


def test_many_warnings_about_the_client_are_one():
    shown = written(result(*(step(f"{count} users", cpu=0.99) for count in range(2, 12))))
    assert shown.count("the client took") == 3
    assert "the client was in the way of 7 further steps" in shown


def test_what_to_try_next_depends_on_what_was_seen():
    nothing = step(found=samples(1.0, outcome=Outcome.TIMEOUT))
    assert "why nothing is answered" in summary_text.next_step(result(nothing))
    assert "why nothing is answered" in summary_text.next_step(result())
    assert "a core, or a machine" in summary_text.next_step(result(step(cpu=0.95)))
    assert "--rate 1.4/s" in summary_text.next_step(result(step(), kind="closed"))
    assert "--report" in summary_text.next_step(result(step()))
    assert "--baseline" in summary_text.next_step(result(step()))
    gate = Gate(rule="p99>1ms", label="1 user", before=None, now=2.0, ok=False, why="p99 is 2 ms")
    assert "--baseline" not in summary_text.next_step(result(step(), gates=[gate]))


def test_a_test_without_a_step_has_no_table_and_says_the_capacity():
    shown = written(result(capacity=Capacity(rate=0.0, missed_at=1.0, why="nothing was answered"), slo=_SLO))
    assert "load " not in shown
    assert "capacity: no rate kept p99 at most 50" in shown


_SLO = Slo(percentile=99.0, latency_ms=50.0)
