"""How much of a core has this process taken, and how much more would it have, had others not had the cores?"""

from __future__ import annotations

import os
import time
from typing import Final, NamedTuple


def _opened(path: str) -> int | None:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None


# Opened before connections take all descriptors.
_SCHEDSTAT: Final = _opened("/proc/self/schedstat")


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
        waited_ns = 0 if _SCHEDSTAT is None else int(os.pread(_SCHEDSTAT, 128, 0).split()[1])
        return cls(time.process_time(), waited_ns / 1e9, time.monotonic())

    def since(self, before: Usage) -> tuple[float, float]:
        """Cores taken and cores waited for, on average."""
        span_s = max(self.at_s - before.at_s, 1e-9)
        return (self.cpu_s - before.cpu_s) / span_s, (self.waited_s - before.waited_s) / span_s
