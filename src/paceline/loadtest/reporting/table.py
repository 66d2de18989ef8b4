"""What stands in the table of steps, and in the sentences about it, in every kind of report?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from paceline.loadtest.result import Gate, Latency, Result, StepResult
from paceline.reports.units import COUNT, MILLISECONDS, PER_SECOND, PERCENT

_MOST_STEPS: Final = 3


def columns(result: Result) -> list[str]:
    """The headings; the first column is text, the others are numbers. What no step knows has none."""
    return [column.heading for column in _COLUMNS if column.is_shown(result)]


def rows(result: Result) -> list[list[str]]:
    """A row for each step, in the order of `columns`."""
    shown = [column for column in _COLUMNS if column.is_shown(result)]
    return [[column.of(step) for column in shown] for step in result.steps]


def headline(result: Result) -> list[str]:
    """What was found, a sentence each: capacity, then the promise, then gates."""
    said = []
    if result.capacity is not None:
        said.append(_capacity(result))
    elif result.slo is not None and result.steps:
        met = ", ".join(step.label for step in result.steps if step.slo_met)
        said.append(f"{slo_text(result)}: {f'met by {met}' if met else 'not met by any step'}")
    failed = [gate for gate in result.gates if not gate.ok]
    if result.gates:
        said.append(f"gates: {len(failed)} of {len(result.gates)} failed" if failed else "gates: all passed")
    return said


def gate_text(gate: Gate) -> str:
    """One gate on one line, without its verdict."""
    return f"{gate.rule}{f', {gate.label}' if gate.label else ''}: {gate.why}"


def slo_text(result: Result) -> str:
    """Such as "p99 at most 50 ms"; "" without an SLO."""
    slo = result.slo
    return f"p{slo.percentile:g} at most {MILLISECONDS.text(slo.latency_ms)}" if slo is not None else ""


def error_text(errors: Mapping[str, int]) -> str:
    """Such as "12 status 503, 1 timeout"."""
    return ", ".join(f"{COUNT.text(count)} {kind}" for kind, count in errors.items())


def in_the_way(result: Result) -> list[str]:
    """Where the numbers say more of the client than of the server; a search has many such steps."""
    said = [f"{step.label}: {step.client.bottleneck}" for step in result.steps if step.client.bottleneck]
    further = len(said) - _MOST_STEPS
    return said if further <= 0 else [*said[:_MOST_STEPS], f"the client was in the way of {further} further steps"]


def _capacity(result: Result) -> str:
    found = result.capacity
    assert found is not None
    if not found.rate:
        return f"capacity: no rate kept {slo_text(result)} ({found.why})"
    least = "at least " if found.lower_bound else ""
    good = f", goodput {PER_SECOND.text(found.goodput)}" if found.goodput is not None else ""
    return f"capacity: {least}{PER_SECOND.text(found.rate)} with {slo_text(result)}{good} ({found.why})"


class _Column(NamedTuple):
    heading: str
    of: Callable[[StepResult], str]
    is_shown: Callable[[Result], bool] = lambda _: True


def _has(get: Callable[[StepResult], object]) -> Callable[[Result], bool]:
    return lambda result: any(get(step) for step in result.steps)


def _time(get: Callable[[StepResult], Latency | None], percentile: str = "p50_ms") -> Callable[[StepResult], str]:
    return lambda step: MILLISECONDS.text(getattr(get(step), percentile, None))


def _batch(step: StepResult) -> str:
    mean = step.mean_batch_rows
    return f"{mean:.3g}" if mean else ""


def _kept(step: StepResult) -> str:
    return {None: "", True: "met", False: "missed"}[step.slo_met]


_COLUMNS: Final = (
    _Column("load", lambda step: step.label),
    _Column("answered", lambda step: PER_SECOND.text(step.rate)),
    _Column("rows", lambda step: PER_SECOND.text(step.rows_per_s), lambda result: result.rows > 1),
    _Column("p50", _time(lambda step: step.latency)),
    _Column("p90", _time(lambda step: step.latency, "p90_ms")),
    _Column("p95", _time(lambda step: step.latency, "p95_ms")),
    _Column("p99", _time(lambda step: step.latency, "p99_ms")),
    _Column("p99.9", _time(lambda step: step.latency, "p999_ms")),
    _Column("max", _time(lambda step: step.latency, "max_ms")),
    _Column("queue p50", _time(lambda step: step.queue), _has(lambda step: step.queue)),
    _Column("infer p50", _time(lambda step: step.infer), _has(lambda step: step.infer)),
    _Column("batch", _batch, _has(lambda step: step.batch_rows)),
    _Column("goodput", lambda step: PER_SECOND.text(step.goodput), lambda result: result.slo is not None),
    _Column("SLO", _kept, lambda result: result.slo is not None),
    _Column("failed", lambda step: COUNT.text(step.failed)),
    _Column("client CPU", lambda step: PERCENT.text(step.client.cpu)),
)
