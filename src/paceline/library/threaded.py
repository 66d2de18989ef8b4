"""How does a plain function run in batches, called from many threads and from event loops?

Rules:
- One thread runs the function, always the same: what a library keeps by thread stays, and no lock is needed in it.
- It starts with the first call in a process, so that a server may fork after it has imported the application.
- While a batch runs, the next one forms. Nobody waits for company, unless a delay was asked for.
- The thread does not keep the function alive, nor the process.
"""

from __future__ import annotations

import asyncio
import threading
import traceback
import warnings
import weakref
from collections.abc import Callable, Iterable
from functools import update_wrapper
from typing import Generic, TypeVar, cast

from paceline.engine.instances import InstanceThread
from paceline.library import forks
from paceline.library.batching import Batching, BatchStatistics, Call, Options, Waiter, items_of, name_of, tell
from paceline.library.methods import PerObject
from paceline.scheduling import Batch

T = TypeVar("T")
R = TypeVar("R")


class Batched(PerObject, Generic[T, R]):
    """A function of a list, called with one item at a time.

    Args:
        function: takes a list of items; returns one result for each, in their order. An exception among the results
            is raised to the caller of its item.

    Attributes:
        function: the same.
    """

    def __init__(self, function: Callable[[list[T]], Iterable[R]], options: Options) -> None:
        super().__init__(function, options)
        update_wrapper(self, function)
        self._name = name_of(function)
        self.forked()
        forks.tell(self)

    def __call__(self, item: T) -> R:
        """Wait for the result of one item, which others share a batch with.

        Raises:
            Overloaded: too many calls wait.
            DeadlineExceeded: there was no result in time.
            Exception: what the function raised.
        """
        if asyncio._get_running_loop() is not None:
            text = (
                f"{self._name}(...) blocks the event loop, and nobody can join its batch: await {self._name}.aio(...)"
            )
            warnings.warn(text, RuntimeWarning, stacklevel=2)
        done = threading.Event()
        call = self._submit(item, done)
        try:
            if not done.wait(self._options.timeout_s):
                self._batching.late(call)
        except BaseException:
            self._batching.give_up(call)  # Ctrl-C
            raise
        return cast("R", call.outcome())

    async def aio(self, item: T) -> R:
        """As calling it, without blocking the event loop: `await predict.aio(item)`."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        call = self._submit(item, done)
        timer = loop.call_later(self._options.timeout_s, self._expire, call)
        try:
            await done
        except asyncio.CancelledError:
            self._batching.give_up(call)
            raise
        finally:
            timer.cancel()
        return cast("R", call.outcome())

    def statistics(self) -> BatchStatistics:
        """What has happened so far in this process."""
        return self._batching.statistics()

    def forked(self) -> None:
        """Begin anew: nothing waits, nothing runs, and there is no thread yet."""
        self._batching = Batching(self._name, self._options)
        self._changed = threading.Condition(self._batching.lock)
        self._working = False
        self._thread: InstanceThread | None = None
        self._ident: int | None = None

    # -- on the caller's thread -------------------------------------------------------------------------------

    def _submit(self, item: T, waiter: Waiter) -> Call:
        if threading.get_ident() == self._ident:
            raise RuntimeError(f"{self._name} was called by itself, and would wait for its own batch")
        with self._changed:
            call = self._batching.admit(item, waiter)
            begins, self._working = not self._working, True
            if not begins:
                self._changed.notify()
            elif self._thread is None:
                self._thread = InstanceThread(f"paceline-{self._name}")
                weakref.finalize(self, self._thread.stop)
            thread = self._thread
        if begins and thread is not None:
            thread.run(self._work)
        return call

    def _expire(self, call: Call) -> None:
        self._batching.late(call)
        tell([call])

    # -- on the function's thread -----------------------------------------------------------------------------

    def _work(self) -> None:
        """Run batches until nothing waits."""
        self._ident = threading.get_ident()
        try:
            while (batch := self._next()) is not None:
                tell(self._run(batch))
        except BaseException:
            # A defect of ours. Those who wait go at their deadlines; whoever comes next is served.
            traceback.print_exc()
            self.forked()

    def _next(self) -> Batch | None:
        while True:
            with self._changed:
                batch, late = self._batching.next()
                if batch is None and not late:
                    wait_s = self._batching.wait_s()
                    if wait_s == float("inf"):
                        self._working = False
                        return None
                    self._changed.wait(max(0.0, wait_s))
            tell(late)
            if batch is not None:
                return batch

    def _run(self, batch: Batch) -> list[Call]:
        try:
            results = self.function(items_of(batch))
        except BaseException as error:
            # Its own frames alone: the first is this one.
            own = error.__traceback__.tb_next if error.__traceback__ is not None else None
            return self._batching.failed(batch, error.with_traceback(own))
        return self._batching.ran(batch, results)
