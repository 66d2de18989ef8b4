"""Values of a cached function in Redis, where all processes find them.

Rules:
- Values are msgpack, never pickle: who can write to Redis must not be able to run code here.
- Redis may fail: then nothing is found and nothing kept, and for `_PAUSE_S` it is not asked again.
- The keys hold a digest of the function's source: a function that was changed does not find what it gave before.
"""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import msgspec

from paceline.engine.redis_client import for_threads

MISSING: Final = object()
"""There is no value."""

_TIMEOUT_S: Final = 1.0
_PAUSE_S: Final = 5.0
_THREADS: Final = 8
_LOG: Final = logging.getLogger("paceline")


class RedisStore:
    """The values of one function.

    Args:
        url: `redis://HOST:PORT/DB`.
        ttl_s: seconds that a value is good for; None: for ever.

    Attributes:
        errors: how often Redis has failed.

    Raises:
        RuntimeUnavailable: the client library is not installed.
        ValueError: the URL is none.
    """

    def __init__(self, name: str, function: Callable[..., Any], url: str, ttl_s: float | None) -> None:
        self._client = for_threads(url, name, _TIMEOUT_S)
        self.errors = 0
        self._name = name
        self._prefix = f"paceline:{function.__module__}.{name}:{_digest_of(function)}:"
        self._ttl_ms = None if ttl_s is None else max(1, round(ttl_s * 1000))
        self._asks_again = 0.0
        self.forked()

    def forked(self) -> None:
        """Begin anew; connections are the client's business."""
        self._executor: ThreadPoolExecutor | None = None

    def get(self, key: bytes) -> Any:
        """The value of a key, or MISSING."""
        data = self._try(lambda: self._client.get(self._named(key)))
        if data is None:
            return MISSING
        try:
            return msgspec.msgpack.decode(data)
        except (ValueError, TypeError, RecursionError):
            return MISSING  # not ours: cut off, or somebody else's

    def put(self, key: bytes, value: Any) -> Any:
        """Keep a value; the value as everybody will find it.

        Raises:
            TypeError: it is not plain data.
        """
        try:
            data = msgspec.msgpack.encode(value)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise TypeError(
                f"{self._name}: its result cannot be kept in Redis: {error}; return numbers, strings, lists and dicts"
            ) from error
        self._try(lambda: self._client.set(self._named(key), data, px=self._ttl_ms))
        return msgspec.msgpack.decode(data)

    async def aget(self, key: bytes) -> Any:
        """As `get`, without blocking the event loop."""
        return await self._beside(self.get, key)

    async def aput(self, key: bytes, value: Any) -> Any:
        """As `put`, without blocking the event loop."""
        return await self._beside(self.put, key, value)

    def clear(self) -> None:
        """Forget all values of this function, for all processes."""

        def unlink() -> None:
            for found in self._client.scan_iter(match=_escaped(self._prefix) + "*", count=1000):
                self._client.unlink(found)

        self._try(unlink)

    async def _beside(self, ask: Callable[..., Any], *arguments: Any) -> Any:
        # Threads of its own: those of the loop may all be busy with the very calls that wait for this answer.
        if self._executor is None:
            self._executor = ThreadPoolExecutor(_THREADS, "paceline-redis")
        return await asyncio.get_running_loop().run_in_executor(self._executor, ask, *arguments)

    def _try(self, ask: Callable[[], Any]) -> Any:
        if time.monotonic() < self._asks_again:
            return None
        try:
            return ask()
        except Exception as error:  # whatever it is, it is no reason for the call to fail
            self.errors += 1
            self._asks_again = time.monotonic() + _PAUSE_S
            _LOG.warning("%s: Redis failed, calls go on without it: %s", self._name, error)
            return None

    def _named(self, key: bytes) -> str:
        return self._prefix + hashlib.blake2b(key, digest_size=16).hexdigest()


def _digest_of(function: Callable[..., Any]) -> str:
    try:
        source = inspect.getsource(function)
    except (OSError, TypeError):
        source = ""  # typed at a prompt
    return hashlib.blake2b(source.encode(), digest_size=6).hexdigest()


def _escaped(pattern: str) -> str:
    return "".join(f"\\{letter}" if letter in "*?[]\\" else letter for letter in pattern)
