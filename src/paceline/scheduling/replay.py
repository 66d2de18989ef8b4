"""Would the same events be decided the same way? Feeds a recorded log into a fresh scheduler.

A log holds events (what the scheduler was told) and decisions (what it answered). It must reach back to the
scheduler's first event, and the fresh scheduler must have the same policy and the same profile.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

from paceline.core.errors import Overloaded, RequestTooLarge
from paceline.core.requests import InferRequest
from paceline.scheduling.batch import Batch
from paceline.scheduling.scheduler import Event, Scheduler

EVENTS = frozenset({"arrived", "cancelled", "expired", "finished", "failed", "lost", "left", "returned", "next_batch"})


def decisions(log: Iterable[Event]) -> Iterator[Event]:
    """Only the decisions of a log, in order."""
    return (record for record in log if record[0] not in EVENTS)


def replay(log: Iterable[Event], scheduler: Scheduler) -> Iterator[Event]:
    """Feed the events of `log` to a fresh `scheduler`; yield its decisions, each when it is taken."""
    made: deque[Event] = deque()
    scheduler.log = made
    feed = _Feed(scheduler)
    for kind, now, *details in log:
        if kind in EVENTS:
            getattr(feed, kind)(now, *details)
            yield from decisions(made)
            made.clear()


class _Feed:
    """One method for each kind of event, with the fields that the log holds of it."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._requests: dict[int, InferRequest] = {}
        self._batches: dict[int, Batch] = {}

    def arrived(self, now: float, rows: int, size_bytes: int, deadline: float, group: object, admitted: bool) -> None:
        request = InferRequest((), rows, deadline, _ignore, group, size_bytes)
        try:
            self._scheduler.arrived(request, now, admitted=admitted)
        except (Overloaded, RequestTooLarge):
            return
        self._requests[request.sequence] = request

    def cancelled(self, now: float, sequence: int) -> None:
        self._scheduler.cancelled(self._requests[sequence], now)

    def expired(self, now: float) -> None:
        self._scheduler.expired(now)

    def finished(self, now: float, instance: int) -> None:
        self._scheduler.finished(self._batches.pop(instance), now)

    def failed(self, now: float, instance: int, miscounted: bool) -> None:
        self._scheduler.failed(self._batches.pop(instance), now, miscounted=miscounted)

    def lost(self, now: float, instance: int, retry: bool) -> None:
        self._scheduler.lost(self._batches.pop(instance), now, retry=retry)

    def left(self, now: float, instance: int) -> None:
        self._scheduler.left(instance, now)

    def returned(self, now: float, instance: int) -> None:
        self._scheduler.returned(instance, now)

    def next_batch(self, now: float) -> None:
        batch, _ = self._scheduler.next_batch(now)
        if batch is not None:
            self._batches[batch.instance] = batch


def _ignore(request: InferRequest) -> None:
    """Nobody waits for the answers of a replay."""
