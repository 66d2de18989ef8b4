"""Prometheus text, made when somebody asks for it; with replicas, of all of them."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from paceline import __version__
from paceline.core.stats import Histogram
from paceline.engine.engine import Entry, Phase
from paceline.engine.hosted import HostedModel
from paceline.engine.items import ItemsModel
from paceline.engine.model import ServedModel
from paceline.engine.pool import REASONS
from paceline.engine.prediction_cache import Counted
from paceline.server.app import App
from paceline.server.supervised import Answer, Supervised
from paceline.supervisor.lines import Document
from paceline.supervisor.merging import METRICS, Families, Family, merged, of_replica, of_the_past

Samples = Iterable[tuple[str, str, float]]
"""Suffix of the name, labels, value."""

_HISTOGRAMS: Final = (
    ("paceline_queue_delay_seconds", "Arrival to batch start, per request.", "queue_s"),
    ("paceline_service_time_seconds", "One batch run.", "service_s"),
    ("paceline_latency_seconds", "Last byte of the request to the response written, per request.", "latency_s"),
    ("paceline_batch_rows", "Rows per batch.", "batch_rows"),
)
_GAUGES: Final[tuple[tuple[str, str, str, Callable[[ServedModel], float]], ...]] = (
    ("paceline_instances", "Loaded copies of the model.", "sum", lambda m: m.scheduler.policy.instances),
    ("paceline_queued_requests", "Requests that wait.", "sum", lambda m: m.queued_requests),
    ("paceline_queued_rows", "Rows that wait.", "sum", lambda m: m.queued_rows),
    ("paceline_running_batches", "Batches that run now.", "sum", lambda m: m.scheduler.running_batches),
    (
        "paceline_latency_model_residual",
        "Relative error of the predicted service time, running mean.",
        "max",
        lambda m: round(m.latency.residual, 6),
    ),
    (
        "paceline_latency_model_restarts",
        "How often the service times drifted so far that the estimate began anew.",
        "sum",
        lambda m: m.latency.restarts,
    ),
)


def exposition(app: App) -> bytes:
    """Every metric of this process, as Prometheus reads it."""
    return _rendered(families(app))


async def of_all_replicas(app: App, supervised: Supervised) -> bytes:
    """The metrics of all replicas, made into those of one server."""
    own = families(app)
    answers, state = await supervised.ask(METRICS, counted=of_the_past(own))
    every = sorted([*answers, Answer(supervised.slot, supervised.leaving, own)], key=lambda each: each[:2])
    counted = [
        # Of one that has a successor only what it has counted: the successor is there in its place.
        of_the_past(each.said) if each.leaving else of_replica(each.said, each.slot)
        for each in every
        if each.said is not None
    ]
    return _rendered([*merged([*counted, state.get("past", [])]), *_replicas(supervised, every, state)])


def families(app: App) -> Families:
    """Every metric of this process, as data."""
    entries = app.engine.entries()
    return [*_process(app), *_states(app, entries), *_models([entry for entry in entries if entry.served is not None])]


def _process(app: App) -> Iterator[Family]:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    cpu_s = round(usage.ru_utime + usage.ru_stime, 3)
    yield _family("paceline_info", "gauge", "Version of the server.", "max", [("", f'version="{__version__}"', 1)])
    ready = [("", "", int(app.ready))]
    yield _family("paceline_ready", "gauge", "1 when every model is warm and the server is not draining.", "min", ready)
    yield _family("paceline_connections", "gauge", "Open connections.", "sum", [("", "", len(app.connections))])
    refused = [("", "", app.refused)]
    yield _family(
        "paceline_malformed_requests_total", "counter", "Requests refused by the wire itself.", "sum", refused
    )
    memory = [("", "", _resident_bytes())]
    yield _family("process_resident_memory_bytes", "gauge", "Resident memory.", "replica", memory)
    yield _family("process_cpu_seconds_total", "counter", "User and system time.", "replica", [("", "", cpu_s)])


def _states(app: App, entries: list[Entry]) -> Iterator[Family]:
    ready = [("", _labels(entry), int(entry.phase is Phase.AVAILABLE)) for entry in entries]
    yield _family("paceline_model_ready", "gauge", "1 when the model is warm.", "min", ready)
    loads = [
        ("", f'model="{model}",outcome="{outcome}"', count)
        for (model, outcome), count in sorted(app.engine.loads.items())
    ]
    yield _family("paceline_model_loads_total", "counter", "Versions that were loaded, or failed to.", "sum", loads)


def _models(served: list[Entry]) -> Iterator[Family]:
    models = [(_labels(entry), entry.served) for entry in served if entry.served is not None]
    requests = [
        ("", f'{labels},protocol="{protocol}",outcome="{outcome}"', count)
        for labels, model in models
        for (protocol, outcome), count in sorted(model.telemetry.requests.items())
    ]
    yield _family("paceline_requests_total", "counter", "Ended requests by protocol and outcome.", "sum", requests)
    rejected = [
        ("", f'{labels},reason="{reason}"', count)
        for labels, model in models
        for reason, count in sorted(model.telemetry.rejected.items())
    ]
    yield _family("paceline_rejected_total", "counter", "Requests refused on arrival, by reason.", "sum", rejected)
    rows = [("", labels, model.telemetry.rows) for labels, model in models]
    yield _family("paceline_rows_total", "counter", "Rows that ran.", "sum", rows)
    for name, text, merge, value in _GAUGES:
        yield _family(name, "gauge", text, merge, [("", labels, value(model)) for labels, model in models])
    yield from _workers(models)
    yield from _reuse([(labels, model) for labels, model in models if isinstance(model, ItemsModel)])
    for name, text, attribute in _HISTOGRAMS:
        samples = [
            sample for labels, model in models for sample in _histogram(labels, getattr(model.telemetry, attribute))
        ]
        yield _family(name, "histogram", text, "sum", samples)


_CACHES: Final[tuple[tuple[str, str, str, Callable[[Counted], int]], ...]] = (
    ("paceline_cache_hits_total", "counter", "Items whose prediction was kept.", lambda cache: cache.hits),
    ("paceline_cache_misses_total", "counter", "Items whose prediction was not kept.", lambda cache: cache.misses),
    ("paceline_cache_errors_total", "counter", "Times that Redis did not answer.", lambda cache: cache.errors),
    ("paceline_cache_bytes", "gauge", "What kept predictions take in this process.", lambda cache: cache.size_bytes),
    ("paceline_cache_entries", "gauge", "Predictions kept in this process.", lambda cache: cache.entries),
)


def _reuse(models: list[tuple[str, ItemsModel]]) -> Iterator[Family]:
    shared = [("", labels, model.shared_rows) for labels, model in models]
    text = "Rows that did not run because an equal item was under way."
    yield _family("paceline_shared_rows_total", "counter", text, "sum", shared)
    caches = [(labels, model.cache) for labels, model in models]
    for name, kind, text, value in _CACHES:
        samples = [("", labels, value(cache)) for labels, cache in caches if cache is not None]
        yield _family(name, kind, text, "sum", samples)


def _workers(models: list[tuple[str, ServedModel]]) -> Iterator[Family]:
    hosted = [(labels, model) for labels, model in models if isinstance(model, HostedModel)]
    alive = [("", labels, model.pool.alive) for labels, model in hosted]
    yield _family("paceline_workers", "gauge", "Worker processes that take batches.", "sum", alive)
    restarts = [
        ("", f'{labels},reason="{reason}"', model.telemetry.restarts[reason])
        for labels, model in hosted
        for reason in REASONS
    ]
    text = "Workers that had to be replaced, by reason."
    yield _family("paceline_worker_restarts_total", "counter", text, "sum", restarts)
    memory = [
        ("", f'{labels},worker="{place}"', size)
        for labels, model in hosted
        for place, size in model.pool.memory_bytes.items()
    ]
    text = "Resident memory of a worker, by its place."
    yield _family("paceline_worker_resident_memory_bytes", "gauge", text, "replica", memory)
    held = [("", labels, len(model.quarantine)) for labels, model in hosted]
    text = "Rows that are not run any more, because workers died of them."
    yield _family("paceline_quarantined_rows", "gauge", text, "sum", held)


def _replicas(supervised: Supervised, answers: Iterable[Answer], state: Document) -> Iterator[Family]:
    heard = {each.slot for each in answers if each.said is not None and not each.leaving}
    up = [("", f'replica="{slot}"', int(slot in heard)) for slot in range(supervised.replicas)]
    text = "1 when the replica answered for these metrics; what it counted is missing otherwise."
    yield _family("paceline_replica_up", "gauge", text, "max", up)
    restarts = [("", f'replica="{slot}"', count) for slot, count in enumerate(state.get("restarts", []))]
    yield _family(
        "paceline_replica_restarts_total", "counter", "How often a replica died and was replaced.", "sum", restarts
    )


def _family(name: str, kind: str, text: str, merge: str, samples: Samples) -> Family:
    return {"name": name, "kind": kind, "help": text, "merge": merge, "samples": [list(each) for each in samples]}


def _histogram(labels: str, histogram: Histogram) -> Iterator[tuple[str, str, float]]:
    total = 0
    for bound, count in zip((*histogram.bounds, "+Inf"), histogram.counts, strict=True):
        total += count
        shown = bound if isinstance(bound, str) else f"{bound:g}"
        yield "_bucket", f'{labels},le="{shown}"', total
    yield "_sum", labels, float(f"{histogram.sum:.9g}")
    yield "_count", labels, total


def _rendered(found: Families) -> bytes:
    lines: list[str] = []
    for family in found:
        name = family["name"]
        lines += (f"# HELP {name} {family['help']}", f"# TYPE {name} {family['kind']}")
        for suffix, labels, value in family["samples"]:
            lines.append(f"{name}{suffix}{{{labels}}} {value}" if labels else f"{name}{suffix} {value}")
    return ("\n".join(lines) + "\n").encode()


def _labels(entry: Entry) -> str:
    # Names are checked at start to hold nothing that needs escaping.
    return f'model="{entry.name}",version="{entry.version}"'


def _resident_bytes() -> int:
    try:
        with open("/proc/self/statm", encoding="ascii") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGESIZE")
    except OSError:  # not Linux: the peak is the nearest thing
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
