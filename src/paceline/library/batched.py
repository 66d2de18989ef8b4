"""`paceline.batched`: calls of a function that meet run together."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Protocol, TypedDict, TypeVar, Unpack, overload

from paceline.library.awaited import AsyncBatched
from paceline.library.batching import Options, is_async
from paceline.library.threaded import Batched

T = TypeVar("T")
R = TypeVar("R")


class _Options(TypedDict, total=False):
    max_batch_size: int
    max_queue_delay_ms: float
    timeout_s: float
    max_queue: int


class Decorator(Protocol):
    """`@paceline.batched(...)`, with options."""

    @overload
    def __call__(self, function: Callable[[list[T]], Awaitable[Iterable[R]]], /) -> AsyncBatched[T, R]: ...
    @overload
    def __call__(self, function: Callable[[list[T]], Iterable[R]], /) -> Batched[T, R]: ...
    @overload
    def __call__(self, function: Callable[[Any, list[T]], Awaitable[Iterable[R]]], /) -> AsyncBatched[T, R]: ...
    @overload
    def __call__(self, function: Callable[[Any, list[T]], Iterable[R]], /) -> Batched[T, R]: ...


# What is called by a method's two arguments is a function of the second: `self` is bound later.
@overload
def batched(
    function: Callable[[list[T]], Awaitable[Iterable[R]]], /, **options: Unpack[_Options]
) -> AsyncBatched[T, R]: ...
@overload
def batched(function: Callable[[list[T]], Iterable[R]], /, **options: Unpack[_Options]) -> Batched[T, R]: ...
@overload
def batched(
    function: Callable[[Any, list[T]], Awaitable[Iterable[R]]], /, **options: Unpack[_Options]
) -> AsyncBatched[T, R]: ...
@overload
def batched(function: Callable[[Any, list[T]], Iterable[R]], /, **options: Unpack[_Options]) -> Batched[T, R]: ...
@overload
def batched(**options: Unpack[_Options]) -> Decorator: ...
def batched(
    function: Callable[..., Any] | None = None,
    /,
    *,
    max_batch_size: int = 64,
    max_queue_delay_ms: float = 0.0,
    timeout_s: float = 30.0,
    max_queue: int = 4096,
) -> Any:
    """Turn a function of a list into one of an item, whose concurrent calls run together.

    While one batch runs, the calls that come in form the next. A caller who is alone does not wait. When the function
    raises, it runs again for halves of the batch, until the item that is guilty stands alone.

        @paceline.batched
        def predict(items: list[list[float]]) -> list[float]:
            return model.predict(items).tolist()

        predict([5.1, 3.5])              # from a thread
        await predict.aio([5.1, 3.5])    # from an event loop; an `async def` is awaited itself: await predict(...)

    Args:
        function: takes a list of items; returns one result for each, in their order.
        max_batch_size: most items in one call of the function.
        max_queue_delay_ms: longest wait of an item for others; 0: none.
        timeout_s: longest time from a call to its result; then `DeadlineExceeded`.
        max_queue: most calls that wait; one more is `Overloaded`.

    Raises:
        TypeError, ValueError: an option is not what it should be.
    """
    options = Options(max_batch_size, max_queue_delay_ms, timeout_s, max_queue)

    def wrap(wrapped: Callable[..., Any]) -> Any:
        if not callable(wrapped):
            raise TypeError(f"paceline.batched: expected a function of a list of items, got {wrapped!r}")
        if inspect.isgeneratorfunction(wrapped) or inspect.isasyncgenfunction(wrapped):
            raise TypeError(f"paceline.batched: {wrapped.__qualname__} is a generator: return a list of results")
        return AsyncBatched(wrapped, options) if is_async(wrapped) else Batched(wrapped, options)

    return wrap if function is None else wrap(function)
