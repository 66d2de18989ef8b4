"""How is it measured? Every case a server of its own, started anew in each round; A B C A B C.

Rules:
- A case that fails is told with its reason, and tried once more in a later round; the others go on.
- The first second of load is untimed. A model that is slow is then loaded for longer than planned.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from pathlib import Path

from benchmarks.bench import BenchError, Run, say
from benchmarks.environments import packages
from benchmarks.peers.model import MODELS, Model
from benchmarks.peers.paceline import OURS
from benchmarks.peers.peer import Launch, Setup
from benchmarks.peers.results import Case, Results
from benchmarks.processes import Server, free_port, started
from paceline.config.machine import usable_cores

_WARM_UP_CONNECTIONS, _WARM_UP_S = 32, 1.0
_ANSWERS_EACH, _LONGEST_S = 3, 10.0
_AROUND_S = 6.0
"""What a start, a check, the warm-up and a stop take, until it is known."""


@dataclass(frozen=True)
class Plan:
    """What is measured, and for how long.

    Attributes:
        seconds: of each number of connections, in each round; a slow model gets more.
        here: peers run in this interpreter, and nothing is installed.
    """

    setups: Sequence[Setup]
    models: Sequence[str]
    connections: Sequence[int]
    rounds: int
    seconds: float
    here: bool = False


def measure_all(run: Run, plan: Plan, after_round: Callable[[Results], object] = lambda _: None) -> Results:
    """All cases, all rounds; what fails is in the results, and never an error.

    Args:
        after_round: gets what there is then, for a run that is cut short.
    """
    results = Results()
    pythons = _environments(run, plan, results)
    models = _models(run, plan, results)
    results.cases = cases([setup for setup in plan.setups if setup.name in pythons], models)
    clock = _Clock(_AROUND_S + len(plan.connections) * plan.seconds)
    for turn in range(plan.rounds):
        alive = results.alive
        for index, case in enumerate(alive):
            left = clock.left([*alive[index:], *alive * (plan.rounds - turn - 1)])
            say(f"round {turn + 1}/{plan.rounds}: {case.name} ({left} left)")
            with clock.timing(case):
                _measure(run, plan, pythons[case.setup.name], case, results)
        after_round(results)
    return results


def cases(setups: Sequence[Setup], models: Sequence[Model]) -> list[Case]:
    """Every server that can serve a model, in every way it can be asked; ours in those that a peer has."""
    found = []
    for model in models:
        able = [setup for setup in setups if model.language in setup.languages]
        peers = [setup for setup in able if setup is not OURS] or able
        shared = {wire for setup in peers for wire in setup.dialects if wire == "json" or model.inputs}
        found += [Case(setup, model, wire) for setup in able for wire in setup.dialects if wire in shared]
    return found


@contextmanager
def serving(run: Run, case: Case, *, python: Path) -> Iterator[Server]:
    """A server, until the block ends; it has answered once.

    Args:
        python: of the peer's environment.
    Raises:
        BenchError: it did not come up.
    """
    setup, model, wire = case.setup, case.model, case.wire
    cores = 1 if run.pin else usable_cores().whole
    workers = 1 if setup.one_worker else cores
    folder = (run.folder / "served" / setup.name / f"{model.name}-{wire}").resolve()
    launch = Launch(run, python, model, wire, free_port(), workers, max(1, cores // workers), folder)
    command = setup.command(launch)
    ready = setup.dialects[wire].ready(model)
    with started(run, command.arguments, launch.port, ready=ready, env=command.env) as server:
        yield server


def _measure(run: Run, plan: Plan, python: Path, case: Case, results: Results) -> None:
    dialect = case.setup.dialects[case.wire]
    try:
        with serving(run, case, python=python) as server:
            dialect.check(server, case.model)
            warm = dialect.load(run, server, case.model, _WARM_UP_CONNECTIONS, _WARM_UP_S)
            seen = {
                each: dialect.load(run, server, case.model, each, _seconds(plan, each, warm.rate))
                for each in plan.connections
            }
    except BenchError as error:
        say(f"  failed: {error}")
        results.fail(case.name, error)
    else:
        results.add(case, seen)


def _seconds(plan: Plan, connections: int, rate: float) -> float:
    """As planned, or longer, so that each connection has some answers from a slow model."""
    return max(plan.seconds, min(_LONGEST_S, ceil(_ANSWERS_EACH * connections / rate) if rate else _LONGEST_S))


def _environments(run: Run, plan: Plan, results: Results) -> dict[str, Path]:
    found = {}
    for setup in plan.setups:
        try:
            python = setup.environment.python(run, here=plan.here)
            if setup.environment.name not in results.versions:
                results.versions[setup.environment.name] = packages(python)
        except BenchError as error:
            say(f"{setup.name}: {error}")
            results.fail(setup.name, error)
        else:
            found[setup.name] = python
    return found


def _models(run: Run, plan: Plan, results: Results) -> list[Model]:
    found = []
    peers = [setup for setup in plan.setups if setup is not OURS] or plan.setups
    for name in plan.models:
        if not any(MODELS[name].language in setup.languages for setup in peers):
            continue  # nobody to compare with
        try:
            found.append(MODELS[name].make(run))
        except BenchError as error:
            say(f"{name}: {error}")
            results.fail(name, error)
    return found


class _Clock:
    """How long is left? As long as the cases took before, or a guess for those that have not run."""

    def __init__(self, guess_s: float) -> None:
        self._guess_s = guess_s
        self._took_s: dict[Case, float] = {}

    @contextmanager
    def timing(self, case: Case) -> Iterator[None]:
        begun = time.monotonic()
        yield
        self._took_s[case] = time.monotonic() - begun

    def left(self, rest: Sequence[Case]) -> str:
        seconds = sum(self._took_s.get(case, self._guess_s) for case in rest)
        return f"{seconds / 60:.0f} min" if seconds > 90 else f"{seconds:.0f} s"
