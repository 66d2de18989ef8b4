"""Which predictions are kept, and how long?

Rules:
- A prediction belongs to the bytes of its item, all of them. Errors are not kept.
- What is kept in the process is bounded in bytes, least recently used goes first, and dies with the version of the
  model that made it.
- A cache elsewhere is asked without waiting, and its answer comes in time or counts as a miss (`redis_cache`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from paceline.core.store import Store


class Kept(NamedTuple):
    """A prediction from before, and how old it is."""

    prediction: bytes
    age_s: float


Found = Callable[[Sequence[Kept | None]], None]
LookUp = Callable[[list[bytes], Found], bool]
"""Looks for the predictions of items. Returns True, and calls back later, once; or False when it does not look."""


class Counted(Protocol):
    """What is told about a cache.

    Attributes:
        hits, misses: items that were found, and that were not.
        errors: questions and writes that came to nothing.
        size_bytes, entries: what this process keeps.
    """

    @property
    def hits(self) -> int: ...

    @property
    def misses(self) -> int: ...

    @property
    def errors(self) -> int: ...

    @property
    def size_bytes(self) -> int: ...

    @property
    def entries(self) -> int: ...


class MemoryCache:
    """Predictions of one model, kept in this process.

    Args:
        max_bytes: of items and predictions together.
    """

    errors = 0

    def __init__(self, max_bytes: int, ttl_s: float) -> None:
        self._store: Store[tuple[bytes, float]] = Store(max_bytes, ttl_s)

    def find(self, text: bytes) -> Kept | None:
        """The prediction of an item."""
        now = time.monotonic()
        found = self._store.get(text, now)
        return None if found is None else Kept(found[0], now - found[1])

    def keep(self, text: bytes, prediction: bytes) -> None:
        """Keep a prediction."""
        now = time.monotonic()
        self._store.put(text, (prediction, now), len(text) + len(prediction), now)

    @property
    def hits(self) -> int:
        """Items that were found."""
        return self._store.hits

    @property
    def misses(self) -> int:
        """Items that were not."""
        return self._store.misses

    @property
    def size_bytes(self) -> int:
        """What all predictions and items take."""
        return self._store.bytes

    @property
    def entries(self) -> int:
        """How many predictions are kept."""
        return len(self._store)
