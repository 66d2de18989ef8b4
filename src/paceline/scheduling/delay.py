"""When does a batch that waits for company start? The queue of a policy with a delay.

Rules:
- A group's next batch waits until its rows fill it, or until its oldest request has waited `delay_s`.
- A deadline comes before company: the wait ends while the earliest one can still be met by a full batch, so that
  nobody who joins makes it unreachable, and with time to spare.
- When an instance is taken, groups that could not wait until it is free again have their turn as well.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable

from paceline.core.requests import InferRequest
from paceline.scheduling.latency import LatencyModel
from paceline.scheduling.queue import DeadlineQueue

# The timer that ends a wait comes late by about a millisecond, and on a busy machine by tens of them: waiting for
# company may take this much of the time that a request has, and no more.
_SHARE_TO_WAIT = 0.75
_TIMER_MARGIN_S = 5e-3
_NO_TIME = float("inf")


class _Open:
    """The rows of a group, and when its oldest request arrived; None: to be found out again."""

    __slots__ = ("oldest", "rows")

    def __init__(self) -> None:
        self.rows = 0
        self.oldest: float | None = _NO_TIME


class DelayedQueue(DeadlineQueue):
    """A queue whose groups wait for company.

    Args:
        delay_s: longest wait of a request for others to share its batch.
        max_rows: rows of a full batch.
        latency: estimate of the service time.
    """

    __slots__ = ("_delay_s", "_latency", "_max_rows", "_open")

    def __init__(self, delay_s: float, max_rows: int, latency: LatencyModel) -> None:
        super().__init__()
        self._delay_s = delay_s
        self._max_rows = max_rows
        self._latency = latency
        self._open: dict[Hashable, _Open] = {}

    def push(self, request: InferRequest) -> None:
        """As in every queue; it joins the open batch of its group."""
        super().push(request)
        window = self._open.get(request.group)
        if window is None:
            window = self._open[request.group] = _Open()
        window.rows += request.rows
        if window.oldest is not None and request.arrived < window.oldest:
            window.oldest = request.arrived

    def take(self, group: deque[InferRequest], max_rows: int) -> tuple[list[InferRequest], int]:
        """As in every queue; what is left makes the next batch of the group."""
        requests, rows = super().take(group, max_rows)
        self._left(requests[0].group, rows)
        return requests, rows

    def next_group(self, now: float) -> deque[InferRequest] | None:
        """The most urgent group among those that have waited long enough; None when none has."""
        groups = self._groups
        if not any(self._start_at(key) <= now for key in groups):
            return None
        busy_until = now + self._latency.high(self._max_rows)
        due = [
            group for key, group in groups.items() if self._latest(group) <= busy_until or self._start_at(key) <= now
        ]
        return min(due, key=lambda group: (group[0].deadline, group[0].sequence))

    def next_start(self) -> float:
        """When the next batch has waited long enough; infinity when nothing waits."""
        return min(map(self._start_at, self._groups), default=_NO_TIME)

    def validate_state(self) -> None:
        """As in every queue; the open batches agree with what waits."""
        super().validate_state()
        assert self._open.keys() == self._groups.keys()
        for key, window in self._open.items():
            assert window.rows == sum(request.rows for request in self._groups[key])
            assert window.oldest in (None, min(request.arrived for request in self._groups[key]))

    def _start_at(self, key: Hashable) -> float:
        window = self._open[key]
        if window.rows >= self._max_rows:
            return -_NO_TIME
        group = self._groups[key]
        if window.oldest is None:
            window.oldest = min(request.arrived for request in group)
        return min(window.oldest + self._delay_s, self._latest(group))

    def _latest(self, group: deque[InferRequest]) -> float:
        head = group[0]
        margin_s = max(_TIMER_MARGIN_S, (1 - _SHARE_TO_WAIT) * (head.deadline - head.arrived))
        return head.deadline - self._latency.high(self._max_rows) - margin_s

    def _forget(self, request: InferRequest, group: deque[InferRequest]) -> None:
        super()._forget(request, group)
        self._left(request.group, request.rows)

    def _left(self, key: Hashable, rows: int) -> None:
        if key not in self._groups:
            del self._open[key]
            return
        window = self._open[key]
        window.rows -= rows
        # Looked for when it is needed: not at all while more than a batch waits.
        window.oldest = None
