"""Who looks on while a load test runs? What a view is told, and what it tells."""

from __future__ import annotations

from typing import Protocol

from paceline.loadtest.result import StepResult
from paceline.loadtest.samples import Samples
from paceline.loadtest.steps import Step
from paceline.loadtest.tally import Tally


class View(Protocol):
    """Is told what happens, ten times a second, and tells which keys were pressed.

    Attributes:
        may_change: the keys + and - change the load. A plan that looks for something decides itself.
    """

    may_change: bool

    def began(self, step: Step, label: str, pid: int) -> None:
        """A step begins with its warm-up, sent by the process of that id."""

    def progress(self, tally: Tally, samples: Samples | None, elapsed_s: float) -> None:
        """It goes on.

        Args:
            tally: of the step so far.
            samples: what has come since the last time.
            elapsed_s: since the step began.
        """

    def changed(self, label: str) -> None:
        """The step goes on with another load."""

    def finished(self, result: StepResult) -> None:
        """A step is over."""

    def pressed(self) -> str:
        """The keys that were pressed since the last time: q ends the test, n the step, + and - change the load."""


class QuietView:
    """Nobody looks on."""

    may_change = False

    def began(self, step: Step, label: str, pid: int) -> None: ...

    def progress(self, tally: Tally, samples: Samples | None, elapsed_s: float) -> None: ...

    def changed(self, label: str) -> None: ...

    def finished(self, result: StepResult) -> None: ...

    def pressed(self) -> str:
        return ""
