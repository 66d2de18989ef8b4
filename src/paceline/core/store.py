"""What was computed lately, and is still good? A store of values, bounded in bytes and in age.

Rules:
- Least recently used goes first, as soon as the bytes are over the bound. A value over the whole bound is not kept.
- A value older than its time to live is never given; it goes when it is asked for, or when its turn comes.
- Time is an argument, in monotonic seconds; sizes are what the caller says. Not locked: the caller's threads are the
  caller's business.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Any, Final, Generic, NamedTuple, TypeVar

V = TypeVar("V")

_NEVER: Final = float("inf")
ENTRY_BYTES: Final = 256
"""What an entry takes besides key and value: its place in the table, its objects' heads. An estimate."""


class _Entry(NamedTuple):
    value: Any
    size_bytes: int
    expires: float


class Store(Generic[V]):
    """Least-recently-used store with a time to live.

    Args:
        max_bytes: most bytes of all entries; each counts its size and `ENTRY_BYTES`.
        ttl_s: seconds that a value is good for; None: as long as there is room.

    Attributes:
        bytes: what all entries count.
        hits, misses: of `get`.
        evictions: values that made room for others.
        expirations: values that were too old when they were asked for.
    """

    def __init__(self, max_bytes: int, ttl_s: float | None = None) -> None:
        self.max_bytes = max_bytes
        self.ttl_s = ttl_s
        self.bytes = 0
        self.hits = 0
        self.misses = 0
        self.evictions = 0
        self.expirations = 0
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Hashable, now: float, default: V | None = None) -> V | None:
        """The value of a key, or `default`. Pass an object of your own where None is a value."""
        entry = self._entries.get(key)
        if entry is None:
            self.misses += 1
            return default
        if entry.expires <= now:
            self.expirations += 1
            self.misses += 1
            self.discard(key)
            return default
        self.hits += 1
        self._entries.move_to_end(key)
        value: V = entry.value
        return value

    def put(self, key: Hashable, value: V, size_bytes: int, now: float) -> bool:
        """Keep a value; False when it is too large to keep.

        Args:
            size_bytes: of the key and the value.
        """
        self.discard(key)
        size_bytes += ENTRY_BYTES
        if size_bytes > self.max_bytes:
            return False
        self._entries[key] = _Entry(value, size_bytes, _NEVER if self.ttl_s is None else now + self.ttl_s)
        self.bytes += size_bytes
        while self.bytes > self.max_bytes:
            self.bytes -= self._entries.popitem(last=False)[1].size_bytes
            self.evictions += 1
        return True

    def discard(self, key: Hashable) -> None:
        """Forget a key, if it is there."""
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.bytes -= entry.size_bytes

    def clear(self) -> None:
        """Forget everything; the counters stay."""
        self._entries.clear()
        self.bytes = 0


__all__ = ["ENTRY_BYTES", "Store"]
