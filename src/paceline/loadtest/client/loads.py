"""What do the two kinds of load have in common? They own connections, record what becomes of requests, and end.

Rules:
- Every request that was due is recorded exactly once.
- No request is due after the end of the step; what is under way then is waited for, each until its own timeout.
- Timeouts are looked for among the connections, some times a second: a request that is answered in time costs nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from itertools import cycle
from typing import Final

from paceline.loadtest.client.codec import Answer
from paceline.loadtest.client.connections import BUSY, Connection, Route
from paceline.loadtest.client.loop import Loop, Waking
from paceline.loadtest.client.recorder import Recorder
from paceline.loadtest.samples import Outcome
from paceline.loadtest.steps import Change, Step

# So many at once, and others have their turn: answers are read in between.
MOST_AT_ONCE: Final = 16
OK: Final = int(Outcome.OK)
STATUS: Final = int(Outcome.STATUS)


class Load(Waking):
    """A load of one step.

    Args:
        start_s: of the step, its warm-up included, in monotonic seconds.

    Attributes:
        end_s: from then on nothing is due.
        under_way: requests that were due and have not ended, whether sent or not.
        lags: how late the client itself was for each of the last requests, in seconds; whoever reads them clears them.
    """

    def __init__(self, step: Step, loop: Loop, route: Route, recorder: Recorder, start_s: float) -> None:
        self.end_s = start_s + step.warmup_s + step.duration_s
        self.under_way = 0
        self.lags: list[float] = []
        self.recorder = recorder
        self._loop = loop
        self._route = route
        self._timeout_s = step.timeout_s
        self._next_body = cycle(range(route.bodies)).__next__

    def change(self, change: Change, now: float) -> None:
        """Hold another load from now on."""
        raise NotImplementedError

    def halt(self, now: float) -> None:
        """Nothing more is due."""
        self.end_s = min(self.end_s, now)

    def abandon(self, now: float) -> None:
        """Wait no longer for what is under way."""
        for each in self._connections():
            if each.state == BUSY:
                self._fail(each.due_s, each.sent_s, now, Outcome.ABANDONED)
            each.close()

    def sweep(self, now: float) -> None:
        """End what has taken too long."""
        raise NotImplementedError

    def answered(self, connection: Connection, answer: Answer) -> None:
        """Record it, and let the connection do what comes next."""
        now = time.monotonic()
        self.under_way -= 1
        self.recorder.add(connection.due_s, connection.sent_s, now, OK if answer.ok else STATUS, answer)
        self._free(connection, now)

    def _free(self, connection: Connection, now: float) -> None:
        """A connection has nothing to do; maybe it is closed."""
        raise NotImplementedError

    def _connections(self) -> Iterable[Connection]:
        """All that may be open; a copy."""
        raise NotImplementedError

    def _fail(self, due_s: float, sent_s: float, now: float, outcome: Outcome) -> None:
        self.under_way -= 1
        self.recorder.add_failure(due_s, sent_s, now, outcome)
