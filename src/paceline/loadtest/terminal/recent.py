"""How does a load test go in its last second and its last minute, and what does the client take?

Rules:
- A sample counts when it has come, on the clock of whoever looks on.
- Memory is bounded by one second of samples and one number for each second of the minute.
"""

from __future__ import annotations

import math
import os
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Final

import numpy as np

from paceline.loadtest.samples import SAMPLE, Outcome, Samples

WINDOW_S: Final = 1.0
_SECONDS: Final = 60
PERCENTS: Final = (50.0, 90.0, 99.0)


class Recent:
    """The samples of the last second."""

    def __init__(self) -> None:
        self._blocks: deque[tuple[float, Samples]] = deque()
        self._rates: deque[int] = deque([0], maxlen=_SECONDS)
        self._second = 0

    def add(self, samples: Samples | None, now_s: float) -> None:
        """These have come, at that time; it does not go back."""
        while self._second < int(now_s):
            self._second += 1
            self._rates.append(0)
        while self._blocks and self._blocks[0][0] <= now_s - WINDOW_S:
            self._blocks.popleft()
        if samples is not None and samples.size:
            self._blocks.append((now_s, samples))
            self._rates[-1] += int((samples["outcome"] == Outcome.OK).sum())

    @property
    def rates(self) -> list[int]:
        """Predictions in each whole second of the last minute, oldest first."""
        return list(self._rates)[:-1]

    def samples(self) -> Samples:
        """All of them, shape [n]."""
        blocks = [block for _, block in self._blocks]
        return np.concatenate(blocks) if blocks else np.empty(0, SAMPLE)


def percentiles_ms(samples: Samples) -> list[float]:
    """The 50th, 90th and 99th percentile and the maximum of the latency of predictions; nan without any."""
    latencies = samples["latency_s"][samples["outcome"] == Outcome.OK].astype(np.float64) * 1e3
    if not latencies.size:
        return [math.nan] * (len(PERCENTS) + 1)
    return [float(value) for value in np.percentile(latencies, [*PERCENTS, 100.0])]


class CpuShare:
    """Cores that a process takes, between two looks at it.

    Args:
        pid: of the process.
    """

    def __init__(self, pid: int) -> None:
        self._file = Path(f"/proc/{pid}/stat")
        self._last = (time.monotonic(), self._taken_s())

    def since_last(self) -> float:
        """Cores since the last call; nan where the system does not say."""
        now = (time.monotonic(), self._taken_s())
        (then_s, taken_s), self._last = self._last, now
        return (now[1] - taken_s) / max(now[0] - then_s, 1e-9)

    def _taken_s(self) -> float:
        with suppress(OSError, ValueError, IndexError):
            # What is behind the name, which may hold anything, begins with the third field.
            fields = self._file.read_text().rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return math.nan
