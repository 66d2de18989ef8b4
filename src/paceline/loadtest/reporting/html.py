"""How is a load test told in one page? What came of it, how that depends on the load, each step, and all.

The page stands alone: see `reports.page`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime

import msgspec

from paceline.loadtest.reporting import figures
from paceline.loadtest.reporting import table as steps_table
from paceline.loadtest.result import Gate, Result, StepResult
from paceline.reports import page as pages
from paceline.reports.charts import Chart
from paceline.reports.elements import Content, Element, element
from paceline.reports.tables import table
from paceline.reports.units import MILLISECONDS, NUMBER, PER_SECOND, PERCENT, UNKNOWN


def page(result: Result) -> str:
    """The report of a load test: a whole HTML document, readable without a network, dark and light."""
    title = f"Load test of {result.model or result.url}"
    about = (result.url, result.protocol, result.server, _moment(result.created))
    return pages.document(
        title,
        list(_verdicts(result)),
        _facts(result),
        _comparison(result),
        _steps(result),
        _gates(result),
        pages.section("All the numbers", _table(result)) if result.steps else None,
        _origin(result),
        subtitle=" \u00b7 ".join(each for each in about if each),
        footer=f"Measured by Paceline {result.paceline}. Times count from when a request was due. Warm-up is left out.",
    )


def chosen(result: Result) -> StepResult | None:
    """The step that says most: the highest load that met the SLO, else the last."""
    met = [step for step in result.steps if step.slo_met]
    return max(met, key=lambda step: step.rate) if met else result.steps[-1] if result.steps else None


def _moment(created: str) -> str:
    try:
        return f"{datetime.fromisoformat(created):%Y-%m-%d %H:%M %Z}".strip()
    except ValueError:
        return created


def _verdicts(result: Result) -> Iterator[Element]:
    if not result.steps:
        yield pages.callout("warn", "Nothing was measured")
    elif not any(step.latency.count for step in result.steps):
        errors = sum((Counter(step.errors) for step in result.steps), Counter())
        yield pages.callout("bad", "No request succeeded", element("p", steps_table.error_text(errors)))
    if result.capacity:
        yield _capacity(result)
    elif result.slo and result.steps:
        yield _slo(result)
    if result.gates:
        yield _gates_verdict(result.gates)
    in_the_way = steps_table.in_the_way(result)
    if in_the_way:
        title = "The client was in the way: the server may be faster than these numbers"
        yield pages.callout("warn", title, [element("p", each) for each in in_the_way])
    for warning in result.warnings:
        yield pages.callout("warn", warning)


def _capacity(result: Result) -> Element:
    found = result.capacity
    assert found is not None
    promise = f" at {figures.promise(result.slo)}" if result.slo else ""
    if not found.rate:
        return pages.callout("bad", f"No load was carried{promise}", element("p", found.why))
    least = "at least " if found.lower_bound else ""
    return pages.callout("good", f"Capacity: {least}{PER_SECOND.text(found.rate)}{promise}", element("p", found.why))


def _slo(result: Result) -> Element:
    assert result.slo is not None
    met = [step for step in result.steps if step.slo_met]
    promise = figures.promise(result.slo)
    if len(met) == len(result.steps):
        return pages.callout("good", f"{promise} was met" + (" in every step" if len(met) > 1 else ""))
    if not met:
        return pages.callout("bad", f"{promise} was missed" + (" in every step" if len(result.steps) > 1 else ""))
    missed = ", ".join(step.label for step in result.steps if not step.slo_met)
    title = f"{promise} was met in {len(met)} of {len(result.steps)} steps"
    return pages.callout("warn", title, element("p", f"Missed at {missed}."))


def _gates_verdict(gates: Sequence[Gate]) -> Element:
    failed = [gate for gate in gates if not gate.ok]
    title = f"{len(failed)} of {len(gates)} gates failed" if failed else f"All {len(gates)} gates passed"
    why = [element("p", steps_table.gate_text(gate)) for gate in failed]
    return pages.callout("bad" if failed else "good", title, why)


def _facts(result: Result) -> Element | None:
    step = chosen(result)
    if step is None:
        return None
    best = max(result.steps, key=lambda each: each.rate)
    requests = sum(each.requests for each in result.steps)
    failed = sum(each.failed for each in result.steps)
    facts = [
        ("p50", MILLISECONDS.text(step.latency.p50_ms), f"at {step.label}"),
        ("p99", MILLISECONDS.text(step.latency.p99_ms), f"at {step.label}"),
        ("most answers", PER_SECOND.text(best.rate), f"at {best.label}"),
        ("failed", PERCENT.text(failed / requests) if requests else UNKNOWN, f"{failed:,} of {requests:,} requests"),
    ]
    if result.capacity and result.capacity.rate:
        facts.insert(0, ("capacity", PER_SECOND.text(result.capacity.rate), "of the offered rates"))
    elif step.goodput is not None:
        facts.insert(2, ("goodput", PER_SECOND.text(step.goodput), f"at {step.label}"))
    return pages.facts(facts)


def _comparison(result: Result) -> Element | None:
    charts = [
        figures.response_time(result),
        figures.throughput(result),
        figures.server_times(result),
        figures.batch_growth(result),
        figures.tails(result),
    ]
    return pages.section("By load", _cards(charts)) if any(charts) else None


def _steps(result: Result) -> Element | None:
    if not result.steps:
        return None
    if len(result.steps) == 1:
        return pages.section(f"At {result.steps[0].label}", _step(result, result.steps[0]))
    opened = chosen(result)
    parts = [
        pages.details(step.label, _step(result, step), is_open=step is opened, note=_brief(step))
        for step in result.steps
    ]
    return pages.section("Step by step", parts)


def _step(result: Result, step: StepResult) -> Element:
    charts = [
        figures.distribution(step),
        figures.time_line(step, result.slo),
        figures.batches(step),
        figures.split(step),
        figures.errors(step),
    ]
    return _cards(charts)


def _cards(charts: list[Chart | None]) -> Element:
    return pages.cards(*(chart.figure() for chart in charts if chart))


def _brief(step: StepResult) -> str:
    parts = [f"{PER_SECOND.text(step.rate)} answered", f"p50 {MILLISECONDS.text(step.latency.p50_ms)}"]
    parts.append(f"p99 {MILLISECONDS.text(step.latency.p99_ms)}")
    if step.failed:
        parts.append(f"{step.failed:,} failed")
    if step.slo_met is not None:
        parts.append("SLO met" if step.slo_met else "SLO missed")
    return ", ".join(parts)


def _gates(result: Result) -> Element | None:
    if not result.gates:
        return None
    rows: list[list[Content]] = [
        [_verdict(gate), gate.rule, gate.label, NUMBER.text(gate.before), NUMBER.text(gate.now), gate.why]
        for gate in result.gates
    ]
    header = ("verdict", "rule", "load", "before", "now", "why")
    return pages.section("Gates", table(header, rows, texts=(0, 1, 2, 5)))


def _verdict(gate: Gate) -> Element:
    return element("span", "passed" if gate.ok else "failed", class_="good-text" if gate.ok else "bad-text")


def _table(result: Result) -> Element:
    """All the steps: what the other reports say of them, and what only a page has room for."""
    header = [*steps_table.columns(result), "requests", "offered", "sent late p99"]
    rows = [[*row, *_more(step)] for row, step in zip(steps_table.rows(result), result.steps, strict=True)]
    return table(header, rows)


def _more(step: StepResult) -> tuple[str, str, str]:
    late = MILLISECONDS.text(step.client.late_p99_ms)
    return f"{step.requests:,}", PER_SECOND.text(step.offered_rate), late


def _origin(result: Result) -> Element:
    known = {
        "URL": result.url,
        "protocol": result.protocol,
        "model": result.model,
        "server": result.server,
        "rows in a request": str(result.rows),
        "sent by": result.engine,
        "measured": result.created,
        **{f"client: {name}": str(value) for name, value in result.machine.items()},
    }
    return pages.section(
        "Where this comes from",
        pages.code(result.command),
        pages.card("Test and machine", pages.pairs((name, value) for name, value in known.items() if value)),
        element(
            "p", pages.download("The numbers as JSON", "result.json", msgspec.json.encode(result), "application/json")
        ),
    )
