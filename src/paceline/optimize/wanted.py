"""What was asked of a study, how much time has it, and who is told how it goes?

Everything that a study makes lies in `out`: the bundle and the reports there, and what it needs to go on after an
interruption in `out/study`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from paceline.optimize.judging.gate import Drop
from paceline.optimize.result import Tried

_TIMED_S: Final = (0.5, 4.0)
_TIMED_SHARE: Final = 1 / 60
_OTHER_BATCH: Final = 1 / 4
_LEAST_TIMEOUT_S: Final = 1.0
_LEAST_TO_BEGIN_S: Final = 60.0


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a study is to find out.

    Attributes:
        model: file or folder, or `module:factory`.
        data: file of rows; `labels`: a file, or a column of `data`.
        metric: None: the one that fits.
        max_drop: None: the gate's own.
        batch: rows at the operating point; `batches`: that are measured as well.
        budget_s: for all of it.
        only, skip: names of candidates, or patterns.
        threads: of an instance; None: one, and all cores, are tried.
        calibration_rows: None: as `data.split` has it.
        command: for the report.
    """

    model: str
    data: Path
    out: Path
    labels: str | None = None
    metric: str | None = None
    max_drop: Drop | None = None
    batch: int = 1
    batches: tuple[int, ...] = ()
    budget_s: float = 600.0
    price_per_hour: float | None = None
    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    allow_pickle: bool = False
    threads: int | None = None
    seed: int = 0
    calibration_rows: int | None = None
    command: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """For what an interrupted study goes on with."""
        return self.out / "study"

    @property
    def rows_folder(self) -> Path:
        """For the rows that processes are given."""
        return self.folder / "rows"


class Progress(Protocol):
    """Who is told how a study goes."""

    def say(self, text: str) -> None:
        """Something that is to be known of the study."""

    def begin(self, name: str, done: int, total: int) -> None:
        """A candidate is tried; `done` of `total` have been."""

    def doing(self, text: str) -> None:
        """What happens right now."""

    def done(self, tried: Tried) -> None:
        """What came of the candidate."""


@dataclass
class Budget:
    """Seconds, from now on.

    Attributes:
        total_s: all of them.
        is_opening: what is needed to begin with is still under way: it gets a minute, however short the budget is.
    """

    total_s: float
    is_opening: bool = True
    _began: float = field(default_factory=time.monotonic)

    @property
    def spent_s(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._began

    @property
    def left_s(self) -> float:
        """Never less than 0."""
        return max(0.0, self.total_s - self.spent_s)

    @property
    def timeout_s(self) -> float:
        """For a process that is started now: what is left, and at least a moment."""
        return max(_LEAST_TO_BEGIN_S if self.is_opening else _LEAST_TIMEOUT_S, self.left_s)

    @property
    def timing_s(self) -> float:
        """To time one candidate at the operating batch."""
        least_s, most_s = _TIMED_S
        return min(most_s, max(least_s, self.total_s * _TIMED_SHARE))

    @property
    def other_timing_s(self) -> float:
        """To time it at another batch size."""
        return self.timing_s * _OTHER_BATCH
