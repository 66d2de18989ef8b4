"""How long to wait before a process that died is started again?"""

from __future__ import annotations

from typing import Final

_FIRST_S: Final = 0.5
_LONGEST_S: Final = 30.0
# A process that lived so long did not die of its start.
_FORGIVEN_S: Final = 60.0


class Backoff:
    """At once the first time, then 0.5 s, and twice as long each time that it dies soon after its start."""

    def __init__(self) -> None:
        self._failures = 0

    def next_s(self, lived_s: float) -> float:
        """Seconds to wait now that a process has died `lived_s` after its start."""
        if lived_s > _FORGIVEN_S:
            self._failures = 0
        self._failures += 1
        return 0.0 if self._failures == 1 else min(_LONGEST_S, _FIRST_S * 2.0 ** (self._failures - 2))
