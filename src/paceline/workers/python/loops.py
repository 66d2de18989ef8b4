"""Where do the coroutines of user code run?

Rules:
- There is one event loop in a worker: all that is async in a service shares it, from `setup` to the last `fetch`.
- Nothing that a coroutine raises, `SystemExit` included, stops it.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable, Coroutine
from functools import cached_property
from typing import Any, Protocol, TypeVar

_T = TypeVar("_T")


class Loop(Protocol):
    """An event loop, and how the prediction thread waits for what runs on it."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop."""

    def wait(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        """Run a coroutine, and wait for it on the prediction thread."""


class OwnLoop:
    """A loop of the prediction thread: it runs while somebody waits."""

    @cached_property
    def loop(self) -> asyncio.AbstractEventLoop:
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        return loop

    def wait(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        return self.loop.run_until_complete(coroutine)


class LoopThread:
    """A loop that always runs, on a thread of its own."""

    @cached_property
    def loop(self) -> asyncio.AbstractEventLoop:
        loop = asyncio.new_event_loop()
        threading.Thread(target=_run_for_ever, args=(loop,), name="paceline-fetch", daemon=True).start()
        return loop

    def wait(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        try:
            return asyncio.run_coroutine_threadsafe(_contained(coroutine), self.loop).result()
        except _Carried as carried:
            raise carried.error from None

    def call(self, function: Callable[..., object], *args: object) -> None:
        """Call a function on the loop, soon."""
        self.loop.call_soon_threadsafe(function, *args)


async def awaited(result: Any) -> Any:
    """What a function returned, or what its coroutine does: a decorator may hide which of them it is."""
    return await result if inspect.isawaitable(result) else result


def _run_for_ever(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    while True:
        try:
            loop.run_forever()
        except BaseException as error:  # a task that user code started may raise SystemExit through the loop
            loop.call_exception_handler({"message": "user code tried to end the event loop", "exception": error})


class _Carried(Exception):
    """Carries what would otherwise end the loop that it passes."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error


async def _contained(coroutine: Coroutine[Any, Any, _T]) -> _T:
    try:
        return await coroutine
    except (SystemExit, KeyboardInterrupt) as error:
        raise _Carried(error) from None
