"""Predictions kept in Redis, for all processes that serve the same code.

Rules:
- Redis may be slow, down or full: a request waits for an answer `PATIENCE_S` at most, and none fails because of it.
- After a failure nobody asks until Redis has answered again, which is tried later and later.
- The items of one pass of the event loop are asked for together, `_MOST_AT_ONCE` at a time. Writes are one at a time,
  too, and nobody waits for them; what comes while too much waits to be written is not kept.
- A key holds a hash of model, version, fingerprint of the code, and item. The value begins with the item, and only an
  equal one counts.
- Values are bytes, read by their lengths: whoever can write to that Redis can answer in the place of the model.
"""

from __future__ import annotations

import asyncio
import hashlib
import struct
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any, Final, TypeVar

from paceline.core.backoff import Backoff
from paceline.core.errors import ConfigError
from paceline.engine.prediction_cache import Found, Kept
from paceline.engine.redis_client import for_loop

T = TypeVar("T")

PATIENCE_S: Final = 0.05
_WRITE_PATIENCE_S: Final = 1.0
_MOST_UNWRITTEN_BYTES: Final = 16 << 20
# What the client does for so many items takes a millisecond or some, which the event loop waits for.
_MOST_AT_ONCE: Final = 256
_HEAD: Final = struct.Struct("<dI")


def connect(url: str) -> Any:
    """A client for a URL, which has not connected yet.

    Raises:
        RuntimeUnavailable: the package is not installed.
        ConfigError: the URL is none of Redis.
    """
    try:
        return for_loop(url, "cache", _WRITE_PATIENCE_S)
    except ValueError as error:
        raise ConfigError(str(error)) from None


class RedisCache:
    """Predictions of one model, on the running event loop.

    Args:
        client: of `connect`.
        scope: what they hold for: another scope finds none of them.
        say: told when Redis does not answer, and when it does again.

    Attributes:
        hits, misses: items that were found, and that were not.
        errors: questions and writes that came to nothing.
    """

    size_bytes = 0
    entries = 0

    def __init__(self, client: Any, scope: Sequence[str], ttl_s: float, say: Callable[[str], None]) -> None:
        self.hits = 0
        self.misses = 0
        self.errors = 0
        self._client = client
        self._scope = hashlib.blake2b("\0".join(scope).encode(), digest_size=16).digest()
        self._ttl_ms = max(1, round(ttl_s * 1000))
        self._say = say
        self._loop = asyncio.get_running_loop()
        self._backoff = Backoff()
        self._answers = True
        self._since = time.monotonic()
        self._asked: list[tuple[list[bytes], Found]] = []
        self._unwritten: dict[bytes, bytes] = {}
        self._unwritten_bytes = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._writing = False
        self._begin(self._probe(0.0))

    # -- finding ----------------------------------------------------------------------------------------------

    def look_up(self, texts: list[bytes], found: Found) -> bool:
        """Look for items; False when Redis does not answer these days."""
        if not self._answers:
            self.misses += len(texts)
            return False
        if not self._asked:
            self._loop.call_soon(self._ask)
        self._asked.append((texts, found))
        return True

    def _ask(self) -> None:
        asked, self._asked = self._asked, []
        self._begin(self._find(asked))

    async def _find(self, asked: list[tuple[list[bytes], Found]]) -> None:
        texts = [text for some, _ in asked for text in some]
        kept: list[Kept | None] = []
        for some in _parts(texts):
            kept += await self._get(some)
        hits = sum(each is not None for each in kept)
        self.hits += hits
        self.misses += len(kept) - hits
        answers = iter(kept)
        for own, found in asked:
            self._tell(found, [next(answers) for _ in own])

    async def _get(self, texts: list[bytes]) -> list[Kept | None]:
        if self._answers:
            try:
                async with asyncio.timeout(PATIENCE_S):
                    values = await self._client.mget([self._key(text) for text in texts])
                return [_read(text, value) for text, value in zip(texts, values, strict=True)]
            except asyncio.CancelledError:
                raise
            except Exception as error:
                self._failed(error)
        return [None] * len(texts)

    def _tell(self, found: Found, kept: Sequence[Kept | None]) -> None:
        try:
            found(kept)
        except Exception as error:  # whoever cannot take an answer must not keep the others from theirs
            self._loop.call_exception_handler({"message": "a kept prediction was not delivered", "exception": error})

    # -- keeping ----------------------------------------------------------------------------------------------

    def keep(self, text: bytes, prediction: bytes) -> None:
        """Keep a prediction, soon."""
        size = len(text) + len(prediction)
        if not self._answers or self._unwritten_bytes + size > _MOST_UNWRITTEN_BYTES:
            return
        self._unwritten[self._key(text)] = _HEAD.pack(time.time(), len(text)) + text + prediction
        self._unwritten_bytes += size
        if not self._writing:
            self._writing = True
            self._begin(self._write())

    async def _write(self) -> None:
        try:
            while self._unwritten and self._answers:
                values, self._unwritten, self._unwritten_bytes = list(self._unwritten.items()), {}, 0
                for some in _parts(values):
                    pipeline = self._client.pipeline(transaction=False)
                    for key, value in some:
                        pipeline.set(key, value, px=self._ttl_ms)
                    async with asyncio.timeout(_WRITE_PATIENCE_S):
                        await pipeline.execute()
        except asyncio.CancelledError:
            raise
        except Exception as error:
            self._failed(error)
        finally:
            self._writing = False

    # -- when it does not answer ------------------------------------------------------------------------------

    def _failed(self, error: Exception) -> None:
        self.errors += 1
        if self._answers:
            self._answers = False
            self._unwritten, self._unwritten_bytes = {}, 0
            self._say(f"cache: Redis does not answer ({_described(error)}): predictions are not kept until it does")
            self._begin(self._probe(self._backoff.next_s(time.monotonic() - self._since) or PATIENCE_S))

    async def _probe(self, wait_s: float) -> None:
        """Wait until Redis answers."""
        while True:
            await asyncio.sleep(wait_s)
            try:
                async with asyncio.timeout(_WRITE_PATIENCE_S):
                    await self._client.ping()
                break
            except asyncio.CancelledError:
                raise
            except Exception as error:
                if self._answers:
                    self._failed(error)
                    return
                wait_s = self._backoff.next_s(0.0) or PATIENCE_S
        if not self._answers:
            self._answers, self._since = True, time.monotonic()
            self._say("cache: Redis answers again")

    # -- the end ----------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Let go of the connections."""
        for task in self._tasks:
            task.cancel()
        self._answers = False
        if not self._loop.is_closed():
            self._begin(self._client.aclose())

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _key(self, text: bytes) -> bytes:
        return b"paceline:" + hashlib.blake2b(text, digest_size=20, key=self._scope).digest()


def _read(text: bytes, value: bytes | None) -> Kept | None:
    """What a value holds for an item."""
    if value is None or len(value) < _HEAD.size:
        return None
    stored, length = _HEAD.unpack_from(value)
    end = _HEAD.size + length
    if value[_HEAD.size : end] != text or len(value) == end:
        return None
    return Kept(value[end:], max(0.0, time.time() - stored))


def _parts(whole: list[T]) -> Iterator[list[T]]:
    for start in range(0, len(whole), _MOST_AT_ONCE):
        yield whole[start : start + _MOST_AT_ONCE]


def _described(error: Exception) -> str:
    return "no answer in time" if isinstance(error, TimeoutError) else f"{type(error).__name__}: {error}"
