"""What does a run leave behind? `report.md` with tables and ratios, `ratios.svg`, `report.json` with every sample.

Rules:
- Where a peer is faster than Paceline, the table says so in bold.
- What could not be measured stands in the table, with its reason beneath.
"""

from __future__ import annotations

import json
import math
import re
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.bench import CLIENT_CORE, SERVER_CORE, Run, number
from benchmarks.peers.model import Model
from benchmarks.peers.paceline import OURS
from benchmarks.peers.results import Case, Results
from benchmarks.peers.rounds import Plan
from benchmarks.peers.wires import TITLES, Sample
from paceline.reports.charts import Axis, Bar, BarGroup, Chart, bar_chart

SCHEMA = 1
_USUAL = 32
_SHOWN_FAILURES = 0.001
_PORT = re.compile(r"(?<=:)\d{4,5}\b|(?<=port[= ])\d{4,5}\b|(?<= )\d{4,5}$")


def write(folder: Path, run: Run, plan: Plan, results: Results, facts: Mapping[str, Any]) -> str:
    """Write the three files; the Markdown."""
    folder.mkdir(parents=True, exist_ok=True)
    text = markdown(run, plan, results, facts)
    _replace(folder / "report.md", text)
    _replace(folder / "report.json", json.dumps(document(run, plan, results, facts), indent=1) + "\n")
    if results.samples:
        _replace(folder / "ratios.svg", chart(plan, results).svg())
    return text


def _replace(path: Path, text: str) -> None:
    """Whole or not at all: a run that is cut short leaves what the last round wrote."""
    partial = path.with_suffix(path.suffix + ".partial")
    partial.write_text(text)
    partial.rename(path)


# -- Markdown -------------------------------------------------------------------------------------------------


def markdown(run: Run, plan: Plan, results: Results, facts: Mapping[str, Any]) -> str:
    """The report for people."""
    parts = ["# Paceline beside other servers", report.heading(run, facts), _method(plan)]
    for model in results.models:
        for wire in results.wires(model):
            parts += [f"## {model.title}: {TITLES[wire]}", _table(plan, results, model, wire)]
    if not results.models:
        parts.append("Nothing was measured.")
    if results.failures:
        parts += ["## Failures", "\n".join(_reasons(plan, results))]
    parts += ["## Servers", "\n".join(_servers(plan, results))]
    parts += ["## Versions", _versions(), "## Commands", f"```\n{_commands(run)}\n```"]
    return "\n\n".join(parts) + "\n"


def _method(plan: Plan) -> str:
    return (
        f"Medians of {plan.rounds} interleaved rounds of {plan.seconds:g} s; each server alone, started anew in each. "
        "Requests per second, and the 99th percentile of the response time. Ratios are ours by theirs, between servers "
        "that are asked in the same way; **bold** is where the other server is faster than Paceline."
    )


def _table(plan: Plan, results: Results, model: Model, wire: str) -> str:
    lines = [
        " | ".join(["| connections", *map(str, plan.connections)]) + " |",
        "|---" * (1 + len(plan.connections)) + "|",
    ]
    for setup in plan.setups:
        case = Case(setup, model, wire)
        absent = setup.name in results.failures and wire in setup.dialects and model.language in setup.languages
        if absent or case in results.cases:
            cells = [_cell(results, case, each) for each in plan.connections]
            lines.append(f"| {' | '.join([setup.title, *cells])} |")
    return "\n".join(lines)


def _cell(results: Results, case: Case, connections: int) -> str:
    seen = results.middle(case, connections)
    if seen is None:
        return "failed"
    if not seen.rate:
        return "no good answer"
    rate, p99 = f"{number(seen.rate)}/s", f"{number(seen.p99_ms)} ms"
    some_failed = seen.failed > _SHOWN_FAILURES
    ratio, ours = results.ratio(case, connections), results.middle(results.ours(case), connections)
    if ours and seen.p99_ms < ours.p99_ms and not some_failed:
        p99 = f"**{p99}**"
    if some_failed:
        p99 += f", {seen.failed:.1%} failed"
    if case.setup is OURS or ratio is None:
        return f"{rate}, {p99}"
    return f"**{rate}**, {p99}, **ours is {times(ratio)}**" if ratio < 1 else f"{rate}, {p99}, ours is {times(ratio)}"


def times(ratio: float) -> str:
    """A ratio with two digits, and never rounded up to one."""
    if ratio >= 10:
        return f"{ratio:.0f}x"
    return f"{min(ratio, 0.99) if ratio < 1 else ratio:.{1 if ratio >= 1 else 2}f}x"


def _reasons(plan: Plan, results: Results) -> list[str]:
    titles = {setup.name: setup.title for setup in plan.setups}
    return [
        f"- {titles.get(name, name)}: {_short(why)}" for name, reasons in results.failures.items() for why in reasons
    ]


def _servers(plan: Plan, results: Results) -> list[str]:
    used = {case.setup.name for case in results.cases} | set(results.failures)
    return [f"- {each.title}: {each.note}" for each in plan.setups if each.name in used]


def _versions() -> str:
    found = {name: version for name, version in report.versions().items() if version != "not installed"}
    return ", ".join(f"{name} {version}" for name, version in found.items()) + "; of each environment in report.json"


def _commands(run: Run) -> str:
    """Each once, whatever the port was, and as typed in this folder."""
    here = f"{Path.cwd()}/"
    return "\n".join(dict.fromkeys(_PORT.sub("PORT", each).replace(here, "") for each in run.commands))


def _short(text: str) -> str:
    """The first line and the last: what failed, and what was said in the end."""
    first, *others = [line.strip() for line in text.splitlines() if line.strip()]
    return f"{first[:160]} ... {others[-1][:240]}" if others else first[:400]


# -- the chart --------------------------------------------------------------------------------------------------


def chart(plan: Plan, results: Results) -> Chart:
    """Requests per second of every server, as a share of ours: a group for each model."""
    connections = _USUAL if _USUAL in plan.connections else max(plan.connections)
    groups = [
        BarGroup(
            model.title.replace("`", ""),
            [_bar(results, case, connections) for case in _once_each(plan, results, model)],
        )
        for model in results.models
    ]
    return bar_chart(
        f"Requests per second beside Paceline's, {connections} connections",
        groups,
        axis=Axis("share of Paceline's requests per second"),
        description="Each server's requests per second divided by Paceline's, asked in the same way.",
        note="JSON where a server takes an item as JSON, else its first protocol; Paceline is asked in the same way.",
    )


def _once_each(plan: Plan, results: Results, model: Model) -> list[Case]:
    firsts = []
    for setup in plan.setups:
        mine = [Case(setup, model, wire) for wire in setup.dialects]
        firsts += [case for case in mine if case in results.cases][:1]
    return firsts


def _bar(results: Results, case: Case, connections: int) -> Bar:
    if case.setup is OURS:
        return Bar(case.setup.title, 1.0, "1", tone="blue", strong=True)
    ratio = results.ratio(case, connections)
    label = f"ours is {times(ratio)}" if ratio else "failed"
    return Bar(case.setup.title, 1 / ratio if ratio else None, label, strong=bool(ratio and ratio < 1))


# -- JSON -------------------------------------------------------------------------------------------------------


def document(run: Run, plan: Plan, results: Results, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The report for programs: every sample of every round."""
    return {
        "schema": SCHEMA,
        "written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": " ".join(["python -m benchmarks.peers", *sys.argv[1:]]),
        "quick": run.quick,
        "pinned": {"server": [SERVER_CORE], "client": [CLIENT_CORE]} if run.pin else None,
        "rounds": plan.rounds,
        "seconds": plan.seconds,
        "machine": dict(facts),
        "versions": {"here": report.versions(), "peers": results.versions},
        "servers": {setup.name: {"title": setup.title, "note": setup.note} for setup in plan.setups},
        "cases": [_case(results, case, plan.connections) for case in results.cases],
        "failures": results.failures,
        "commands": run.commands,
    }


def _case(results: Results, case: Case, connections: Sequence[int]) -> dict[str, Any]:
    return {
        "server": case.setup.name,
        "model": case.model.name,
        "wire": case.wire,
        "connections": {
            str(each): {
                "ours_is": results.ratio(case, each),
                "rounds": [_finite(sample) for sample in results.samples.get(case, {}).get(each, [])],
            }
            for each in connections
        },
    }


def _finite(sample: Sample) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in asdict(sample).items()}
