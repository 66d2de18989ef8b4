"""Code that waits for others before it predicts: many calls under way, one prediction at a time.

RUN -> read, fetch (all items of all calls at once) -> [ready] -> predict everything that is ready -> RESULT

Rules:
- An event loop on a thread of its own takes the calls, reads them, and waits; the main thread predicts.
- The prediction thread never waits for company: it takes what is ready, up to the largest batch.
- A batch that fails runs again in halves, until what fails stands alone. Nothing is fetched again for it.
- A call that nobody waits for any more is dropped unless it is being predicted; it is answered all the same.
- A thread cannot be stopped: a call that is dropped ends with its last `fetch`. So one that hangs is seen to hang.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from paceline.core.errors import BAD_OUTPUT
from paceline.workers import tensors
from paceline.workers.channel import Channel, Closed
from paceline.workers.frames import Frame, Kind, Setup
from paceline.workers.python.answers import Answer, Answers
from paceline.workers.python.health import Health
from paceline.workers.python.items import ItemService
from paceline.workers.python.loops import LoopThread, awaited
from paceline.workers.python.reading import failed
from paceline.workers.python.service import Failed

_MOST_ROWS: Final = 64
_STARTED_THREADS: Final = 64
_STARTING_S: Final = 5.0


@dataclass(eq=False)
class _Call:
    """A call under way.

    Attributes:
        items: read and fetched, once that is done.
    """

    number: int
    items: list[Any] = field(default_factory=list)
    cancelled: bool = False
    task: asyncio.Task[None] | None = None


class Fetching:
    """Serves a service that has `fetch`."""

    def __init__(self, channel: Channel, service: ItemService, answers: Answers, setup: Setup, health: Health) -> None:
        assert isinstance(service.loop, LoopThread)
        self._channel = channel
        self._service = service
        self._answers = answers
        self._health = health
        self._loop = service.loop
        self._most_rows = setup.max_batch_rows or service.about.max_batch_rows or _MOST_ROWS
        self._ready: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._left: _Call | None = None
        self._calls: dict[int, _Call] = {}
        self._fetch = fetcher(service, setup.fetch_concurrency)

    def serve(self) -> None:
        """Predict, on this thread, until the channel is closed.

        Raises:
            Closed: there is nobody to answer any more.
        """
        self._loop.call(self._channel.attach, self._loop.loop, self._came, self._closed)
        while True:
            self._predict(self._everything_ready())

    # -- on the loop ------------------------------------------------------------------------------------------

    def _came(self, frame: Frame) -> None:
        if frame.kind is Kind.RUN:
            (column,), _ = tensors.decode(frame.body)
            call = self._calls[frame.call] = _Call(frame.call)
            call.task = self._loop.loop.create_task(self._prepare(call, column.tolist()))
            call.task.add_done_callback(partial(self._prepared, call))
        elif frame.kind is Kind.CANCEL and frame.call in self._calls:
            call = self._calls[frame.call]
            call.cancelled = True
            if call.task is not None:
                call.task.cancel()

    def _closed(self, why: str) -> None:
        self._ready.put(None)

    async def _prepare(self, call: _Call, texts: Sequence[bytes]) -> None:
        call.items = await asyncio.gather(*[self._fetched(call, item) for item in self._service.read(texts)])

    def _prepared(self, call: _Call, task: asyncio.Task[None]) -> None:
        """Not in the task: one that is cancelled before it has begun never runs."""
        call.task = None
        if call.cancelled:
            self._send(call.number, self._answers.cancelled())
        elif (error := error_of(task)) is not None:
            self._send(call.number, self._answers.raised(error, len(call.items)))
        else:
            self._ready.put(call)

    async def _fetched(self, call: _Call, item: Any) -> Any:
        if isinstance(item, Failed):
            return item
        try:
            return await self._fetch(item)
        except BaseException as error:
            if call.cancelled:
                raise asyncio.CancelledError from None
            return failed(error, "fetch")

    def _send(self, number: int, answer: Answer) -> None:
        self._calls.pop(number, None)
        self._answers.send(self._channel, number, answer)

    # -- on the prediction thread -----------------------------------------------------------------------------

    def _everything_ready(self) -> list[_Call]:
        """Calls that are ready, for as many rows as fit; waits for the first.

        Raises:
            Closed: there will be none.
        """
        first = self._left or self._first()
        self._left = None
        calls = [first]
        rows = len(first.items)
        with contextlib.suppress(queue.Empty):
            while rows < self._most_rows:
                following = self._ready.get_nowait()
                if following is None:
                    raise Closed
                if rows + len(following.items) > self._most_rows:
                    self._left = following
                    break
                calls.append(following)
                rows += len(following.items)
        return calls

    def _first(self) -> _Call:
        while True:
            try:
                call = self._ready.get(timeout=self._health.every_s)
            except queue.Empty:
                self._health.check()
                continue
            if call is None:
                raise Closed
            return call

    def _predict(self, calls: list[_Call]) -> None:
        wanted = []
        for call in calls:
            # Asked once: the loop may say so at any time.
            if call.cancelled:
                self._answer(call, self._answers.cancelled())
            else:
                wanted.append(call)
        predictions = self._predictions([item for call in wanted for item in call.items]) if wanted else []
        start = 0
        for call in wanted:
            end = start + len(call.items)
            self._answer(call, self._answers.items(predictions[start:end]))
            start = end

    def _predictions(self, items: list[Any]) -> Sequence[Any]:
        try:
            return self._service.predict_items(items if len(items) == 1 else list(map(_copied, items)))
        except BaseException as error:
            if len(items) == 1:
                return [failed(error, "predict")]
            if getattr(error, "code", None) == BAD_OUTPUT:
                # A half might be given the right number of predictions by chance.
                return [prediction for item in items for prediction in self._predictions([item])]
        middle = len(items) // 2
        return [*self._predictions(items[:middle]), *self._predictions(items[middle:])]

    def _answer(self, call: _Call, answer: Answer) -> None:
        self._loop.call(self._send, call.number, answer)


def error_of(task: asyncio.Task[Any]) -> BaseException | None:
    """What a task that is done has raised: a cancellation that nobody here has asked for is an error like any other."""
    return asyncio.CancelledError() if task.cancelled() else task.exception()


def fetcher(service: ItemService, most: int) -> Callable[[Any], Any]:
    """A coroutine function that fetches for one item, at most so many at once."""
    fetch = service.fetch
    assert fetch is not None
    if not service.contract.is_async("fetch"):
        return partial(_on_thread, _started(most), fetch)
    permits = asyncio.Semaphore(most)

    async def on_loop(item: Any) -> Any:
        async with permits:
            return await awaited(fetch(item))

    return on_loop


async def _on_thread(threads: ThreadPoolExecutor, fetch: Callable[[Any], Any], item: Any) -> Any:
    running = threads.submit(_contained, fetch, item)
    waiting = asyncio.wrap_future(running)
    try:
        return await awaited(await asyncio.shield(waiting))
    except asyncio.CancelledError:
        if not running.cancel():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([waiting])
        raise


def _started(most: int) -> ThreadPoolExecutor:
    """A pool whose first threads are there already: no request waits until they are."""
    threads = ThreadPoolExecutor(most, "paceline-fetch")
    count = min(most, _STARTED_THREADS)
    together = threading.Barrier(count, timeout=_STARTING_S)
    for _ in range(count):
        threads.submit(together.wait)
    return threads


def _contained(fetch: Callable[[Any], Any], item: Any) -> Any:
    """What `fetch` returns, or `Failed`: a StopIteration could not leave the thread."""
    try:
        return fetch(item)
    except BaseException as error:
        return failed(error, "fetch")


def _copied(item: Any) -> Any:
    """The item, for a run that may be followed by another: code is free to change the object that it was given."""
    return item.copy() if type(item) in (dict, list) else item
