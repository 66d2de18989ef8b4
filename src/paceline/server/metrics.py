"""Prometheus text, made when somebody asks for it."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterator

from paceline import __version__
from paceline.core.stats import Histogram
from paceline.engine.engine import Entry, Phase
from paceline.engine.model import ServedModel
from paceline.server.app import App

_HISTOGRAMS = (
    ("paceline_queue_delay_seconds", "Arrival to batch start, per request.", "queue_s"),
    ("paceline_service_time_seconds", "One batch run.", "service_s"),
    (
        "paceline_latency_seconds",
        "Last byte of the request to the response written, per request.",
        "latency_s",
    ),
    ("paceline_batch_rows", "Rows per batch.", "batch_rows"),
)


def exposition(app: App) -> bytes:
    """Every metric of the server, as Prometheus reads it."""
    lines: list[str] = []
    entries = app.engine.entries()
    lines += _process(app)
    lines += _states(entries)
    served = [entry for entry in entries if entry.served is not None]
    lines += _counters(served)
    for name, text, attribute in _HISTOGRAMS:
        lines += _head(name, "histogram", text)
        for entry in served:
            assert entry.served is not None
            lines += _histogram(name, _labels(entry), getattr(entry.served.telemetry, attribute))
    return ("\n".join(lines) + "\n").encode()


def _process(app: App) -> Iterator[str]:
    yield from _head("paceline_info", "gauge", "Version of the server.")
    yield f'paceline_info{{version="{__version__}"}} 1'
    yield from _head("paceline_ready", "gauge", "1 when every model is warm and the server is not draining.")
    yield f"paceline_ready {int(app.engine.ready and not app.draining)}"
    yield from _head("paceline_connections", "gauge", "Open connections.")
    yield f"paceline_connections {len(app.connections)}"
    yield from _head("paceline_malformed_requests_total", "counter", "Requests refused by the wire itself.")
    yield f"paceline_malformed_requests_total {app.refused}"
    yield from _head("process_resident_memory_bytes", "gauge", "Resident memory.")
    yield f"process_resident_memory_bytes {_resident_bytes()}"
    yield from _head("process_cpu_seconds_total", "counter", "User and system time.")
    usage = resource.getrusage(resource.RUSAGE_SELF)
    yield f"process_cpu_seconds_total {usage.ru_utime + usage.ru_stime:.3f}"


def _states(entries: list[Entry]) -> Iterator[str]:
    yield from _head("paceline_model_ready", "gauge", "1 when the model is warm.")
    for entry in entries:
        yield f"paceline_model_ready{{{_labels(entry)}}} {int(entry.phase is Phase.AVAILABLE)}"


def _counters(served: list[Entry]) -> Iterator[str]:
    models = [(_labels(entry), entry.served) for entry in served if entry.served is not None]
    yield from _head("paceline_requests_total", "counter", "Ended requests by protocol and outcome.")
    for labels, model in models:
        for (protocol, outcome), count in sorted(model.telemetry.requests.items()):
            yield f'paceline_requests_total{{{labels},protocol="{protocol}",outcome="{outcome}"}} {count}'
    yield from _head("paceline_rejected_total", "counter", "Requests refused on arrival, by reason.")
    for labels, model in models:
        for reason, count in sorted(model.telemetry.rejected.items()):
            yield f'paceline_rejected_total{{{labels},reason="{reason}"}} {count}'
    yield from _head("paceline_rows_total", "counter", "Rows that ran.")
    for labels, model in models:
        yield f"paceline_rows_total{{{labels}}} {model.telemetry.rows}"
    gauges: tuple[tuple[str, str, Callable[[ServedModel], float]], ...] = (
        ("paceline_instances", "Loaded copies of the model.", lambda m: m.scheduler.policy.instances),
        ("paceline_queued_requests", "Requests that wait.", lambda m: m.queued_requests),
        ("paceline_queued_rows", "Rows that wait.", lambda m: m.queued_rows),
        ("paceline_running_batches", "Batches that run now.", lambda m: m.scheduler.running_batches),
        (
            "paceline_latency_model_residual",
            "Relative error of the predicted service time, running mean.",
            lambda m: round(m.latency.residual, 6),
        ),
        (
            "paceline_latency_model_restarts",
            "How often the service times drifted so far that the estimate began anew.",
            lambda m: m.latency.restarts,
        ),
    )
    for name, text, value in gauges:
        yield from _head(name, "gauge", text)
        for labels, model in models:
            yield f"{name}{{{labels}}} {value(model)}"


def _head(name: str, kind: str, text: str) -> Iterator[str]:
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} {kind}"


def _histogram(name: str, labels: str, histogram: Histogram) -> Iterator[str]:
    total = 0
    for bound, count in zip((*histogram.bounds, "+Inf"), histogram.counts, strict=True):
        total += count
        shown = bound if isinstance(bound, str) else f"{bound:g}"
        yield f'{name}_bucket{{{labels},le="{shown}"}} {total}'
    yield f"{name}_sum{{{labels}}} {histogram.sum:.9g}"
    yield f"{name}_count{{{labels}}} {total}"


def _labels(entry: Entry) -> str:
    # Names are checked at start to hold nothing that needs escaping.
    return f'model="{entry.name}",version="{entry.version}"'


def _resident_bytes() -> int:
    try:
        with open("/proc/self/statm", encoding="ascii") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGESIZE")
    except OSError:  # not Linux: the peak is the nearest thing
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
