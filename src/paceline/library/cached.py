"""`paceline.cached`: a call that was made lately, or is being made now, is not made again.

Rules:
- Whoever asks for what is under way waits for it: it is called once. An error reaches all who wait, and is not kept.
- What is kept is bounded in bytes and in time.
- In Redis, where one is named, values are seen by all processes; when it fails, calls are made as without a cache.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from functools import update_wrapper
from typing import Any, Final, NamedTuple, ParamSpec, Protocol, TypeVar, cast
from weakref import WeakKeyDictionary

from paceline.core.errors import DeadlineExceeded
from paceline.core.store import Store
from paceline.library import forks
from paceline.library.batching import is_async, name_of
from paceline.library.keys import KeyMaker, size_of
from paceline.library.redis_store import MISSING, RedisStore

P = ParamSpec("P")
R = TypeVar("R")

_MAX_BYTES: Final = 64 << 20


class CacheInfo(NamedTuple):
    """What a cache has done so far, in this process.

    Attributes:
        hits: calls answered with what was kept.
        misses: calls of the function itself.
        shared: calls that waited for another's.
        entries, bytes, max_bytes: what is kept here now; nothing, where it is kept in Redis.
        redis_errors: how often Redis has failed.
    """

    hits: int
    misses: int
    shared: int
    entries: int
    bytes: int
    max_bytes: int
    redis_errors: int


class Cached(Protocol[P, R]):
    """A function whose results are kept."""

    __wrapped__: Callable[P, R]

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """What is kept, or what the function returns."""

    def cache_info(self) -> CacheInfo:
        """What the cache has done so far."""

    def cache_clear(self) -> None:
        """Forget all results; in Redis, for all processes."""


class Decorator(Protocol):
    """`@paceline.cached(...)`."""

    def __call__(self, function: Callable[P, R], /) -> Cached[P, R]: ...


def cached(
    ttl: float | None = 300.0,
    *,
    max_bytes: int = _MAX_BYTES,
    key: Callable[..., Any] | None = None,
    redis: str | None = None,
    timeout_s: float = 60.0,
) -> Decorator:
    """Keep what a function returns, and call it once for those who ask for the same at the same time.

        @paceline.cached(ttl=60)
        def customer(number: int) -> dict:
            return requests.get(f"{CRM}/customers/{number}", timeout=2).json()

    What it returns is handed to everybody as it is: do not change it. The arguments are the key; where they are not
    plain data (a method's `self`, a session), `key` says what tells calls apart. An `async def` stays one.

    Args:
        ttl: seconds for which a result is good; None: for ever.
        max_bytes: most bytes kept in this process; what was not used for longest goes first.
        key: takes the arguments; returns what tells calls apart.
        redis: `redis://HOST:PORT/DB`: keep results there and not in this process, as plain data.
        timeout_s: longest wait for the call of another.

    Raises:
        RuntimeUnavailable: the client library for Redis is not installed.
        TypeError, ValueError: an argument is not what it should be.
    """
    if callable(ttl):
        raise TypeError(f"paceline.cached: write @paceline.cached() above {getattr(ttl, '__name__', ttl)}")
    for name, value in (("ttl", ttl), ("max_bytes", max_bytes), ("timeout_s", timeout_s)):
        if name != "ttl" or value is not None:
            _require_positive(name, value)

    def wrap(function: Callable[..., Any]) -> Any:
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(f"paceline.cached: {function.__qualname__} is a generator, which can be read only once")
        cache = _Cache(function, ttl, max_bytes, key, redis, timeout_s)
        wrapper: Any = _awaited(cache) if is_async(function) else _called(cache)
        update_wrapper(wrapper, function)
        wrapper.cache_info, wrapper.cache_clear = cache.info, cache.clear
        return wrapper

    return cast("Decorator", wrap)


@dataclass(eq=False)
class _Flight:
    """A call under way on a thread.

    Attributes:
        abandoned: it was interrupted, which says nothing of the call.
    """

    generation: int
    thread: int = field(default_factory=threading.get_ident)
    done: threading.Event = field(default_factory=threading.Event)
    value: Any = None
    error: Exception | None = None
    abandoned: bool = False


@dataclass(eq=False)
class _Task:
    """A call under way on an event loop.

    Attributes:
        beside: all calls that are, by key; this one leaves them when it has ended.
    """

    key: bytes
    task: asyncio.Task[Any]
    beside: dict[bytes, _Task]
    waiters: int = 0

    def leave(self) -> None:
        if self.beside.get(self.key) is self:
            del self.beside[self.key]

    def ended(self, task: asyncio.Task[Any]) -> None:
        self.leave()
        if not task.cancelled():
            task.exception()  # when all who would have been told have left, nobody complains that nobody asked


class _Cache:
    def __init__(
        self,
        function: Callable[..., Any],
        ttl_s: float | None,
        max_bytes: int,
        key: Callable[..., Any] | None,
        redis: str | None,
        timeout_s: float,
    ) -> None:
        self.function = function
        self.name = name_of(function)
        self.key = KeyMaker(self.name, function, key)
        self.redis = None if redis is None else RedisStore(self.name, function, redis, ttl_s)
        self._store: Store[Any] = Store(max_bytes, ttl_s)
        self._timeout_s = timeout_s
        self._generation = 0
        self._hits = self._misses = self._shared = 0
        self.forked()
        forks.tell(self)

    def forked(self) -> None:
        """Nothing is under way; what is kept stays."""
        self._lock = threading.Lock()
        self._flights: dict[bytes, _Flight] = {}
        self._loops: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[bytes, _Task]] = WeakKeyDictionary()
        if self.redis is not None:
            self.redis.forked()

    # -- on threads -------------------------------------------------------------------------------------------

    def call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        key = self.key(args, kwargs)
        while True:
            with self._lock:
                value = self._kept(key)
                if value is not MISSING:
                    return value
                flight = self._flights.get(key)
                # A function that asks itself for the same must not wait for itself.
                leads = flight is None or flight.thread == threading.get_ident()
                if flight is None or leads:
                    flight = self._flights[key] = _Flight(self._generation)
                else:
                    self._shared += 1
            if leads:
                return self._lead(key, flight, args, kwargs)
            self._follow(flight)
            if not flight.abandoned:
                return flight.value

    def _lead(self, key: bytes, flight: _Flight, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            value = MISSING if self.redis is None else self.redis.get(key)
            if value is not MISSING:
                self._count_hit()
            else:
                value = self._lasting(self.function(*args, **kwargs))
                if self.redis is not None:
                    value = self.redis.put(key, value)
                self._keep(key, value, flight.generation)
        except BaseException as error:
            flight.abandoned = not isinstance(error, Exception)
            flight.error = None if flight.abandoned else error  # type: ignore[assignment]
            raise
        else:
            flight.value = value
            return value
        finally:
            self._land(key, flight)
            del flight  # an error holds this frame, and it the error

    def _land(self, key: bytes, flight: _Flight) -> None:
        with self._lock:
            if self._flights.get(key) is flight:
                del self._flights[key]
        flight.done.set()

    def _follow(self, flight: _Flight) -> None:
        if not flight.done.wait(self._timeout_s):
            raise self._too_late()
        if flight.error is not None:
            try:
                raise flight.error
            finally:
                del flight

    # -- on event loops ---------------------------------------------------------------------------------------

    async def acall(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        key = self.key(args, kwargs)
        loop = asyncio.get_running_loop()
        with self._lock:
            value = self._kept(key)
            if value is not MISSING:
                return value
            tasks = self._loops.setdefault(loop, {})
            under_way = tasks.get(key)
            if under_way is None:
                task = loop.create_task(self._amake(key, self._generation, args, kwargs))
                under_way = tasks[key] = _Task(key, task, tasks)
                task.add_done_callback(under_way.ended)
            elif under_way.task is asyncio.current_task():
                raise RuntimeError(f"{self.name} asks itself for the same, and would wait for its own answer")
            else:
                self._shared += 1
        return await self._join(under_way)

    async def _amake(self, key: bytes, generation: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self.redis is not None:
            value = await self.redis.aget(key)
            if value is not MISSING:
                self._count_hit()
                return value
        value = self._lasting(await self.function(*args, **kwargs))
        if self.redis is not None:
            value = await self.redis.aput(key, value)
        self._keep(key, value, generation)
        return value

    async def _join(self, under_way: _Task) -> Any:
        """Wait for a call; the last who leaves before its end takes it along."""
        under_way.waiters += 1
        try:
            async with asyncio.timeout(self._timeout_s) as limit:
                return await asyncio.shield(under_way.task)
        except TimeoutError:
            if limit.expired():
                raise self._too_late() from None
            raise
        finally:
            under_way.waiters -= 1
            if not under_way.waiters and not under_way.task.done():
                under_way.leave()  # nobody may join what is being cancelled
                under_way.task.cancel()

    # -- what is kept -----------------------------------------------------------------------------------------

    def info(self) -> CacheInfo:
        """What the cache has done so far."""
        with self._lock:
            store, errors = self._store, 0 if self.redis is None else self.redis.errors
            sizes = (len(store), store.bytes, store.max_bytes)
            return CacheInfo(self._hits, self._misses, self._shared, *sizes, errors)

    def clear(self) -> None:
        """Forget all results; in Redis, for all processes."""
        with self._lock:
            self._generation += 1
            self._store.clear()
        if self.redis is not None:
            self.redis.clear()

    def _kept(self, key: bytes) -> Any:
        if self.redis is not None:
            return MISSING
        value = self._store.get(key, time.monotonic(), MISSING)
        self._hits += value is not MISSING
        return value

    def _keep(self, key: bytes, value: Any, generation: int) -> None:
        size_bytes = 0 if self.redis is not None else len(key) + size_of(value, self._store.max_bytes)
        with self._lock:
            self._misses += 1
            # What was asked for before `cache_clear` may be what it was to clear.
            if self.redis is None and generation == self._generation:
                self._store.put(key, value, size_bytes, time.monotonic())

    def _lasting(self, value: Any) -> Any:
        if inspect.isgenerator(value) or inspect.isawaitable(value):
            raise TypeError(f"{self.name} returned a {type(value).__name__}, which can be used only once: not kept")
        return value

    def _count_hit(self) -> None:
        with self._lock:
            self._hits += 1

    def _too_late(self) -> DeadlineExceeded:
        return DeadlineExceeded(f"{self.name}: the call of another took longer than {self._timeout_s:g} s")


def _require_positive(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name}: expected a number, got {value!r}")
    if not 0 < value < float("inf"):
        raise ValueError(f"{name}: must be > 0 and finite, got {value!r}")


def _called(cache: _Cache) -> Callable[..., Any]:
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return cache.call(args, kwargs)

    return wrapper


def _awaited(cache: _Cache) -> Callable[..., Coroutine[Any, Any, Any]]:
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        return await cache.acall(args, kwargs)

    return wrapper
