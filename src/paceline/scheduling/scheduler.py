"""Which requests run together, when, and which are refused?

Events come in as method calls with the time; decisions go out as return values, `Overloaded` and `RequestTooLarge`.

Rules:
- Work-conserving: an idle instance with work always gets it; nothing waits for a batch to fill, unless the policy
  has a delay: then an open batch waits that long for company, in `delay.py`. A wait gives way to a deadline, so
  admission need not count it.
- A batch is closed when an instance is free, never earlier, so it holds all that came in the meantime.
- Rows are counted, not requests. A request with more rows than a batch may have is cut into parts; one with more
  parts than may wait is never admitted, for rows that hold nothing cost their sender nothing.
- Before a batch is formed, heads that it would finish too late are dropped. The batch is never shrunk to save
  one: with a large fixed cost that lowers the capacity exactly when there is too little of it.
- A request that would not be answered in time is refused on arrival, while refusing is cheap.
- Predictions may refuse only as long as they are tested: when the instances have been idle for `PROBE_S`, the
  next request runs whatever its prediction, if one batch is enough for it. A wrong estimate would otherwise keep
  itself alive.
- When a batch fails, its halves are run apart until the guilty request stands alone.
- When the process that ran a batch dies, its rows run once more, each alone: one that is lost twice has killed its
  process, or had bad luck twice, and ends, with its request. So nobody else's rows are lost with it again. An instance
  whose process is away gets no batch until it is back, and is not counted on meanwhile.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from paceline.core.errors import Overloaded, RequestTooLarge
from paceline.core.requests import DONE, QUEUED, RUNNING, InferRequest
from paceline.scheduling.batch import Batch, Policy
from paceline.scheduling.delay import DelayedQueue
from paceline.scheduling.latency import LatencyModel
from paceline.scheduling.queue import DeadlineQueue

PROBE_S = 0.25
_NO_TIME = float("inf")
_LOSSES = 2

Event = tuple[Any, ...]


class Scheduler:
    """Queue, admission and batch forming for one model.

    Args:
        policy: the bounds.
        latency: estimate of the service time; it learns from `finished`.
        log: where events and decisions are recorded, for replay; None records nothing.
    """

    def __init__(self, policy: Policy, latency: LatencyModel, *, log: deque[Event] | None = None) -> None:
        self.policy = policy
        self.latency = latency
        self.log = log
        delay_s = policy.max_queue_delay_s
        self._queue = DelayedQueue(delay_s, policy.max_batch_rows, latency) if delay_s > 0 else DeadlineQueue()
        self._idle = list(range(policy.instances))
        self._running: dict[int, Batch] = {}
        self._away: set[int] = set()
        self._apart: deque[list[InferRequest]] = deque()
        self._last_end = -_NO_TIME
        self._sequence = 0
        self._row_s = 0.0  # what a row costs at most, in full batches
        self._learned()

    # -- events -----------------------------------------------------------------------------------------------

    def arrived(self, request: InferRequest, now: float, *, admitted: bool = False) -> None:
        """Admit one request to the queue.

        Args:
            request: inputs of shape [rows, ...]; rows >= 1.
            now: monotonic seconds; must not go back.
            admitted: `admit` was just asked, and nothing has happened since.

        Raises:
            Overloaded: a bound is reached, or the deadline cannot be met.
            RequestTooLarge: it would have more parts than may ever wait.
        """
        if self.log is not None:
            self._log_arrival(request, now, admitted)
        if not admitted:
            self.admit(request.rows, request.bytes, request.deadline, now)
        self._sequence += 1
        request.arrived = now
        request.sequence = self._sequence
        if request.rows <= self.policy.max_batch_rows:
            request.state = QUEUED
            self._queue.push(request)
            return
        request.state = RUNNING  # the whole is never in the queue itself
        for part in request.split(self.policy.max_batch_rows):
            part.arrived = now
            part.sequence = self._sequence
            part.state = QUEUED
            self._queue.push(part)

    def admit(self, rows: int, size_bytes: int, deadline: float, now: float) -> None:
        """Check whether a request could be queued now; protocols ask before they parse the body.

        Raises:
            Overloaded, RequestTooLarge: as for `arrived`.
        """
        queue, policy = self._queue, self.policy
        if (rows > policy.max_batch_rows and self._too_many_parts(rows)) or queue.requests >= policy.max_queue_requests:
            raise self._overloaded("Exceeds maximum queue size", "queue_full", now)
        if queue.bytes + size_bytes > policy.max_queue_bytes and queue.requests:
            raise self._overloaded("Exceeds maximum queue size in bytes", "queue_bytes", now)
        # Most requests have seconds of slack: a bound that is certainly too high settles those.
        if now + (queue.rows + rows + 3 * policy.max_batch_rows) * self._row_s <= deadline:
            return
        if self._predicted_end(rows, now) > deadline and not self._must_probe(now):
            raise self._overloaded("the deadline would pass in the queue", "deadline_unreachable", now)

    def cancelled(self, request: InferRequest, now: float) -> None:
        """Forget a request whose client left. What already runs goes on, its result is ignored."""
        if self.log is not None:
            self.log.append(("cancelled", now, request.sequence))
        if request.state != DONE:
            self._end(request)

    def expired(self, now: float) -> list[InferRequest]:
        """End every request whose deadline is not after `now`, waiting or running."""
        if self.log is not None:
            self.log.append(("expired", now))
        late = self._queue.expired(now)
        for requests in self._outside_queue():
            late += [request for request in requests if request.state != DONE and request.deadline <= now]
        for request in late:
            request.state = DONE
        return self._ended("late", self._end_all(late), now)

    def finished(self, batch: Batch, now: float) -> list[InferRequest]:
        """Take back the instance; the requests of the batch that still want their answer."""
        if self.log is not None:
            self.log.append(("finished", now, batch.instance))
        self._free(batch, now)
        self.latency.observe(batch.rows, now - batch.started)
        self._learned()
        wanted = [request for request in batch.requests if request.state == RUNNING]
        for request in wanted:
            request.state = DONE
        if self.log is not None:
            self._ended("answered", wanted, now)
        return wanted

    def failed(self, batch: Batch, now: float, *, miscounted: bool = False) -> list[InferRequest]:
        """Take back the instance; the one request that is certainly guilty, or none and the halves run apart.

        Args:
            miscounted: the outputs were not as many as the rows. In a half they might be, by chance, and be somebody
                else's: each request runs alone.
        """
        if self.log is not None:
            self.log.append(("failed", now, batch.instance, miscounted))
        self._free(batch, now)
        suspects = [request for request in batch.requests if request.state == RUNNING]
        if len(batch.requests) == 1:
            return self._ended("guilty", self._end_all(suspects), now)
        if miscounted:
            self._apart.extend([request] for request in suspects)
            return []
        half = (len(suspects) + 1) // 2
        self._apart.extendleft(requests for requests in (suspects[half:], suspects[:half]) if requests)
        return []

    def lost(self, batch: Batch, now: float, *, retry: bool = True) -> list[InferRequest]:
        """The process that ran the batch died; the requests that end with it. The instance is away until `returned`."""
        if self.log is not None:
            self.log.append(("lost", now, batch.instance, retry))
        del self._running[batch.instance]
        self._away.add(batch.instance)
        over: list[InferRequest] = []
        for request in batch.requests:
            if request.state != RUNNING:
                continue
            request.losses += 1
            if retry and request.losses < _LOSSES:
                self._apart.extend([row] for row in request.rows_apart())
            else:
                over.append(request)
        return self._ended("lost for good", self._end_all(over), now)

    def left(self, instance: int, now: float) -> None:
        """An idle instance is away until `returned`."""
        if self.log is not None:
            self.log.append(("left", now, instance))
        self._idle.remove(instance)
        self._away.add(instance)

    def returned(self, instance: int, now: float) -> None:
        """An instance that was away can run batches again."""
        if self.log is not None:
            self.log.append(("returned", now, instance))
        self._away.remove(instance)
        self._idle.append(instance)

    # -- decisions --------------------------------------------------------------------------------------------

    def next_batch(self, now: float) -> tuple[Batch | None, list[InferRequest]]:
        """Close a batch for an idle instance.

        Returns:
            The batch to run now, or None (`next_start` says when to ask again); and the requests dropped because no
            batch could finish them in time.
        Source: batch-aware early drop, Nexus (SOSP 2019), section 4.
        """
        dropped: list[InferRequest] = []
        if not self._idle:
            return None, dropped
        if self.log is not None:
            self.log.append(("next_batch", now))
        batch = self._rerun(dropped, now) if self._apart else None
        while batch is None and (group := self._queue.next_group(now)) is not None:
            # Behind a head that was dropped, another group may be more urgent: look again.
            if not self._drop_late(group, dropped, now):
                requests, rows = self._queue.take(group, self.policy.max_batch_rows)
                batch = self._start(requests, rows, now)
        if dropped:
            self._ended("dropped", dropped, now)
        return batch, dropped

    def next_start(self) -> float:
        """When to ask `next_batch` again, which gave nothing, if nothing happens before; infinity: not at all."""
        return self._queue.next_start() if self._idle else _NO_TIME

    # -- statistics -------------------------------------------------------------------------------------------

    @property
    def queued_requests(self) -> int:
        """Requests (or parts of large ones) that wait."""
        return self._queue.requests + len(self._waiting_apart())

    @property
    def queued_rows(self) -> int:
        """Rows that wait."""
        return self._queue.rows + sum(request.rows for request in self._waiting_apart())

    @property
    def running_batches(self) -> int:
        """Batches on instances."""
        return len(self._running)

    def runs(self, batch: Batch) -> bool:
        """True until `finished` or `failed` was told of `batch`."""
        return self._running.get(batch.instance) is batch

    @property
    def has_work(self) -> bool:
        """True when `next_batch` may have something to do."""
        return bool(self._idle) and bool(self._queue.requests or self._apart)

    def next_deadline(self) -> float:
        """The earliest deadline among all that has not ended; infinity when there is none."""
        earliest = self._queue.earliest_deadline()
        for requests in self._outside_queue():
            earliest = min([earliest, *(request.deadline for request in requests if request.state != DONE)])
        return earliest

    def predicted_drain_s(self, now: float) -> float:
        """Seconds until all that is queued and running now has run."""
        batches = -(-self._queue.rows // self.policy.max_batch_rows)
        work_s = self._residual(now) + batches * self.latency(self.policy.max_batch_rows)
        return work_s / self._present

    def validate_state(self) -> None:
        """Check that what is remembered agrees with itself; tests do so after every event.

        Raises:
            AssertionError: a defect in the scheduler.
        """
        most = self.policy.max_batch_rows
        self._queue.validate_state()
        assert all(request.rows <= most for request in self._queue)
        assert sorted([*self._idle, *self._running, *self._away]) == list(range(self.policy.instances))
        outside = [request for requests in self._outside_queue() for request in requests]
        assert len(outside) == len(set(outside)), "a request runs twice"
        assert all(request.state in (RUNNING, DONE) for request in outside)
        for instance, batch in self._running.items():
            assert batch.instance == instance
            assert batch.rows == sum(request.rows for request in batch.requests) <= most

    # -- inside -----------------------------------------------------------------------------------------------

    def _log_arrival(self, request: InferRequest, now: float, admitted: bool) -> None:
        assert self.log is not None
        size = (request.rows, request.bytes)
        self.log.append(("arrived", now, *size, request.deadline, request.group, admitted))
        if not admitted:
            # Asked twice, which changes nothing: the log then needs no handler on the path of every request.
            try:
                self.admit(*size, request.deadline, now)
            except (Overloaded, RequestTooLarge) as refusal:
                self.log.append(("rejected", now, refusal.reason if isinstance(refusal, Overloaded) else refusal.code))
                return
        self.log.append(("admitted", now, self._sequence + 1))

    def _too_many_parts(self, rows: int) -> bool:
        policy = self.policy
        parts = -(-rows // policy.max_batch_rows)
        if parts > policy.max_queue_requests:
            raise RequestTooLarge(
                f"a request of {rows} rows is too large: at most {policy.max_queue_requests * policy.max_batch_rows} "
                f"rows can wait, in {policy.max_queue_requests} batches of {policy.max_batch_rows}"
            )
        return self._queue.requests + parts > policy.max_queue_requests

    def _waiting_apart(self) -> list[InferRequest]:
        return [request for requests in self._apart for request in requests if request.state == RUNNING]

    def _rerun(self, dropped: list[InferRequest], now: float) -> Batch | None:
        """Start the next part of a batch that failed."""
        while self._apart:
            requests = self._apart.popleft()
            late = [request for request in requests if request.state == RUNNING and request.deadline <= now]
            dropped += self._end_all(late)
            requests = [request for request in requests if request.state == RUNNING]
            if requests:
                return self._start(requests, sum(request.rows for request in requests), now)
        return None

    def _ended(self, why: str, requests: list[InferRequest], now: float) -> list[InferRequest]:
        if self.log is not None:
            self.log.append((why, now, [request.sequence for request in requests]))
        return requests

    def _outside_queue(self) -> list[list[InferRequest]]:
        return [*self._apart, *(batch.requests for batch in self._running.values())]

    def _residual(self, now: float) -> float:
        return sum(max(0.0, batch.expected_end - now) for batch in self._running.values())

    def _predicted_end(self, rows: int, now: float) -> float:
        most = self.policy.max_batch_rows
        full, rest = divmod(self._queue.rows, most)
        wait_s = 0.0
        if full or not self._idle:
            wait_s = (self._residual(now) + full * self.latency.high(most)) / self._present
        own = rest + rows
        extra = -(-own // most) - 1  # further batches that a large request needs for itself
        return now + wait_s + extra * self.latency.high(most) + self.latency.high(min(own, most))

    @property
    def _present(self) -> int:
        return max(1, self.policy.instances - len(self._away))

    def _learned(self) -> None:
        most = self.policy.max_batch_rows
        self._row_s = self.latency.high(most) / most

    def _must_probe(self, now: float) -> bool:
        return bool(self._idle) and not self._queue.requests and now - self._last_end >= PROBE_S

    def _overloaded(self, message: str, reason: str, now: float) -> Overloaded:
        return Overloaded(message, reason=reason, retry_after_s=max(0.001, self.predicted_drain_s(now)))

    def _drop_late(self, group: deque[InferRequest], dropped: list[InferRequest], now: float) -> bool:
        """Drop the heads that the batch would finish too late; True when there were any."""
        before = len(dropped)
        most = self.policy.max_batch_rows
        if group[0].deadline - now > self.latency.high(most):
            return False
        probe = now - self._last_end >= PROBE_S
        rows = sum(request.rows for request in group)
        while group:
            head = group[0]
            end = now + self.latency.high(min(rows, most))
            if head.deadline > now and (probe or end <= head.deadline):
                break
            self._queue.pop(group)
            head.state = DONE
            dropped += self._end_all([head])
            # Ending a part takes its brothers out of the queue too.
            rows = rows - head.rows if head.parent is None else sum(request.rows for request in group)
        return len(dropped) > before

    def _start(self, requests: list[InferRequest], rows: int, now: float) -> Batch:
        batch = Batch(requests, rows, self._idle.pop(), now)
        batch.expected_end = now + self.latency(rows)
        offset = 0
        for request in requests:
            request.state = RUNNING
            request.offset = offset
            offset += request.rows
            request.queue_s = now - request.arrived
            request.batch_rows = rows
        self._running[batch.instance] = batch
        if self.log is not None:
            self.log.append(("batch", now, batch.instance, [request.sequence for request in requests], rows))
        return batch

    def _free(self, batch: Batch, now: float) -> None:
        del self._running[batch.instance]
        self._idle.append(batch.instance)
        self._last_end = now

    def _end_all(self, pieces: list[InferRequest]) -> list[InferRequest]:
        """End the requests that `pieces` are or belong to; each such request once."""
        requests = list(dict.fromkeys(piece.parent or piece for piece in pieces))
        for request in requests:
            self._end(request)
        return requests

    def _end(self, request: InferRequest) -> None:
        for piece in request.parts or (request,):
            if piece.state == QUEUED:
                self._queue.remove(piece)
            piece.state = DONE
        request.state = DONE
        request.parts = None  # they refer to it: do not leave them to the garbage collector
