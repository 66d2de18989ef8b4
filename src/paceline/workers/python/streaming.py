"""Answers in parts: `predict` is a generator, and each value that it yields is sent at once.

Rules:
- Many streams are under way at once. Generators take turns on the main thread, a value at a time; async ones run
  on its event loop. User code never runs on two threads.
- A stream that nobody reads pauses; one that nobody wants is closed, as `generator.close()` does.
- The parts are also the prediction: a list of all of them ends the call, unless that would be too long.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import msgspec

from paceline.workers import tensors
from paceline.workers.channel import Channel, Closed
from paceline.workers.frames import STREAM_TOO_LONG, Frame, Kind, Setup
from paceline.workers.python.answers import Answers
from paceline.workers.python.fetching import error_of, fetcher
from paceline.workers.python.health import Health
from paceline.workers.python.items import ItemService
from paceline.workers.python.loops import awaited
from paceline.workers.python.reading import failed
from paceline.workers.python.service import Failed

_MOST_KEPT_BYTES: Final = 16 << 20


@dataclass(eq=False)
class _Stream:
    """A call under way.

    Attributes:
        kept_bytes: of the parts that will be its prediction.
    """

    cancelled: bool = False
    kept_bytes: int = 0
    task: asyncio.Task[list[Any]] | None = None
    may_go_on: asyncio.Event = field(default_factory=asyncio.Event)


class Streams:
    """Serves a service whose `predict` is a generator."""

    def __init__(self, channel: Channel, service: ItemService, answers: Answers, setup: Setup, health: Health) -> None:
        self._channel = channel
        self._service = service
        self._answers = answers
        self._health = health
        self._fetch = None if service.fetch is None else fetcher(service, setup.fetch_concurrency)
        self._streams: dict[int, _Stream] = {}

    def serve(self) -> None:
        """Stream until the channel is closed.

        Raises:
            Closed: there is nobody to answer any more.
        """
        loop = self._service.loop.loop
        closed: asyncio.Future[str] = loop.create_future()
        self._channel.attach(loop, self._came, partial(_end, closed))
        while not closed.done():
            try:
                loop.run_until_complete(asyncio.wait([closed], timeout=self._health.every_s))
            except (SystemExit, KeyboardInterrupt) as error:
                # Of a task that user code has started; what a stream raises does not get here.
                loop.call_exception_handler({"message": "user code tried to end the event loop", "exception": error})
            if not self._streams and not closed.done():
                self._health.check()
        raise Closed

    def _came(self, frame: Frame) -> None:
        if frame.kind is Kind.RUN:
            (column,), _ = tensors.decode(frame.body)
            stream = self._streams[frame.call] = _Stream()
            stream.may_go_on.set()
            loop = self._service.loop.loop
            stream.task = loop.create_task(self._run(frame.call, stream, column.tolist()))
            stream.task.add_done_callback(partial(self._done, frame.call))
            return
        stream_now = self._streams.get(frame.call)
        if stream_now is None:
            return
        if frame.kind is Kind.PAUSE:
            stream_now.may_go_on.clear()
        elif frame.kind is Kind.RESUME:
            stream_now.may_go_on.set()
        elif frame.kind is Kind.CANCEL and stream_now.task is not None:
            stream_now.cancelled = True
            stream_now.task.cancel()

    async def _run(self, call: int, stream: _Stream, texts: list[bytes]) -> list[Any]:
        return [await self._whole(call, stream, text) for text in texts]

    def _done(self, call: int, task: asyncio.Task[list[Any]]) -> None:
        """Not in the task: one that is cancelled before it has begun never runs."""
        if self._streams.pop(call).cancelled:
            answer = self._answers.cancelled()
        elif (error := error_of(task)) is not None:
            answer = self._answers.raised(error, 1)
        else:
            answer = self._answers.items(task.result())
        self._answers.send(self._channel, call, answer)

    async def _whole(self, call: int, stream: _Stream, text: bytes) -> Any:
        """Send the parts of an item as they come; in the end, all of them, or `Failed`."""
        try:
            item = await self._read(text)
            if isinstance(item, Failed):
                return item
            async with contextlib.aclosing(self._values(item)) as values:
                return await self._sent(call, stream, values)
        except BaseException as error:
            if stream.cancelled:
                raise asyncio.CancelledError from None
            return failed(error, "predict")

    async def _sent(self, call: int, stream: _Stream, values: AsyncGenerator[Any, None]) -> Any:
        kept: list[msgspec.Raw] = []
        async for value in values:
            part = self._answers.part(self._service.format(value))
            if isinstance(part, Failed):
                return part
            self._channel.send(Kind.PART, call, [part])
            stream.kept_bytes += len(part)
            if stream.kept_bytes <= _MOST_KEPT_BYTES:
                kept.append(msgspec.Raw(part))
            else:
                kept.clear()
            await self._channel.drained()
            await stream.may_go_on.wait()
        if stream.kept_bytes > _MOST_KEPT_BYTES:
            said = f"all parts together take {stream.kept_bytes} bytes, more than {_MOST_KEPT_BYTES}"
            return Failed(f"{said}: ask for events (Accept: text/event-stream)", STREAM_TOO_LONG)
        return kept

    async def _read(self, text: bytes) -> Any:
        (item,) = self._service.read([text])
        if self._fetch is None or isinstance(item, Failed):
            return item
        try:
            return await self._fetch(item)
        except BaseException as error:
            return failed(error, "fetch")

    async def _values(self, item: Any) -> AsyncGenerator[Any, None]:
        """What the user's generator yields, of either kind; it is closed with this one."""
        assert self._service.stream is not None
        made = await awaited(self._service.stream(item))
        try:
            if hasattr(made, "__aiter__"):
                async for value in made:
                    yield value
                    await asyncio.sleep(0)  # one that never waits must not keep the others from their turn
            else:
                for value in made:
                    yield value
                    await asyncio.sleep(0)  # the turn of the others
        finally:
            # A decorator may have made something else of it, which has nothing to close.
            close = getattr(made, "aclose", None) or getattr(made, "close", None)
            if close is not None:
                await awaited(close())


def _end(closed: asyncio.Future[str], why: str) -> None:
    if not closed.done():
        closed.set_result(why)
