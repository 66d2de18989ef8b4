"""What does `paceline bench` do, from the flags to the exit code?

Rules:
- What can be wrong is found before the test: nobody waits a minute for a folder that is not there.
- What was measured is reported, whatever goes wrong afterwards; each report is written whether or not another could be.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

import click
import msgspec

from paceline.cli.bench_flags import Flags
from paceline.core.errors import ConfigError, GeneratorFailed, PacelineError
from paceline.loadtest import arrivals, capacity, plans
from paceline.loadtest.arrivals import AnyArrivals, Trace
from paceline.loadtest.generator import Generator
from paceline.loadtest.own_server import started
from paceline.loadtest.plans import Plan
from paceline.loadtest.reporting import gate
from paceline.loadtest.reporting.document import document
from paceline.loadtest.reporting.gate import Rule
from paceline.loadtest.requests import discovery, replay
from paceline.loadtest.requests.replay import Replay
from paceline.loadtest.result import Result, read
from paceline.loadtest.runner import Run, Start
from paceline.loadtest.steps import OpenLoop, Step, Users
from paceline.loadtest.target import Target
from paceline.loadtest.terminal import summary as summary_text
from paceline.loadtest.terminal.interrupts import Interrupts
from paceline.loadtest.terminal.live import view_for

_NOT_GOOD_ENOUGH: Final = 1
_STEP_S: Final = 10.0
_WARMUP_S: Final = 1.0
# Of the steps that look for the number of users: the whole is to take about a minute.
_SHORT_STEP_S: Final = 5.0
_SHORT_WARMUP_S: Final = 0.5
_CONNECTIONS: Final = 1000
_AFTER_THE_LAST_S: Final = 1e-3


class Bench:
    """One run of the command.

    Args:
        arguments: of the `paceline` command, for the report.
        interrupts: told which test to end.
    """

    def __init__(self, flags: Flags, arguments: Sequence[str], interrupts: Interrupts) -> None:
        self._flags = flags
        self._arguments = arguments
        self._interrupts = interrupts

    def serving(self, model: str, flags: Sequence[str]) -> AbstractContextManager[str]:
        """`paceline serve` with these flags, on a free port; gives its URL."""
        return started(model, flags, say=self._say)

    def run(self, server: AbstractContextManager[str]) -> int:
        """Test the server whose URL the context gives; the exit code.

        Raises:
            PacelineError: nothing could be measured.
        """
        flags = self._flags
        rules = [gate.parse(text) for text in flags.fail_if]
        baseline = read(flags.baseline) if flags.baseline else None
        gate.check(rules, baseline, slo=flags.slo is not None, searches=flags.find_capacity)
        recorded = replay.read(flags.replay) if flags.replay else None
        kind, make_plan = self._planned(recorded)
        for path in filter(None, (flags.report, flags.markdown, flags.output, flags.locustfile)):
            _check_writable(path)
        with server as url:
            target = self._target(url, recorded)
            if flags.locustfile:
                return self._write_locustfile(target, flags.locustfile)
            test, failure = self._measured(target, kind, make_plan())
        result = document(test, kind=kind, arguments=self._arguments, engine=flags.engine, failure=failure)
        result = _compared(result, baseline, rules)
        written = self._report(result)
        if failure is not None:
            raise failure
        return 0 if written and self._is_good_enough(test, result) else _NOT_GOOD_ENOUGH

    def _target(self, url: str, recorded: Replay | None) -> Target:
        flags = self._flags
        return discovery.find(
            url,
            model=flags.model,
            protocol=flags.protocol,
            rows=flags.rows,
            data=flags.data,
            body=flags.body,
            content_type=flags.content_type,
            replay=recorded,
            headers=flags.headers,
            timeout_s=flags.timeout,
            seed=flags.seed,
            tls=flags.engine == "locust" or flags.locustfile is not None,
            say=self._say,
        )

    def _say(self, text: str) -> None:
        if not self._flags.quiet:
            click.echo(f"paceline: {text}", err=True)

    # -- which load -------------------------------------------------------------------------------------------

    def _planned(self, recorded: Replay | None) -> tuple[str, Callable[[], Plan]]:
        """The kind of test, and its plan."""
        flags = self._flags
        if flags.find_capacity:
            return "capacity", self._search
        if flags.users:
            steps = [self._step(Users(count=count, think_s=flags.think or (0.0, 0.0))) for count in flags.users]
            return "users", lambda: plans.fixed(steps)
        if flags.rate or flags.trace or recorded is not None:
            steps = [self._open_step(each) for each in self._arrivals(recorded)]
            return "open", lambda: plans.fixed(steps)
        return "closed", lambda: plans.doubling(
            duration_s=flags.duration or _SHORT_STEP_S,
            warmup_s=self._warmup_s(_SHORT_WARMUP_S),
            timeout_s=flags.timeout,
            seed=flags.seed,
        )

    def _search(self) -> Plan:
        flags = self._flags
        assert flags.slo is not None
        return capacity.search(
            flags.slo,
            step_s=flags.duration or _STEP_S,
            warmup_s=self._warmup_s(),
            connections=flags.connections or _CONNECTIONS,
            seed=flags.seed,
        )

    def _warmup_s(self, default_s: float = _WARMUP_S) -> float:
        return default_s if self._flags.warm_up is None else self._flags.warm_up

    def _arrivals(self, recorded: Replay | None) -> list[AnyArrivals]:
        flags = self._flags
        rates: Sequence[float | None] = flags.rate or (None,)
        if recorded is not None:
            return [Trace.of(recorded.at_s, rate, flags.time_scale) for rate in rates]
        kind = "trace" if flags.trace else flags.arrivals or "poisson"
        return [arrivals.parse(kind, rate, **flags.arrival_options) for rate in rates]

    def _open_step(self, each: AnyArrivals) -> Step:
        flags = self._flags
        if not isinstance(each, Trace):
            return self._step(OpenLoop(arrivals=each))
        # A recording is played from its begin, once, and all of it counts unless something else is asked for.
        warmup_s = self._warmup_s(0.0)
        rest_s = each.span_s + _AFTER_THE_LAST_S - warmup_s
        if flags.duration is None and rest_s <= 0:
            raise ConfigError(f"--warm-up: the arrivals take {each.span_s:.3g} s together, which leaves none to count")
        step = self._step(OpenLoop(arrivals=each))
        return msgspec.structs.replace(step, warmup_s=warmup_s, duration_s=flags.duration or rest_s)

    def _step(self, load: Users | OpenLoop) -> Step:
        flags = self._flags
        return Step(
            load=load,
            warmup_s=self._warmup_s(),
            duration_s=flags.duration or _STEP_S,
            timeout_s=flags.timeout,
            connections=flags.connections or _CONNECTIONS,
            seed=flags.seed,
        )

    # -- the test ---------------------------------------------------------------------------------------------

    def _measured(self, target: Target, kind: str, plan: Plan) -> tuple[Run, PacelineError | None]:
        flags, failure = self._flags, None
        may_change = kind in ("users", "open")
        with view_for(target, quiet=flags.quiet, live=flags.live, may_change=may_change) as view:
            test = Run(target, slo=flags.slo, view=view, start=self._engine())
            self._interrupts.test = test
            try:
                test.follow(plan)
            except GeneratorFailed as error:
                if not test.steps:
                    raise
                failure = error
        return test, failure

    def _engine(self) -> Start:
        if self._flags.engine == "paceline":
            return Generator
        from paceline.loadtest.locust.engine import LocustGenerator

        return LocustGenerator

    def _is_good_enough(self, test: Run, result: Result) -> bool:
        if not all(each.ok for each in result.gates):
            return False
        if self._flags.find_capacity and not test.ended_early:
            return result.capacity is not None and result.capacity.rate > 0
        return test.ended_early or any(step.latency.count for step in result.steps)

    # -- what comes out ---------------------------------------------------------------------------------------

    def _report(self, result: Result) -> bool:
        """True when all of it could be written."""
        flags = self._flags
        wanted = ((flags.output, _json), (flags.report, _html), (flags.markdown, _markdown))
        done = [_written(path, make(result)) for path, make in wanted if path is not None]
        # Last, for who reads it may have seen enough and be gone.
        if flags.as_json:
            _print(msgspec.json.encode(result))
        else:
            summary_text.write(result)
        return all(done)

    def _write_locustfile(self, target: Target, path: Path) -> int:
        from paceline.loadtest.locust import file as locust_file

        flags = self._flags
        think_s = flags.think or (0.0, 0.0)
        for each in locust_file.write(path, target, think_s, timeout_s=flags.timeout, force=flags.force):
            click.echo(f"paceline: {each}: written", err=True)
        click.echo(f"paceline: locust -f {path} runs it", err=True)
        return 0


def _compared(result: Result, baseline: Result | None, rules: Sequence[Rule]) -> Result:
    others = gate.differences(result, baseline) if baseline is not None else []
    gates = gate.compare(result, baseline, rules)
    return msgspec.structs.replace(result, gates=gates, warnings=[*result.warnings, *others])


def _json(result: Result) -> str:
    return msgspec.json.format(msgspec.json.encode(result), indent=1).decode() + "\n"


def _html(result: Result) -> str:
    from paceline.loadtest.reporting import html

    return html.page(result)


def _markdown(result: Result) -> str:
    from paceline.loadtest.reporting import markdown

    return markdown.summary(result)


def _print(document: bytes) -> None:
    stdout, rest = sys.stdout.buffer, document + b"\n"
    while rest:  # where Python does not buffer (PYTHONUNBUFFERED), a signal ends a write in the middle
        written = stdout.write(rest)
        rest = rest[written:]
    stdout.flush()


def _written(path: Path, text: str) -> bool:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        click.echo(f"error: {path}: cannot be written: {(error.strerror or str(error)).lower()}", err=True)
        return False
    click.echo(f"paceline: {path}: written", err=True)
    return True


def _check_writable(path: Path) -> None:
    folder = path.parent
    if path.is_dir():  # also what an empty variable of a script gives
        raise ConfigError(f"{path}: cannot be written: is a directory")
    if not folder.is_dir():
        raise ConfigError(f"{path}: cannot be written: there is no folder '{folder}'")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise ConfigError(f"{path}: cannot be written: permission denied")
