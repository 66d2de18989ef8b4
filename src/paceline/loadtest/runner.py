"""How is a load test run? The steps of a plan go to the client one by one, and what comes back is summed up.

Rules:
- A step that is ended early, by a key, by Ctrl-C or because the client died, counts as far as it went.
- Every wait has a deadline, that of the client's process included.
- Between two steps the server gets a moment to finish what the last one has left behind.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Final, Protocol

import msgspec

from paceline.core.errors import GeneratorFailed
from paceline.loadtest.generator import Generator
from paceline.loadtest.plans import Plan
from paceline.loadtest.result import Capacity, Slo, StepResult
from paceline.loadtest.samples import Samples
from paceline.loadtest.steps import Change, Ended, OpenLoop, Step, Users
from paceline.loadtest.tally import Tally
from paceline.loadtest.target import Target
from paceline.loadtest.view import QuietView, View
from paceline.reports.units import MILLISECONDS, PER_SECOND

_POLL_S: Final = 0.1
_REST_S: Final = 0.2
# Of a server that was overloaded: it may not have noticed yet that nobody waits any more.
_REST_AFTER_ERRORS_S: Final = 1.0
_GRACE_S: Final = 15.0
_FACTOR: Final = 1.25
_MOST_USERS: Final = 10_000
_MOST_FACTOR: Final = 1000.0
_PLAIN_KINDS: Final = ("constant", "poisson")


class Client(Protocol):
    """What sends the requests: `generator.Generator`, or another engine."""

    @property
    def pid(self) -> int:
        """Of its process."""

    def begin(self, step: Step) -> None:
        """Start a step; the last one has ended."""

    def poll(self, timeout_s: float) -> Samples | None:
        """What came since the last call; None: nothing did in that time."""

    @property
    def ended(self) -> Ended | None:
        """What the client says of the step, once all its samples were handed over."""

    def change(self, change: Change) -> None:
        """Another load for the rest of the step."""

    def stop(self) -> None:
        """End the step now."""


Start = Callable[[Target], AbstractContextManager[Client]]
"""Starts an engine."""


class Run:
    """One load test, and what it has found so far.

    Args:
        slo: what goodput is counted by.
        view: who looks on, and may press keys.
        start: starts the engine.

    Attributes:
        steps: those that are finished.
        capacity: that the plan has found; None if it did not look for one, or was ended before.
        ended_early: the rest of the plan was left out.
        notes: what a reader of the numbers should know, a sentence each.
    """

    def __init__(
        self,
        target: Target,
        *,
        slo: Slo | None = None,
        view: View | None = None,
        start: Start = Generator,
    ) -> None:
        self.target = target
        self.slo = slo
        self.view: View = view or QuietView()
        self.steps: list[StepResult] = []
        self.capacity: Capacity | None = None
        self.ended_early = False
        self.notes: list[str] = []
        self._start = start

    def end(self) -> None:
        """Stop sending soon, and leave out the rest of the plan; may be called by a signal handler."""
        self.ended_early = True

    def follow(self, plan: Plan) -> None:
        """Run the steps of a plan to its end, or until `end` is called.

        Raises:
            GeneratorFailed: the client's process died; `steps` has what came before.
        """
        with self._start(self.target) as client:
            step = _first(plan)
            while step is not None and not self.ended_early:
                held = _Held(self, client, step)
                try:
                    result = held.result()
                except GeneratorFailed:
                    self._keep(held.so_far())
                    raise
                self._keep(result)
                step = None if self.ended_early else self._next(plan, result)
        plan.close()

    def _keep(self, result: StepResult) -> None:
        if result.requests:
            self.steps.append(result)
            self.view.finished(result)
        elif result.duration_s:
            self.notes.append(f"{result.label}: no request that counts was answered or failed")

    def _next(self, plan: Plan, result: StepResult) -> Step | None:
        try:
            step = plan.send(result)
        except StopIteration as end:
            self.capacity = end.value
            return None
        self._rest(_REST_AFTER_ERRORS_S if result.errors else _REST_S)
        return step

    def _rest(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self.ended_early and time.monotonic() < until:
            time.sleep(min(_POLL_S, seconds))


class _Held:
    """One step while it runs."""

    def __init__(self, test: Run, client: Client, step: Step) -> None:
        self._test = test
        self._client = client
        self._step = step
        self._tally = Tally(step, test.target.rows, test.slo)
        self._view = test.view
        self._users = step.load.count if isinstance(step.load, Users) else 0
        self._factor = 1.0
        self._label = label(step.load)
        self._stopping = False
        self._began_s = time.monotonic()
        self._deadline_s = self._began_s + step.warmup_s + step.duration_s + step.timeout_s + _GRACE_S

    def result(self) -> StepResult:
        """Hold the load until its time is over or it is ended.

        Raises:
            GeneratorFailed: the client's process died, or does not end the step.
        """
        self._view.began(self._step, self._label, self._client.pid)
        self._client.begin(self._step)
        while (ended := self._client.ended) is None:
            samples = self._client.poll(_POLL_S)
            if samples is not None:
                self._tally.add(samples)
            if self._step.give_up and self._tally.hopeless:
                self._stop()
            now = time.monotonic()
            # This process may have been stopped for longer (Ctrl-Z): what has come meanwhile is read first.
            if samples is None and self._client.ended is None and now > self._deadline_s:
                raise GeneratorFailed(f"the client did not end its step within {now - self._began_s:.0f} s")
            self._view.progress(self._tally, samples, now - self._began_s)
            self._obey(self._view.pressed())
        return self._summed_up(ended)

    def so_far(self) -> StepResult:
        """What is known of a step whose client is no more; of the client itself nothing is."""
        wall_s = max(0.0, time.monotonic() - self._began_s - self._step.warmup_s)
        return self._summed_up(Ended(cpu=0.0, wall_s=wall_s))

    def _summed_up(self, ended: Ended) -> StepResult:
        if self._tally.abandoned and not self._step.give_up:
            longest = MILLISECONDS.text(self._tally.longest_abandoned_s * 1e3)
            under_way = f"{self._tally.abandoned} requests were under way for up to {longest}"
            self._test.notes.append(f"{self._label}: {under_way} when it was ended, and count nowhere")
        if self._label != label(self._step.load):
            self._test.notes.append(f"{self._label}: the load was changed by hand")
        return self._tally.result(self._label, ended)

    def _obey(self, keys: str) -> None:
        for key in keys:
            if key == "q":
                self._test.end()
            elif key == "n":
                self._stop()
            elif key in "+-" and self._view.may_change:
                self._change(up=key == "+")
        if self._test.ended_early:
            self._stop()

    def _stop(self) -> None:
        if not self._stopping:
            self._stopping = True
            self._deadline_s = min(self._deadline_s, time.monotonic() + _GRACE_S)
            self._client.stop()

    def _change(self, up: bool) -> None:
        before, load = label(self._step.load), self._step.load
        if isinstance(load, Users):
            by = max(1, round(self._users * (_FACTOR - 1.0)))
            self._users = min(max(1, self._users + (by if up else -by)), _MOST_USERS)
            self._client.change(Change(users=self._users))
            after = label(msgspec.structs.replace(load, count=self._users))
        else:
            factor = self._factor * (_FACTOR if up else 1.0 / _FACTOR)
            self._factor = min(max(1.0 / _MOST_FACTOR, factor), _MOST_FACTOR)
            self._client.change(Change(factor=self._factor))
            after = PER_SECOND.text(load.arrivals.rate * self._factor)
        self._label = f"{before}, then {after}"
        self._view.changed(self._label)


def label(load: Users | OpenLoop) -> str:
    """Such as "8 users" or "200/s"; by it, steps of two tests are compared."""
    if isinstance(load, Users):
        return f"{load.count} user{'s' * (load.count != 1)}"
    kind = str(load.arrivals.__struct_config__.tag)
    rate = f"{load.arrivals.rate:.6g}/s"
    return rate if kind in _PLAIN_KINDS else f"{rate} {kind}"


def _first(plan: Plan) -> Step | None:
    try:
        return next(plan)
    except StopIteration:
        return None
