"""What does every group of measurements share? The run's settings, interleaving, the shape of a result."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

T = TypeVar("T")

SERVER_CORE = 0
CLIENT_CORE = 1


class BenchError(Exception):
    """The measurement cannot be made; the message says what to do."""


@dataclass
class Run:
    """One invocation.

    Attributes:
        quick: short and few rounds: shows that everything works, not how fast it is.
        pin: servers on core 0, clients on core 1.
        folder: models, peers, bodies and reports are kept here.
        commands: everything that was started, as one would type it.
    """

    quick: bool
    pin: bool
    folder: Path
    commands: list[str] = field(default_factory=list)

    @property
    def rounds(self) -> int:
        """How often each case is measured."""
        return 2 if self.quick else 5

    @property
    def models(self) -> Path:
        """Where the model files are."""
        return self.folder / "models"

    def either(self, full: T, quick: T) -> T:
        """The value for this kind of run."""
        return quick if self.quick else full

    def as_server(self, command: Sequence[str]) -> list[str]:
        """The command, pinned where servers run."""
        return self._noted(command, SERVER_CORE)

    def as_client(self, command: Sequence[str]) -> list[str]:
        """The command, pinned where clients run."""
        return self._noted(command, CLIENT_CORE)

    def _noted(self, command: Sequence[str], core: int) -> list[str]:
        full = ["taskset", "-c", str(core), *command] if self.pin else list(command)
        line = shlex.join(full)
        if line not in self.commands:
            self.commands.append(line)
        return full


@dataclass(frozen=True)
class Table:
    """Rows of text and numbers under a title."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


@dataclass(frozen=True)
class Check:
    """A number that was promised, and what was measured."""

    what: str
    target: str
    measured: str
    ok: bool


@dataclass
class Group:
    """What a group of measurements found.

    Attributes:
        samples: everything measured, for the report.
        notes: what a reader must know to judge the numbers.
    """

    title: str
    tables: list[Table] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    samples: dict[str, Any] = field(default_factory=dict)

    def check(self, what: str, measured: float, bound: float, unit: str = "", *, most: bool = False) -> None:
        """Compare a number with its lower bound, or with its upper one (`most`)."""
        ok = bool(measured <= bound if most else measured >= bound)
        sign = "<=" if most else ">="
        self.checks.append(Check(what, f"{sign} {bound:g}{unit}", f"{number(measured)}{unit}", ok))


def interleaved(cases: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """Measure A B C A B C ...: what disturbs the machine for a while disturbs them all alike."""
    samples: dict[str, list[T]] = {name: [] for name in cases}
    for turn in range(rounds):
        for name, measure in cases.items():
            say(f"  round {turn + 1}/{rounds}: {name}")
            samples[name].append(measure())
    return samples


@contextmanager
def pinned_as_client(run: Run) -> Iterator[None]:
    """What is started here runs where clients do, and so does this process."""
    before = os.sched_getaffinity(0)
    if run.pin:
        os.sched_setaffinity(0, {CLIENT_CORE})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def middle(samples: Sequence[Any], attribute: str) -> float:
    """Median of one attribute."""
    return median(getattr(sample, attribute) for sample in samples)


def number(value: Any) -> str:
    """A number with three significant digits, or in full when it is large."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, int | float):
        return str(value)
    if abs(value) >= 1000:
        return f"{value:,.0f}".replace(",", " ")
    return f"{value:.3g}"


def say(text: str) -> None:
    """Progress, which is not the result: to stderr."""
    print(text, file=sys.stderr, flush=True)
