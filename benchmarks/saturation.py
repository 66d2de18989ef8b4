"""How much of the machine's arithmetic does a saturated server keep?

A 64->2048->2048->10 model, one row a request, against a loop of `session.run` in one process at its best
batch size, with the same number of threads. And what one client waits beyond the run itself.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import models
from benchmarks.bench import BenchError, Group, Run, interleaved, middle
from benchmarks.processes import paceline
from benchmarks.report import rounds_table
from benchmarks.wrk import Load, as_data, load
from paceline.config.machine import usable_cores

CONNECTIONS = (64, 128)
LEAST_SHARE = 0.9
MOST_EXTRA_US = 150.0
_PATH = "/predict"


def measure(run: Run) -> Group:
    """One thread against one thread, then both with all cores."""
    group = Group("a 2048-wide model, saturated, beside an in-process loop")
    model = models.mlp(run.models, models.WIDE)
    body = models.json_row(models.WIDE[0])
    cores = 1 if run.pin else usable_cores().whole
    fixed = ("--threads", "1", "--instances", "1")
    panels: dict[str, list[str]] = {}
    rounds: dict[str, list[Any]] = interleaved(
        {
            "in-process 1": partial(_in_process, run, model, 1),
            "paceline 1": partial(_served, run, model, body, fixed, panels),
            "in-process all": partial(_in_process, run, model, cores),
            "paceline default": partial(_served, run, model, body, (), panels),
        },
        run.rounds,
    )
    rows: list[list[Any]] = []
    for server, loop, label in (
        ("paceline 1", "in-process 1", "--threads 1 --instances 1"),
        ("paceline default", "in-process all", "default settings"),
    ):
        _compare(group, rows, rounds[server], rounds[loop], label)
    columns = ("settings", "what", "rows/s", "of in-process", "p50 ms", "p99 ms")
    group.tables.append(rounds_table("rows per second", columns, rows))
    group.samples = {
        "in-process 1": rounds["in-process 1"],
        "in-process all": rounds["in-process all"],
        **{
            f"{name} at {connections}": as_data({"": [each[connections] for each in rounds[name]]})[""]
            for name in ("paceline 1", "paceline default")
            for connections in (1, *CONNECTIONS)
        },
        "panels": panels,
    }
    group.notes = [
        f"in-process, all cores: {cores} thread(s); no target there, for the client needs a core too",
        *[line.strip() for line in panels.get("default", ()) if "instances" in line or "batch size" in line],
    ]
    return group


def _compare(
    group: Group, rows: list[list[Any]], served: Sequence[Mapping[int, Load]], loops: list[Any], label: str
) -> None:
    best = median(each["rows_per_s"] for each in loops)
    alone_us = median(each["single_p50_us"] for each in loops)
    size = sorted(each["best_size"] for each in loops)[len(loops) // 2]
    rows.append([label, f"in-process, {size} rows a batch", best, "", "", ""])
    rows.append([label, "in-process, one row", 1e6 / alone_us, "", alone_us / 1e3, ""])
    shares = []
    for connections in CONNECTIONS:
        loads = [each[connections] for each in served]
        share = middle(loads, "rate") / best
        shares.append(share)
        line = [middle(loads, "rate"), f"{share:.1%}", middle(loads, "p50_ms"), middle(loads, "p99_ms")]
        rows.append([label, f"served, {connections} connections", *line])
    ones = [each[1] for each in served]
    extra_us = middle(ones, "p50_ms") * 1e3 - alone_us
    line = [middle(ones, "rate"), f"+{extra_us:.0f} us", middle(ones, "p50_ms"), middle(ones, "p99_ms")]
    rows.append([label, "served, 1 connection", *line])
    if "threads" in label:
        group.check("saturated: share of the in-process rows/s, one thread", max(shares), LEAST_SHARE)
        group.check("one client: p50 beyond the in-process run", extra_us, MOST_EXTRA_US, " us", most=True)


def _served(run: Run, model: Path, body: bytes, flags: Sequence[str], panels: dict[str, list[str]]) -> dict[int, Load]:
    with paceline(run, model, flags) as server:
        models.check_answer(server, _PATH, body, model)
        load(run, server.url(_PATH), body, CONNECTIONS[0], 1)  # untimed
        panels[" ".join(flags) or "default"] = server.panel
        return {
            connections: load(run, server.url(_PATH), body, connections, run.either(6, 1))
            for connections in (1, *CONNECTIONS)
        }


def _in_process(run: Run, model: Path, threads: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.inprocess", str(model), "--threads", str(threads)]
    command += ["--seconds", str(run.either(6, 1))]
    done = subprocess.run(run.as_server(command), capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(f"{command} failed:\n{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found
