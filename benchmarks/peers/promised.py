"""Which ratios are promised? `make bench ARGS="peers forest"`: two models, few peers, longer rounds, and targets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from benchmarks.bench import BenchError, Group, Run
from benchmarks.peers.catalogue import chosen
from benchmarks.peers.paceline import OURS
from benchmarks.peers.results import Case, Results
from benchmarks.peers.rounds import Plan, measure_all
from benchmarks.report import rounds_table

CONNECTIONS = (1, 32, 128)


@dataclass(frozen=True)
class _Promise:
    """Targets of one model, asked with JSON.

    Attributes:
        least: our requests per second by a server's, at a number of connections.
        shorter: servers whose 99th percentile ours is not to pass.
    """

    title: str
    model: str
    least: Mapping[tuple[str, int], float]
    beside: tuple[str, ...] = ()
    shorter: tuple[str, ...] = field(default=())


_SMALL = _Promise(
    "JSON over HTTP/1.1: the small model beside other servers",
    "mlp",
    {("mosec", 1): 8.0, ("mosec", 32): 3.0, ("mosec", 128): 1.2, ("fastapi-one", 32): 8.0},
    beside=("mosec-msgspec", "fastapi-all"),
    shorter=("mosec",),
)
_FOREST = _Promise(
    "user code in Python: a random forest, JSON",
    "forest",
    {
        ("mosec-10ms", 1): 5.0,
        ("mosec-10ms", 32): 1.0,
        ("mosec-10ms", 128): 1.0,
        ("mosec", 1): 1.0,
        ("mosec", 32): 1.0,
        ("mosec", 128): 1.0,
        ("litserve", 32): 15.0,
    },
    beside=("litserve-fast",),
)


def small(run: Run) -> Group:
    """The tiny perceptron beside mosec and FastAPI."""
    return _measure(run, _SMALL)


def forest(run: Run) -> Group:
    """The random forest beside mosec and LitServe."""
    return _measure(run, _FOREST)


def _measure(run: Run, promise: _Promise) -> Group:
    names = {name for name, _ in promise.least} | set(promise.beside)
    setups = [setup for setup in chosen(sorted(names)) if setup is OURS or setup.name in names]
    results = measure_all(run, Plan(setups, [promise.model], CONNECTIONS, run.rounds, run.either(5.0, 1.0)))
    if results.failures:
        raise BenchError("\n".join(f"{name}: {why[-1]}" for name, why in results.failures.items()))
    group = Group(promise.title, notes=[f"{setup.title}: {setup.note}" for setup in setups])
    group.samples = {
        f"{case.setup.name} {connections}": [asdict(sample) for sample in seen]
        for case, by_connections in results.samples.items()
        for connections, seen in by_connections.items()
    }
    _compare(group, promise, results)
    return group


def _compare(group: Group, promise: _Promise, results: Results) -> None:
    rows = []
    for connections in CONNECTIONS:
        for case in results.cases:
            seen, ratio = results.middle(case, connections), results.ratio(case, connections)
            assert seen is not None
            assert ratio is not None
            row = [connections, case.setup.title, seen.rate, seen.p50_ms, seen.p99_ms]
            rows.append([*row, "" if case.setup is OURS else f"{ratio:.2f}x"])
            _check(group, promise, results, case, connections)
    columns = ("connections", "server", "requests/s", "p50 ms", "p99 ms", "ours is")
    group.tables.append(rounds_table(results.models[0].title, columns, rows))


def _check(group: Group, promise: _Promise, results: Results, case: Case, connections: int) -> None:
    name, ratio = case.setup.name, results.ratio(case, connections)
    ours, theirs = results.middle(results.ours(case), connections), results.middle(case, connections)
    if ratio is not None and (name, connections) in promise.least:
        what = f"requests/s against {name} at {connections} connections"
        group.check(what, ratio, promise.least[name, connections], "x")
    if ours and theirs and name in promise.shorter:
        what = f"p99 against {name}'s at {connections} connections"
        group.check(what, ours.p99_ms / theirs.p99_ms, 1.0, "x", most=True)
