"""What did an open-loop client see? When requests arrive, and what became of each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

OVERFLOW, LOST, UNANSWERED, RESET, REFUSED = -1, -2, -3, -4, -5
KINDS = {
    OVERFLOW: "not sent, no connection free",
    LOST: "closed without an answer",
    UNANSWERED: "never answered",
    RESET: "reset",
    REFUSED: "not connected",
}
"""What a status below zero means."""


@dataclass(frozen=True)
class Samples:
    """One entry per arrival.

    Attributes:
        intended_s: when it was due, since the start.
        latency_s: from then to the answer.
        status: of HTTP, or one of `KINDS`.
        marked: whether the answer's body had the text of `--mark`.
        start_s: the start, on the monotonic clock that all processes share.
    """

    intended_s: np.ndarray
    latency_s: np.ndarray
    status: np.ndarray
    marked: np.ndarray
    start_s: float

    @property
    def failed(self) -> np.ndarray:
        """Which were not answered with 200."""
        return np.asarray(self.status != 200)

    def kinds(self) -> dict[str, int]:
        """How many failed, by kind."""
        found, counts = np.unique(self.status[self.failed], return_counts=True)
        return {KINDS.get(int(each), f"status {each}"): int(n) for each, n in zip(found, counts, strict=True)}

    def between(self, start_s: float, stop_s: float) -> Samples:
        """The arrivals intended in a window."""
        chosen = (self.intended_s >= start_s) & (self.intended_s < stop_s)
        arrays = (each[chosen] for each in (self.intended_s, self.latency_s, self.status, self.marked))
        return Samples(*arrays, self.start_s)

    def latencies_ms(self, *statuses: int) -> np.ndarray:
        """Of the answers with one of these statuses."""
        return self.latency_s[np.isin(self.status, statuses)] * 1e3


def arrivals(phases: list[tuple[float, float]], poisson: bool, seed: int) -> np.ndarray:
    """Seconds since the start of every arrival; phases are (rate, seconds)."""
    random = np.random.default_rng(seed)
    times, begin = [], 0.0
    for rate, seconds in phases:
        count = int(random.poisson(rate * seconds)) if poisson else round(rate * seconds)
        # Given their number, the arrivals of a Poisson process are uniform and independent.
        offsets = np.sort(random.uniform(0, seconds, count)) if poisson else np.arange(count) / rate
        times.append(begin + offsets)
        begin += seconds
    return np.concatenate(times)


def read(path: Path) -> Samples:
    """What `--out` wrote."""
    with np.load(path) as file:
        return Samples(**{name: file[name] if file[name].ndim else file[name].item() for name in file.files})
