"""How do users load a server? Each sends, waits for the answer, thinks, and sends again.

Rules:
- A user has one connection. Where the server closes it, the next request waits until it is open again, and that counts.
- Users who think are in the middle of it when the step starts, so that they offer their mean rate from then on; users
  who do not think start at once.
- A request is due when its user has thought for as long as was drawn: what the client adds to it counts.
- A user whose request failed without an answer tries again after a pause that grows, so that a server that is down
  costs no core of the client.
"""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Iterable
from random import Random
from typing import Final

from paceline.loadtest.client.connections import BUSY, CONNECTING, IDLE, Connection, Route
from paceline.loadtest.client.loads import MOST_AT_ONCE, Load
from paceline.loadtest.client.loop import Loop
from paceline.loadtest.client.recorder import Recorder
from paceline.loadtest.samples import Outcome
from paceline.loadtest.steps import Change, Step, Users

_FIRST_PAUSE_S: Final = 0.01
_LONGEST_PAUSE_S: Final = 1.0
_MOST_DOUBLINGS: Final = 7


class _User(Connection):
    """One who sends.

    Attributes:
        failures: since the last answer.
        retired: sends no more.
    """

    __slots__ = ("failures", "number", "retired")

    def __init__(self, loop: Loop, route: Route, owner: ClosedLoop, number: int) -> None:
        super().__init__(loop, route, owner)
        self.number = number
        self.failures = 0
        self.retired = False


class ClosedLoop(Load):
    """`Users` of a step."""

    def __init__(self, users: Users, step: Step, loop: Loop, route: Route, recorder: Recorder, start_s: float) -> None:
        super().__init__(step, loop, route, recorder, start_s)
        self._think_s = users.think_s
        self._thinks = users.think_s[1] > 0
        self._random = Random(step.seed)
        self._users: list[_User] = []  # the present ones
        self._leaving: set[_User] = set()
        self._waiting: list[tuple[float, int, _User]] = []  # a heap: when each one sends next
        self._numbers = 0
        self._add(users.count, start_s)

    def change(self, change: Change, now: float) -> None:
        """Users come, or leave once they have their answers."""
        more = change.users - len(self._users)
        if more > 0:
            self._add(more, now)
        for _ in range(-more):
            user = self._users.pop()
            user.retired = True
            if user.state in (BUSY, CONNECTING):
                self._leaving.add(user)
            else:
                user.close()

    def halt(self, now: float) -> None:
        super().halt(now)
        self._waiting.clear()
        self.wake_s = math.inf

    def wake(self) -> None:
        """Those whose pause is over send."""
        for _ in range(MOST_AT_ONCE):
            now = time.monotonic()
            if not self._waiting or self._waiting[0][0] > now:
                break
            due_s, _, user = heapq.heappop(self._waiting)
            self._begin(user, due_s, now)
        self.wake_s = self._waiting[0][0] if self._waiting else math.inf

    def opened(self, connection: Connection) -> None:
        """Its user is waiting to send."""
        connection.send(self._next_body(), connection.due_s, time.monotonic())

    def lost(self, connection: Connection, outcome: Outcome, was: int) -> None:
        """A request has failed, if there was one; an idle connection is opened again when it is needed."""
        assert isinstance(connection, _User)
        if was == IDLE:
            return
        now = time.monotonic()
        self._fail(connection.due_s, connection.sent_s if was == BUSY else now, now, outcome)
        self._pause_after_failure(connection, now)

    def sweep(self, now: float) -> None:
        for user in self._connections():
            if user.state in (BUSY, CONNECTING) and now - user.due_s >= self._timeout_s:
                outcome = Outcome.TIMEOUT if user.state == BUSY else Outcome.NOT_CONNECTED
                was = user.state
                user.close()
                self.lost(user, outcome, was)

    def abandon(self, now: float) -> None:
        for user in self._connections():
            if user.state == CONNECTING:
                self._fail(user.due_s, now, now, Outcome.ABANDONED)
        super().abandon(now)

    def _add(self, count: int, now: float) -> None:
        for _ in range(count):
            user = _User(self._loop, self._route, self, self._numbers)
            self._numbers += 1
            self._users.append(user)
            self._wait(user, now + self._rest_of_thinking_s())

    def _wait(self, user: _User, until: float) -> None:
        if until < self.end_s:
            heapq.heappush(self._waiting, (until, user.number, user))
            self.wake_s = self._waiting[0][0]

    def _rest_of_thinking_s(self) -> float:
        """At some instant, which falls into a pause in proportion to its length, and anywhere in it."""
        shortest_s, longest_s = self._think_s
        pause_s = math.sqrt(self._random.uniform(shortest_s**2, longest_s**2))
        return self._random.uniform(0.0, pause_s)

    def _begin(self, user: _User, due_s: float, now: float) -> None:
        if user.retired or now >= self.end_s:
            user.close()
            self._leaving.discard(user)
            return
        self.under_way += 1
        self.lags.append(now - due_s)
        if user.state == IDLE:
            user.send(self._next_body(), due_s, now)
        else:
            user.due_s = due_s
            user.open(now)

    def _free(self, connection: Connection, now: float) -> None:
        assert isinstance(connection, _User)
        connection.failures = 0
        if self._thinks and not connection.retired:
            self._wait(connection, now + self._random.uniform(*self._think_s))
        else:
            self._begin(connection, now, now)

    def _pause_after_failure(self, user: _User, now: float) -> None:
        pause_s = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** min(user.failures, _MOST_DOUBLINGS))
        user.failures += 1
        if user.retired:
            self._leaving.discard(user)
        else:
            self._wait(user, now + max(pause_s, self._random.uniform(*self._think_s)))

    def _connections(self) -> Iterable[_User]:
        return (*self._users, *self._leaving)
