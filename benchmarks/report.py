"""What does a run leave behind? A text table for people, one JSON document for programs."""

from __future__ import annotations

import json
import math
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bench import CLIENT_CORE, SERVER_CORE, Group, Run, Table, number
from paceline.config.machine import usable_cores

SCHEMA = 1
_PACKAGES = (
    "paceline",
    "grpcio",
    "httptools",
    "httpunk",
    "msgspec",
    "numpy",
    "onnxruntime",
    "orjson",
    "protobuf",
    "tritonclient",
    "uvloop",
)


def machine() -> dict[str, Any]:
    """What the numbers depend on, read before the first measurement."""
    cores = usable_cores()
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "usable_cores": cores.value,
        "usable_cores_why": cores.why,
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30), 1),
        "kernel": platform.release(),
        "load_average_at_start": [round(load, 2) for load in os.getloadavg()],
    }


def versions() -> dict[str, str]:
    """Of everything here that takes part."""
    found = {"python": platform.python_version(), "wrk": _wrk_version(), "commit": _commit()}
    found["h2load"] = _first_line(["h2load", "--version"])
    found["haproxy"] = _first_line(["haproxy", "-v"])
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def document(run: Run, groups: Mapping[str, Group], facts: Mapping[str, Any]) -> dict[str, Any]:
    """The report as data."""
    return {
        "schema": SCHEMA,
        "written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": " ".join(["python -m benchmarks", *sys.argv[1:]]),
        "quick": run.quick,
        "pinned": {"server": [SERVER_CORE], "client": [CLIENT_CORE]} if run.pin else None,
        "machine": facts,
        "versions": versions(),
        "groups": {name: asdict(group) for name, group in groups.items()},
        "commands": run.commands,
    }


def write(run: Run, path: Path, groups: Mapping[str, Group], facts: Mapping[str, Any]) -> None:
    """Write the report, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(path.suffix + ".partial")
    text = json.dumps(_plain(document(run, groups, facts)), indent=1, allow_nan=False)
    partial.write_text(text + "\n")
    partial.rename(path)


def show(group: Group) -> str:
    """A group as text."""
    parts = [f"== {group.title}"]
    parts += [_grid(table) for table in group.tables]
    if group.checks:
        rows = [(check.what, check.target, check.measured, "yes" if check.ok else "NO") for check in group.checks]
        parts.append(_grid(Table("targets", ("what", "target", "measured", "reached"), rows)))
    parts += [f"note: {note}" for note in group.notes]
    return "\n\n".join(parts)


def heading(run: Run, facts: Mapping[str, Any]) -> str:
    """The lines above the tables."""
    pinned = (
        f"server on core {SERVER_CORE}, client on core {CLIENT_CORE}"
        if run.pin
        else "nothing pinned: client and server share the cores"
    )
    return (
        f"{facts['cpu']}, {facts['usable_cores']:g} usable cores; {pinned}; "
        f"load at the start {facts['load_average_at_start'][0]}"
        + ("\nQUICK RUN: shows that everything works; the numbers are noise" if run.quick else "")
    )


def _plain(value: Any) -> Any:
    """The same with what JSON can carry: NumPy's scalars as Python's, infinity and NaN as null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _grid(table: Table) -> str:
    cells = [[str(each) for each in table.columns]]
    cells += [[number(each) for each in row] for row in table.rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(table.columns))]
    # Words to the left, numbers to the right.
    left = [any(not isinstance(row[column], int | float) for row in table.rows) for column in range(len(table.columns))]
    lines = [
        "  ".join(
            text.ljust(width) if is_left else text.rjust(width)
            for text, width, is_left in zip(row, widths, left, strict=True)
        ).rstrip()
        for row in cells
    ]
    rule = "  ".join("-" * width for width in widths)
    return "\n".join([table.title, lines[0], rule, *lines[1:]])


def rounds_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Table:
    """A table of medians."""
    return Table(f"{title} (medians of the rounds)", columns, rows)


def _cpu_model() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found.group(1) if found else platform.processor() or platform.machine()


def _wrk_version() -> str:
    return _first_line(["wrk", "-v"]).removeprefix("wrk ").partition(" [")[0]


def _commit() -> str:
    return _first_line(["git", "describe", "--always", "--dirty"])


def _first_line(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "not installed"
    lines = (done.stdout or done.stderr).splitlines()
    return lines[0] if lines else "unknown"
