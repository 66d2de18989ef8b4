"""How long does a request take whose items each wait for another service? 64 items, 50 ms each, one /batch-predict.

`fetch` of a service, asynchronous or blocking, against the same calls one after the other.
"""

from __future__ import annotations

import json
import sys
import time
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from statistics import median

from benchmarks.bench import BenchError, Group, Run, interleaved
from benchmarks.processes import Server, answers, free_port, paceline, started
from benchmarks.report import rounds_table

ITEMS = 64
LATENCY_MS = 50
MOST_MS = 150.0
_SERVICES = Path(__file__).parent / "services"


def measure(run: Run) -> Group:
    """Both kinds of `fetch`, and none."""
    group = Group(f"{ITEMS} items that each wait {LATENCY_MS} ms for another service")
    with _upstream(run) as upstream:
        address = f"127.0.0.1:{upstream.port}"
        rounds = interleaved(
            {
                "async fetch": lambda: _service(run, "fetch_async.py", address),
                "blocking fetch": lambda: _service(run, "fetch_sync.py", address),
                "one after the other": lambda: _in_sequence(address),
            },
            run.rounds,
        )
    middles = {name: median(each for turn in turns for each in turn) for name, turns in rounds.items()}
    worst = {name: max(each for turn in turns for each in turn) for name, turns in rounds.items()}
    rows = [[name, middles[name], worst[name]] for name in rounds]
    group.tables.append(rounds_table("one request", ("how", "ms", "longest ms"), rows))
    for name in ("async fetch", "blocking fetch"):
        group.check(f"{name}: the whole request", middles[name], MOST_MS, " ms", most=True)
    group.samples = {name: [list(turn) for turn in turns] for name, turns in rounds.items()}
    group.notes = ["paceline: no flags; a new process in each round", "the other service closes each connection"]
    return group


def _service(run: Run, name: str, upstream: str) -> Sequence[float]:
    with paceline(run, _SERVICES / name, env={"UPSTREAM": upstream}) as server:
        calls = [_timed(lambda turn=turn: _ask(server, turn)) for turn in range(run.either(12, 4))]
    return calls[1:]  # untimed: every code path once


def _ask(server: Server, turn: int) -> None:
    items = [turn * ITEMS + item for item in range(ITEMS)]
    answer, _ = server.post("/batch-predict", json.dumps(items).encode(), {"content-type": "application/json"})
    if json.loads(answer) != items:
        raise BenchError(f"the service answers {answer[:200]!r} to {items}")


def _in_sequence(upstream: str) -> Sequence[float]:
    def ask() -> None:
        for item in range(ITEMS):
            with urllib.request.urlopen(f"http://{upstream}/{item}", timeout=10) as response:
                response.read()

    return [_timed(ask)]


def _timed(work: Callable[[], None]) -> float:
    begun = time.perf_counter()
    work()
    return (time.perf_counter() - begun) * 1e3


def _upstream(run: Run) -> AbstractContextManager[Server]:
    port = free_port()
    command = [sys.executable, str(_SERVICES / "upstream.py"), str(port)]
    return started(run, command, port, ready=answers("/"), env={"LATENCY_MS": str(LATENCY_MS)})
