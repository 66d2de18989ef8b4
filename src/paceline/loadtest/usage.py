"""How much of a core has this process taken, and how much more would it have, had others not had the cores?"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final, NamedTuple

_SCHEDSTAT: Final = Path("/proc/self/schedstat")


class Usage(NamedTuple):
    """Seconds up to now.

    Attributes:
        cpu_s: on a core.
        waited_s: ready to run, while others had the cores; 0 where the kernel does not say.
        at_s: the time itself, monotonic.
    """

    cpu_s: float
    waited_s: float
    at_s: float

    @classmethod
    def now(cls) -> Usage:
        """Of this process, which has one thread."""
        try:
            waited_s = int(_SCHEDSTAT.read_text().split()[1]) / 1e9
        except (OSError, IndexError, ValueError):
            waited_s = 0.0
        return cls(time.process_time(), waited_s, time.monotonic())

    def since(self, before: Usage) -> tuple[float, float]:
        """Cores taken and cores waited for, on average."""
        span_s = max(self.at_s - before.at_s, 1e-9)
        return (self.cpu_s - before.cpu_s) / span_s, (self.waited_s - before.waited_s) / span_s
