"""How do requests leave when they are due, whether or not earlier ones were answered?

Rules:
- A request that is due goes on an idle connection: the one that was used last, so that what is not needed stays unused
  and the server may close it.
- Where there is none, the request waits, and another connection is opened, up to the most there may be. Whichever
  connection is free first takes the request that has waited longest. All this time counts.
- More than so many do not wait: what is due then is never sent.
- Instants come in blocks, and are turned into times only as they are needed. Time of arrivals passes faster or slower
  than real time once the load is changed; then the process goes through its pattern in that time, and begins again
  where it has come to its end before the step has.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterable, Iterator

from numpy.random import default_rng  # it is slow to import: not when the first step has begun

from paceline.loadtest.arrivals import Arrivals
from paceline.loadtest.client.connections import BUSY, CONNECTING, IDLE, Connection, Route
from paceline.loadtest.client.loads import MOST_AT_ONCE, Load
from paceline.loadtest.client.loop import Loop
from paceline.loadtest.client.recorder import Recorder
from paceline.loadtest.samples import Outcome
from paceline.loadtest.steps import Change, OpenLoop, Step


class Schedule:
    """When requests are due, one after the other.

    Args:
        duration_s: that the process fills with its pattern.

    Attributes:
        next_s: when the next one is due, in monotonic seconds; infinite: none will be, as things are.
    """

    def __init__(self, arrivals: Arrivals, duration_s: float, seed: int, start_s: float) -> None:
        self._instants = _endless(arrivals, duration_s, seed)
        self._factor = 1.0
        # Where time of arrivals and real time met last.
        self._base_s, self._base_instant = start_s, 0.0
        self._instant = next(self._instants, math.inf)
        self.next_s = self._due_s()

    def advance(self) -> None:
        """To the next one."""
        self._instant = instant = next(self._instants, math.inf)
        self.next_s = self._base_s + (instant - self._base_instant) / self._factor

    def scale(self, factor: float, now: float) -> None:
        """From now on so many times as many."""
        self._base_instant += (now - self._base_s) * self._factor
        self._base_s, self._factor = now, factor
        self.next_s = self._due_s()

    def _due_s(self) -> float:
        if not self._factor:
            return math.inf
        return self._base_s + (self._instant - self._base_instant) / self._factor


class OpenLoad(Load):
    """An `OpenLoop` of a step."""

    def __init__(
        self, load: OpenLoop, step: Step, loop: Loop, route: Route, recorder: Recorder, start_s: float
    ) -> None:
        super().__init__(step, loop, route, recorder, start_s)
        self._schedule = Schedule(load.arrivals, step.warmup_s + step.duration_s, step.seed, start_s)
        self._idle: list[Connection] = []
        self._all: dict[Connection, None] = {}
        self._connecting = 0
        self._most = step.connections
        self._backlog: deque[float] = deque()
        self._most_waiting = step.backlog
        self._set_wake()

    def change(self, change: Change, now: float) -> None:
        self.wake()  # what is due by now was due at the old rate
        self._schedule.scale(change.factor, now)
        self._set_wake()

    def halt(self, now: float) -> None:
        super().halt(now)
        self._set_wake()

    def wake(self) -> None:
        schedule, idle = self._schedule, self._idle
        for _ in range(MOST_AT_ONCE):
            due_s = schedule.next_s
            now = time.monotonic()
            if due_s > now or due_s >= self.end_s:
                break
            schedule.advance()
            self.lags.append(now - due_s)
            self.under_way += 1
            if idle:
                idle.pop().send(self._next_body(), due_s, now)
            else:
                self._wait(due_s, now)
        self._set_wake()

    def opened(self, connection: Connection) -> None:
        self._connecting -= 1
        self._free(connection, time.monotonic())

    def lost(self, connection: Connection, outcome: Outcome, was: int) -> None:
        """What it was opened for, or was doing, has failed."""
        now = time.monotonic()
        self._all.pop(connection, None)
        if was == BUSY:
            self._fail(connection.due_s, connection.sent_s, now, outcome)
            self._open_more(now)
        elif was == CONNECTING:
            self._connecting -= 1
            if self._backlog:
                self._fail(self._backlog.popleft(), now, now, outcome)
        else:
            self._idle.remove(connection)

    def sweep(self, now: float) -> None:
        limit_s = now - self._timeout_s
        for each in self._connections():
            began_s = each.opening_s if each.state == CONNECTING else each.due_s
            if each.state in (BUSY, CONNECTING) and began_s <= limit_s:
                was = each.state
                each.close()
                self.lost(each, Outcome.TIMEOUT if was == BUSY else Outcome.NOT_CONNECTED, was)
        while self._backlog and self._backlog[0] <= limit_s:
            self._fail(self._backlog.popleft(), now, now, Outcome.TIMEOUT)

    def abandon(self, now: float) -> None:
        while self._backlog:
            self._fail(self._backlog.popleft(), now, now, Outcome.ABANDONED)
        super().abandon(now)

    def _free(self, connection: Connection, now: float) -> None:
        if connection.state != IDLE:
            self._all.pop(connection, None)
            self._open_more(now)
        elif self._backlog:
            connection.send(self._next_body(), self._backlog.popleft(), now)
        else:
            self._idle.append(connection)

    def _wait(self, due_s: float, now: float) -> None:
        if len(self._backlog) >= self._most_waiting:
            self._fail(due_s, now, now, Outcome.UNSENT)
            return
        self._backlog.append(due_s)
        self._open_more(now)

    def _open_more(self, now: float) -> None:
        """One connection for each request that waits, as far as there may be."""
        while self._connecting < len(self._backlog) and len(self._all) < self._most:
            made = Connection(self._loop, self._route, self)
            self._all[made] = None
            self._connecting += 1
            made.open(now)

    def _set_wake(self) -> None:
        next_s = self._schedule.next_s
        self.wake_s = next_s if next_s < self.end_s else math.inf

    def _connections(self) -> Iterable[Connection]:
        return tuple(self._all)


def _endless(arrivals: Arrivals, duration_s: float, seed: int) -> Iterator[float]:
    """The instants of the process again and again, each time in other draws; they end where nothing ever arrives."""
    random = default_rng(seed)
    begin, found = 0.0, True
    while found:
        found = False
        for block in arrivals.blocks(duration_s, random):
            if block.size:
                found = True
                yield from (block + begin).tolist()
        begin += duration_s
