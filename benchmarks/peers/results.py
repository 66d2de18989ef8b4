"""What was measured, and what could not be?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from statistics import median

from benchmarks.peers.model import Model
from benchmarks.peers.paceline import OURS
from benchmarks.peers.peer import Setup
from benchmarks.peers.wires import Sample

GIVEN_UP_AFTER = 2
"""Failures: one may be bad luck, and a server that does not start takes a minute to be found out."""


@dataclass(frozen=True)
class Case:
    """A server, what it serves, and how it is asked."""

    setup: Setup
    model: Model
    wire: str

    @property
    def name(self) -> str:
        """As in the report."""
        return f"{self.setup.name}, {self.model.name}, {self.wire}"


@dataclass
class Results:
    """Samples and failures.

    Attributes:
        samples: by case and number of connections, one for each round.
        failures: why, each time, by what failed: the name of a setup, a model, or a case.
        versions: of the packages in each environment.
    """

    cases: list[Case] = field(default_factory=list)
    samples: dict[Case, dict[int, list[Sample]]] = field(default_factory=dict)
    failures: dict[str, list[str]] = field(default_factory=dict)
    versions: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def alive(self) -> list[Case]:
        """The cases that are not given up."""
        return [case for case in self.cases if len(self.failures.get(case.name, ())) < GIVEN_UP_AFTER]

    def fail(self, name: str, why: object) -> None:
        """Note the failure of a setup, a model or a case."""
        self.failures.setdefault(name, []).append(str(why))

    def add(self, case: Case, seen: dict[int, Sample]) -> None:
        """One round of a case, by number of connections."""
        for connections, sample in seen.items():
            self.samples.setdefault(case, {}).setdefault(connections, []).append(sample)

    def middle(self, case: Case, connections: int) -> Sample | None:
        """Medians of the rounds, each number by itself; None where there is nothing."""
        seen = self.samples.get(case, {}).get(connections)
        if not seen:
            return None
        return Sample(**{each.name: median(getattr(sample, each.name) for sample in seen) for each in fields(Sample)})

    def ratio(self, case: Case, connections: int) -> float | None:
        """Our requests per second by those of this case, asked in the same way; None where one is missing."""
        ours = self.middle(self.ours(case), connections)
        theirs = self.middle(case, connections)
        return ours.rate / theirs.rate if ours and theirs and theirs.rate else None

    def ours(self, case: Case) -> Case:
        """The case that this one is compared with."""
        return Case(OURS, case.model, case.wire)

    def wires(self, model: Model) -> list[str]:
        """In which ways servers were asked about a model."""
        return list(dict.fromkeys(case.wire for case in self.cases if case.model is model))

    @property
    def models(self) -> Sequence[Model]:
        """What was served."""
        return list({id(case.model): case.model for case in self.cases}.values())

    def missing(self, setup: Setup) -> bool:
        """Whether anything of a setup was never measured."""
        mine = [case for case in self.cases if case.setup is setup]
        return setup.name in self.failures or any(case not in self.samples for case in mine)
