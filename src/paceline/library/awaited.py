"""How does an async function run in batches?

Rules:
- It runs as a task of the loop that calls it; every loop has batches of its own.
- A run ends at the last of its callers' deadlines.
- The task has a context of its own: a batch belongs to no single caller.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
import traceback
from collections.abc import Awaitable, Callable, Iterable
from functools import update_wrapper
from typing import Any, Generic, TypeVar, cast
from weakref import WeakKeyDictionary

from paceline.library import forks
from paceline.library.batching import Batching, BatchStatistics, Call, Options, items_of, name_of, tell_here
from paceline.library.methods import PerObject
from paceline.scheduling import Batch

T = TypeVar("T")
R = TypeVar("R")


class AsyncBatched(PerObject, Generic[T, R]):
    """An async function of a list, awaited with one item at a time.

    Args:
        function: takes a list of items; returns one result for each, in their order. An exception among the results
            is raised to the caller of its item.

    Attributes:
        function: the same.
    """

    def __init__(self, function: Callable[[list[T]], Awaitable[Iterable[R]]], options: Options) -> None:
        super().__init__(function, options)
        update_wrapper(self, function)
        self._name = name_of(function)
        self.forked()
        forks.tell(self)

    async def __call__(self, item: T) -> R:
        """The result of one item, which others share a batch with.

        Raises:
            Overloaded: too many calls wait.
            DeadlineExceeded: there was no result in time.
            Exception: what the function raised.
        """
        return cast("R", await self._here().call(item))

    async def aio(self, item: T) -> R:
        """The same."""
        return await self(item)

    def statistics(self) -> BatchStatistics:
        """What has happened so far in this process, on all loops that are left."""
        with self._lock:
            all_loops = [each.batching.statistics() for each in self._loops.values()]
        return BatchStatistics.sum(all_loops)

    def forked(self) -> None:
        """Begin anew."""
        self._lock = threading.Lock()
        self._loops: WeakKeyDictionary[asyncio.AbstractEventLoop, _OnLoop] = WeakKeyDictionary()

    def _here(self) -> _OnLoop:
        loop = asyncio.get_running_loop()
        with self._lock:
            found = self._loops.get(loop)
            if found is None:
                found = self._loops[loop] = _OnLoop(self.function, Batching(self._name, self._options))
            return found


class _OnLoop:
    """The batches of one loop."""

    def __init__(self, function: Callable[[list[Any]], Awaitable[Any]], batching: Batching) -> None:
        self.batching = batching
        self._function = function
        self._task: asyncio.Task[None] | None = None
        self._company = asyncio.Event()

    async def call(self, item: Any) -> Any:
        if self._task is not None and asyncio.current_task() is self._task:
            raise RuntimeError(f"{self.batching.name} was called by itself, and would wait for its own batch")
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        with self.batching.lock:
            call = self.batching.admit(item, done)
        self._company.set()
        if self._task is None:
            self._task = loop.create_task(self._work(), context=contextvars.Context())
        timer = loop.call_later(self.batching.options.timeout_s, self._expire, call)
        try:
            await done
        except asyncio.CancelledError:
            self.batching.give_up(call)
            raise
        finally:
            timer.cancel()
        return call.outcome()

    def _expire(self, call: Call) -> None:
        self.batching.late(call)
        tell_here([call])

    async def _work(self) -> None:
        """Run batches until nothing waits."""
        try:
            while (batch := await self._next()) is not None:
                tell_here(await self._run(batch))
        except Exception:
            # A defect of ours. Those who wait go at their deadlines; whoever comes next is served.
            traceback.print_exc()
            self.batching = Batching(self.batching.name, self.batching.options)
        finally:
            self._task = None
            self._company = asyncio.Event()  # one that was waited for keeps the loop alive, whose batches these are

    async def _next(self) -> Batch | None:
        while True:
            self._company.clear()
            with self.batching.lock:
                batch, late = self.batching.next()
                wait_s = self.batching.wait_s()
            tell_here(late)
            if batch is not None:
                return batch
            if late:
                continue
            if wait_s == float("inf"):
                return None
            try:
                async with asyncio.timeout(max(0.0, wait_s)):
                    await self._company.wait()
            except TimeoutError:
                pass  # it has waited long enough

    async def _run(self, batch: Batch) -> list[Call]:
        # When all who wait have gone, what hangs must not keep the next batch from running.
        last_s = max(call.deadline for call in batch.requests) - time.monotonic()
        try:
            async with asyncio.timeout(max(0.0, last_s)):
                results = await self._function(items_of(batch))
        except asyncio.CancelledError as error:
            ended = self.batching.failed(batch, error)
            if _cancelled_from_outside():
                tell_here(ended)
                raise
            return ended
        except BaseException as error:
            own = error.__traceback__.tb_next if error.__traceback__ is not None else None
            return self.batching.failed(batch, error.with_traceback(own))
        return self.batching.ran(batch, results)


def _cancelled_from_outside() -> bool:
    """True at the end of `asyncio.run`, false when the function has cancelled something of its own."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
