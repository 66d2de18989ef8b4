"""When should the event loop look at a model although nothing happens?

Rules:
- It rings once, at the earliest of the times that were asked for; whoever answers asks for the next.
- Times are rounded up to whole milliseconds, the event loop's resolution. It may yet ring up to one too early: whoever
  answers compares the time, and asks again. At least one, so that asking again never spins.
- It does not keep alive whoever answers: a model that nobody uses any more is freed at once, memory and all.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from weakref import WeakMethod

_NEVER = float("inf")


class Alarm:
    """A timer on the running event loop.

    Args:
        callback: a method, bound.

    Attributes:
        at: when it rings, in monotonic seconds; infinity when it is not set.
    """

    __slots__ = ("_callback", "_loop", "_timer", "at")

    def __init__(self, callback: Callable[[], None]) -> None:
        self.at = _NEVER
        self._callback = WeakMethod(callback)
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def ring_by(self, when: float) -> None:
        """Ring at `when`, unless it rings before; infinity asks for nothing."""
        if when >= self.at:
            return
        self.cancel()
        self.at = when
        wait_ms = math.ceil((when - time.monotonic()) * 1e3)
        self._timer = self._loop.call_later(max(1, wait_ms) / 1e3, self._ring)

    def cancel(self) -> None:
        """Do not ring any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.at = _NEVER

    def _ring(self) -> None:
        self._timer = None
        self.at = _NEVER
        callback = self._callback()
        if callback is not None:
            callback()
