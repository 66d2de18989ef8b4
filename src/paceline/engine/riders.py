"""Which calls wait for something that has another deadline than theirs?

Rules:
- They are bounded in number and in bytes, as what waits in the queue is.
- Whoever looks after them is told by when; late ones are found among all, for that is seldom.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from paceline.core.errors import Overloaded
from paceline.core.requests import InferRequest

_NEVER: Final = float("inf")


class Riders:
    """The riders of one model.

    Args:
        most, most_bytes: bounds.
        look_by: called with the time at which one may be late.
    """

    def __init__(self, most: int, most_bytes: int, look_by: Callable[[float], None]) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._look_by = look_by
        self._bytes = 0
        self._all: dict[InferRequest, None] = {}

    def __len__(self) -> int:
        return len(self._all)

    def admit(self, call: InferRequest) -> None:
        """Check whether one more may ride.

        Raises:
            Overloaded: it may not.
        """
        if call in self._all:
            return
        if len(self._all) >= self._most:
            raise Overloaded("Exceeds maximum queue size", reason="queue_full")
        if self._all and self._bytes + call.bytes > self._most_bytes:
            raise Overloaded("Exceeds maximum queue size in bytes", reason="queue_bytes")

    def add(self, call: InferRequest) -> None:
        """It rides, if it did not."""
        if call not in self._all:
            self._all[call] = None
            self._bytes += call.bytes
            self._look_by(call.deadline)

    def remove(self, call: InferRequest) -> None:
        """It rides no more, if it did."""
        if call in self._all:
            del self._all[call]
            self._bytes -= call.bytes

    def late(self, now: float) -> list[InferRequest]:
        """Those whose deadline has passed, taken out."""
        late = [call for call in self._all if call.deadline <= now]
        for call in late:
            self.remove(call)
        self._look_by(min([call.deadline for call in self._all], default=_NEVER))
        return late
