"""What does a server cost that does nothing, and how long until it can do something?

The small model, no flags. Memory is the resident set; processor time is what the kernel counted while nobody
was connected, and while idle connections were open.
"""

from __future__ import annotations

import socket
import subprocess
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from statistics import median

from benchmarks import models
from benchmarks.bench import BenchError, Group, Run, Table, interleaved, say
from benchmarks.processes import Server, paceline, paceline_command

MOST_CPU_PERCENT = 0.1  # the resolution of what people call 0 %
MOST_READY_S = 1.5
MOST_HELP_S = 0.15
IDLE_CONNECTIONS = 100
_HELP_RUNS = 10


@dataclass(frozen=True)
class Start:
    """One server, from exec on, left alone once it was ready."""

    ready_s: float
    rss_mib: float
    cpu_percent: float
    connected_cpu_percent: float


def measure(run: Run) -> Group:
    """Starts and `--help`, interleaved."""
    group = Group("an idle server with the small model")
    model = models.mlp(run.models, models.SMALL)
    helps: list[float] = []

    def start() -> Start:
        with paceline(run, model) as server:
            return _watch(run, server)

    def ask_for_help() -> float:
        helps.extend(_help_s(run) for _ in range(_HELP_RUNS // run.rounds))
        return helps[-1]

    _help_s(run)  # untimed: the files are in the page cache from here on
    rounds = interleaved({"start": start, "help": ask_for_help}, run.rounds)
    starts: list[Start] = rounds["start"]  # type: ignore[assignment]
    middle = {name: median(getattr(each, name) for each in starts) for name in asdict(starts[0])}
    rows = [
        ("resident memory, MB", middle["rss_mib"] * (1 << 20) / 1e6),
        ("processor, no connection, %", middle["cpu_percent"]),
        (f"processor, {IDLE_CONNECTIONS} idle connections, %", middle["connected_cpu_percent"]),
        ("exec to ready, s", middle["ready_s"]),
        (f"paceline --help, ms (median of {len(helps)})", median(helps) * 1e3),
    ]
    group.tables.append(Table("footprint (medians)", ("what", "measured"), rows))
    group.check("resident memory", middle["rss_mib"] * (1 << 20) / 1e6, 120, " MB", most=True)
    group.check("processor, no connection", middle["cpu_percent"], MOST_CPU_PERCENT, " %", most=True)
    group.check("exec to ready", middle["ready_s"], MOST_READY_S, " s", most=True)
    group.check("paceline --help", median(helps) * 1e3, MOST_HELP_S * 1e3, " ms", most=True)
    group.samples = {"starts": [asdict(each) for each in starts], "help_s": helps}
    group.notes = ["files are in the page cache; /readyz is asked every 5 ms while it starts"]
    return group


def _watch(run: Run, server: Server) -> Start:
    window_s = run.either(10.0, 3.0)
    time.sleep(0.5)  # the readiness poll's connection is gone and the sweep has ended
    cpu_percent = _cpu_percent(server, window_s)
    rss_mib = server.rss_mib
    with ExitStack() as stack:
        for _ in range(IDLE_CONNECTIONS):
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
        time.sleep(0.2)
        connected = _cpu_percent(server, min(window_s, 5.0))
    say(f"    ready after {server.ready_s:.2f} s, {rss_mib:.1f} MiB, {cpu_percent:.3f} % of a core")
    return Start(server.ready_s, rss_mib, cpu_percent, connected)


def _cpu_percent(server: Server, window_s: float) -> float:
    before_s, begun = server.cpu_s, time.monotonic()
    time.sleep(window_s)
    return (server.cpu_s - before_s) / (time.monotonic() - begun) * 100


def _help_s(run: Run) -> float:
    command = run.as_server([*paceline_command(), "--help"])
    begun = time.perf_counter()
    done = subprocess.run(command, capture_output=True, check=False)
    elapsed = time.perf_counter() - begun
    if done.returncode:
        raise BenchError(f"{command} failed: {done.stderr.decode(errors='replace')}")
    return elapsed
