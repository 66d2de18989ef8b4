"""What does the experiment leave behind? `report.md`, `response-times.svg` and `results.json`."""

from __future__ import annotations

import json
import math
import re
import sys
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from benchmarks import report
from benchmarks.article import published
from benchmarks.article.chart import response_times
from benchmarks.article.results import Check, Results
from benchmarks.article.setups import SET_UPS
from benchmarks.bench import Run

SCHEMA: Final = 1
CHART: Final = "response-times.svg"
_PORT: Final = re.compile(r"(?<=[/:= ])\d{4,5}(?![\d.]*\d)")
_VERDICTS: Final = {True: "yes", False: "**NO**", None: "?"}
_PACKAGES: Final = ("flask", "gunicorn", "locust", "gevent", "onnxruntime", "numpy", "paceline")


def write(folder: Path, run: Run, facts: Mapping[str, Any], found: Sequence[Results]) -> str:
    """Write the three files; the text of the report."""
    folder.mkdir(parents=True, exist_ok=True)
    text = _report(run, facts, found)
    _replace(folder / "report.md", text)
    _replace(folder / CHART, response_times(found).svg())
    _replace(folder / "results.json", json.dumps(_document(run, facts, found), indent=1, allow_nan=False) + "\n")
    return text


def _report(run: Run, facts: Mapping[str, Any], found: Sequence[Results]) -> str:
    parts = ["# The article's experiment", report.heading(run, facts), f"![mean response times]({CHART})"]
    parts.append(_published())
    for results in found:
        parts += [f"## {results.title}", _bare(results), _means(results), _targets(results.checks()), _details(results)]
    versions = ", ".join(f"{name} {version}" for name, version in _versions().items())
    commands = "\n".join(_readable(run.commands))
    return "\n\n".join([*parts, "## Versions", versions, "## Commands", f"```\n{commands}\n```"]) + "\n"


def _published() -> str:
    users = sorted({users for series in published.MEANS_S.values() for users in series})
    rows = [
        [SET_UPS[key].label, *(_ms(series.get(number, math.nan)) for number in users)]
        for key, series in published.MEANS_S.items()
    ]
    title = f"Published figures, ms: {published.AUTHOR}, [{published.TITLE}]({published.URL})"
    return f"{title}\n\n{_markdown(['set-up', *map(_users, users)], rows)}"


def _bare(results: Results) -> str:
    times = ", ".join(f"{_ms(seconds)} ms for {rows} row{'s' * (rows > 1)}" for rows, seconds in results.bare_s.items())
    warning = " **Other programs had the processor: the times are too long; measure again.**" * results.disturbed
    said = "".join(f" ({key}): instances {text}." for key, text in sorted(results.chosen.items()))
    return f"The model alone: {times}. All cores were at most {results.busy:.0%} busy.{said}{warning}"


def _means(results: Results) -> str:
    rows = []
    for key in results.set_ups:
        cells = [results.series.get((key, users)) for users in results.users]
        rows.append([SET_UPS[key].label, *(_ms(cell.mean_s) if cell else "" for cell in cells)])
    return "Mean response time, ms\n\n" + _markdown(["set-up", *map(_users, results.users)], rows)


def _details(results: Results) -> str:
    rows = []
    for key in results.set_ups:
        for users in results.users:
            if (key, users) in results.series:
                row = results.series[key, users].as_row()
                numbers = [_number(row[name]) for name in ("mean_ms", "standard_error_ms", "median_ms", "p95_ms")]
                rows.append([f"({key})", str(users), str(row["requests"]), *numbers, str(row["failures"])])
    columns = ["set-up", "users", "requests", "mean ms", "± (standard error)", "median ms", "p95 ms", "failures"]
    return _markdown(columns, rows)


def _targets(checks: Sequence[Check]) -> str:
    rows = [[each.what, each.target, each.measured, _VERDICTS[each.ok]] for each in checks]
    return _markdown(["what", "target", "measured", "reached"], rows) if rows else "No target applies."


def _document(run: Run, facts: Mapping[str, Any], found: Sequence[Results]) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": " ".join(["python -m benchmarks.article", *sys.argv[1:]]),
        "quick": run.quick,
        "machine": facts,
        "versions": _versions(),
        "published": {"url": published.URL, "mean_s": published.MEANS_S},
        "set_ups": {key: each.label for key, each in SET_UPS.items()},
        "models": {results.key: _results(results) for results in found},
        "commands": _readable(run.commands),
    }


def _results(results: Results) -> dict[str, Any]:
    return {
        "title": results.title,
        "bare_s": results.bare_s,
        "instances": results.chosen,
        "disturbed": results.disturbed,
        "checks": [vars(check) for check in results.checks()],
        "series": [
            {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in row.items()}
            | {"busy": series.busy, "failed_with": sorted(set(series.failures)), "rounds_s": series.rounds}
            for series in results.series.values()
            for row in [series.as_row()]
        ],
    }


def _versions() -> dict[str, str]:
    known = report.versions()
    return {name: known[name] for name in ("python", "commit")} | {name: metadata.version(name) for name in _PACKAGES}


def _readable(commands: Sequence[str]) -> list[str]:
    """With names for the ports and folders of this run: a set-up is started the same way each time."""
    names = {sys.executable: "python", f"{Path(sys.executable).parent}/": "", f"{Path.cwd()}/": ""}
    named = []
    for line in commands:
        for found, name in names.items():
            line = line.replace(found, name)
        named.append(_PORT.sub("PORT", line))
    return list(dict.fromkeys(named))


def _markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _users(number: int) -> str:
    return f"{number} user{'s' * (number > 1)}"


def _ms(seconds: float) -> str:
    return _number(1e3 * seconds)


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _replace(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    partial.rename(path)
