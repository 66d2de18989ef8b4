"""How much work may an HTTP/2 client cause that nobody asked an answer for? Budgets, refilled by honest use.

Rules:
- Resets: a client that gives up may cancel everything it has open at once, and the next lot as well: twice the
  streams it is allowed. Every answer gives one back, so who mostly reads its answers never runs out. When nothing is
  answered because everything is late, an eighth of its streams a second comes back, so that all of them may time out
  every eight seconds for ever. What is left to an attacker is no more than plain requests would cost us.
- Other frames that we must act on and that move no data (PING, SETTINGS, PRIORITY, WINDOW_UPDATE, empty DATA): a
  thousand a second, and two for every frame of an answer, for clients measure the line and open their windows with
  each of those.
- Who exceeds a budget is told ENHANCE_YOUR_CALM, and disconnected.
"""

from __future__ import annotations

from typing import Final

_CONTROL_BURST: Final = 4000
_CONTROL_PER_S: Final = 1000.0
CONTROL_PER_FRAME_SENT: Final = 2


class Budget:
    """A bucket of tokens.

    Args:
        size: most that it holds, and what it begins with.
        per_s: what time gives back.
    """

    __slots__ = ("_at", "_left", "_per_s", "_size")

    def __init__(self, size: float, per_s: float) -> None:
        self._size = self._left = size
        self._per_s = per_s
        self._at = 0.0

    def take(self, now: float) -> bool:
        """Spend one; False when there was none."""
        if self._left < 1.0:
            self._left = min(self._size, self._left + (now - self._at) * self._per_s)
            self._at = now
            if self._left < 1.0:
                return False
        self._left -= 1.0
        return True

    def give(self, count: int) -> None:
        """Give some back."""
        left = self._left + count
        self._left = left if left < self._size else self._size


def resets_budget(streams: int) -> Budget:
    """For RST_STREAM of requests under way."""
    return Budget(2.0 * streams, streams / 8)


def control_budget() -> Budget:
    """For frames that move no data."""
    return Budget(_CONTROL_BURST, _CONTROL_PER_S)
