"""Which calls run together, and how does each of them end?

The server's scheduler for calls of a function: every call is a request of one row.

Rules:
- Threads and event loops enter here, and are told of ends; none is started or waited for.
- A call ends exactly once: with its result, with what the function raised for it alone, or by one of our errors.
- A function that fails for several calls is asked again for halves of them, until the guilty one stands alone.
"""

from __future__ import annotations

import asyncio
import builtins
import inspect
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Set
from contextlib import suppress
from dataclasses import astuple, dataclass, replace
from typing import Any, cast

from paceline.core.errors import DeadlineExceeded, ModelFailed, Overloaded
from paceline.core.requests import DONE, InferRequest
from paceline.scheduling import Batch, LatencyModel, Policy, Scheduler

Waiter = threading.Event | asyncio.Future[None]


@dataclass(frozen=True, slots=True)
class Options:
    """What `paceline.batched` was given.

    Attributes:
        max_batch_size: most items in one call of the function.
        max_queue_delay_ms: longest wait of an item for others; 0: none.
        timeout_s: longest time from a call to its result.
        max_queue: most calls that wait.
    """

    max_batch_size: int = 64
    max_queue_delay_ms: float = 0.0
    timeout_s: float = 30.0
    max_queue: int = 4096

    def __post_init__(self) -> None:
        least: dict[str, float] = {"max_batch_size": 1, "max_queue_delay_ms": 0, "timeout_s": 1e-3, "max_queue": 1}
        for name, bound in least.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise TypeError(f"{name}: expected a number, got {value!r}")
            if not value >= bound:
                raise ValueError(f"{name}: must be >= {bound:g}, got {value!r}")
        for name in ("max_batch_size", "max_queue"):
            if not isinstance(getattr(self, name), int):
                raise TypeError(f"{name}: expected an integer, got {getattr(self, name)!r}")

    def policy(self) -> Policy:
        """The same in the scheduler's words."""
        return Policy(
            max_batch_rows=self.max_batch_size,
            max_queue_requests=self.max_queue,
            max_queue_delay_s=self.max_queue_delay_ms / 1000,
        )


@dataclass(frozen=True, slots=True)
class BatchStatistics:
    """What has happened so far in this process.

    Attributes:
        calls: of the wrapped function that were admitted.
        batches: runs of the function.
        largest_batch: most items in one run.
        failed: calls that ended with an exception of the function.
        late: calls whose deadline passed.
        refused: calls that were not admitted.
        waiting: calls in the queue now.
    """

    calls: int = 0
    batches: int = 0
    largest_batch: int = 0
    failed: int = 0
    late: int = 0
    refused: int = 0
    waiting: int = 0

    @classmethod
    def sum(cls, parts: Iterable[BatchStatistics]) -> BatchStatistics:
        """Of several event loops."""
        columns = list(zip(*[astuple(part) for part in parts], strict=True))
        if not columns:
            return cls()
        added = cls(*map(builtins.sum, columns))
        return replace(added, largest_batch=max(columns[2]))


class Call(InferRequest):
    """One item on its way through a batch.

    Attributes:
        item: what the function is given.
        waiter: set when it has ended.
        result, raised: how it ended; `raised` is None when there is a result.
    """

    result: Any = None
    raised: BaseException | None = None

    def __init__(self, item: Any, deadline: float, waiter: Waiter) -> None:
        super().__init__((), 1, deadline, _nobody)
        self.item = item
        self.waiter = waiter

    def outcome(self) -> Any:
        """The result.

        Raises:
            BaseException: what the function raised, or an error of ours.
        """
        if self.raised is None:
            return self.result
        try:
            raise self.raised
        finally:
            del self  # what is raised holds this frame, and the call would hold what is raised


class Batching:
    """The calls of one function. Every method may be called on any thread.

    Args:
        name: of the function, for messages.

    Attributes:
        lock: guards everything here.
    """

    def __init__(self, name: str, options: Options) -> None:
        self.name = name
        self.options = options
        self.lock = threading.Lock()
        self._scheduler = Scheduler(options.policy(), LatencyModel())
        self._calls = self._batches = self._largest = self._failed = self._late = self._refused = 0

    def admit(self, item: Any, waiter: Waiter) -> Call:
        """Queue an item. The lock is held by the caller, who looks after what runs.

        Raises:
            Overloaded: it would wait too long, or too many do.
        """
        now = time.monotonic()
        call = Call(item, now + self.options.timeout_s, waiter)
        try:
            self._scheduler.arrived(call, now)
        except Overloaded as refusal:
            self._refused += 1
            raise self._named(refusal) from None
        self._calls += 1
        return call

    def next(self) -> tuple[Batch | None, list[Call]]:
        """The batch to run now, and the calls that ended because they are late. The lock is held by the caller."""
        batch, dropped = self._scheduler.next_batch(time.monotonic())
        return batch, self._too_late(dropped)

    def wait_s(self) -> float:
        """How long to wait for company, when `next` gave nothing; infinity: until a call comes. With the lock held."""
        return self._scheduler.next_start() - time.monotonic()

    def ran(self, batch: Batch, results: Any) -> list[Call]:
        """Take back a batch that the function has answered; the calls that have ended."""
        try:
            listed = as_list(self.name, results, batch.rows)
        except ModelFailed as error:
            return self.failed(batch, error)
        with self.lock:
            self._count(batch)
            wanted = _calls(self._scheduler.finished(batch, time.monotonic()))
            for call in wanted:
                result = listed[call.offset]
                if isinstance(result, BaseException):
                    call.raised = result
                    self._failed += 1
                else:
                    call.result = result
        return wanted

    def failed(self, batch: Batch, error: BaseException) -> list[Call]:
        """Take back a batch that the function raised for; the calls that have ended with it."""
        with self.lock:
            self._count(batch)
            guilty = _calls(self._scheduler.failed(batch, time.monotonic()))
            self._failed += len(guilty)
            for call in guilty:
                call.raised = error
        return guilty

    def give_up(self, call: Call) -> None:
        """Nobody waits for a call any more. What runs goes on, and its result is ignored."""
        with self.lock:
            self._scheduler.cancelled(call, time.monotonic())

    def late(self, call: Call) -> None:
        """End a call whose deadline has passed, if it has not ended."""
        with self.lock:
            if call.state != DONE:
                self._scheduler.cancelled(call, time.monotonic())
                self._late += 1
                call.raised = self._deadline_exceeded()

    def statistics(self) -> BatchStatistics:
        """What has happened so far."""
        with self.lock:
            return BatchStatistics(
                self._calls,
                self._batches,
                self._largest,
                self._failed,
                self._late,
                self._refused,
                self._scheduler.queued_requests,
            )

    def _count(self, batch: Batch) -> None:
        self._batches += 1
        self._largest = max(self._largest, batch.rows)

    def _too_late(self, dropped: list[InferRequest]) -> list[Call]:
        self._late += len(dropped)
        late = _calls(dropped)
        for call in late:
            call.raised = self._deadline_exceeded()
        return late

    def _deadline_exceeded(self) -> DeadlineExceeded:
        return DeadlineExceeded(f"{self.name}: no result within {self.options.timeout_s:g} s")

    def _named(self, refusal: Overloaded) -> Overloaded:
        if refusal.reason == "queue_full":
            text = f"{self.name}: {self.options.max_queue} calls wait already"
        else:
            text = f"{self.name}: it would take longer than {self.options.timeout_s:g} s"
        return Overloaded(text, reason=refusal.reason, retry_after_s=refusal.retry_after_s)


def as_list(name: str, results: Any, count: int) -> list[Any]:
    """What a function has returned for `count` items.

    Raises:
        ModelFailed: not one result for each.
    """
    got = f"a {type(results).__name__}"
    # A set has no order, and a table of pandas gives its columns when it is walked.
    if not isinstance(results, str | bytes | Mapping | Set) and not hasattr(results, "columns"):
        try:
            if len(results) == count:
                return list(results)
            got = f"{len(results)}"
        except TypeError:
            pass  # it has no length, or has one only for show: a sparse matrix, an array without axes
    raise ModelFailed(
        f"{name}: expected {count} result{'s' * (count != 1)}, got {got}",
        code="bad_model_output",
        hint=f"{name} takes a list of items and returns a list with one result for each, in their order",
    )


def items_of(batch: Batch) -> list[Any]:
    """What the function is given."""
    return [call.item for call in _calls(batch.requests)]


def is_async(function: Callable[..., Any]) -> bool:
    """True for what is awaited: an `async def`, or an object whose `__call__` is one."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


def name_of(function: Callable[..., Any]) -> str:
    """What a function is called in messages."""
    return getattr(function, "__qualname__", None) or type(function).__name__


def tell(ended: Iterable[Call]) -> None:
    """Wake those who wait for calls that have ended. Callable on any thread."""
    by_loop: dict[asyncio.AbstractEventLoop, list[Call]] = {}
    for call in ended:
        if isinstance(call.waiter, threading.Event):
            call.waiter.set()
        else:
            by_loop.setdefault(call.waiter.get_loop(), []).append(call)
    for loop, calls in by_loop.items():
        # One wake-up of a loop for all of its calls: each costs a system call. A loop that is closed waits for nothing.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(tell_here, calls)


def tell_here(ended: Iterable[Call]) -> None:
    """As `tell`, on the loop of all of them."""
    for call in ended:
        assert isinstance(call.waiter, asyncio.Future)
        if not call.waiter.done():
            call.waiter.set_result(None)


def _calls(requests: list[InferRequest]) -> list[Call]:
    """The same, of the type that they have."""
    return cast("list[Call]", requests)


def _nobody(_: InferRequest) -> None:
    """A call has a waiter instead."""
