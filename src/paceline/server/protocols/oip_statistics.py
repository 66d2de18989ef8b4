"""What happened to a model's requests, in the field names of Triton's statistics extension.

Rules:
- `success.count` counts requests, `inference_count` rows, `execution_count` batches.
- perf_analyzer reads every one of the eight inner objects, so all are there. Time spent on gathering and
  splitting tensors is part of `compute_infer`; `compute_input` and `compute_output` count requests only.
- Hits and misses of the cache count items, where predictions of items are kept; looking for one is not timed.
- With replicas, numbers are sums over all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from paceline.engine.items import ItemsModel
from paceline.engine.model import ServedModel
from paceline.server.app import App

_TOPIC: Final = "statistics"
Statistics = dict[str, Any]


async def of_all_replicas(app: App, models: Sequence[ServedModel]) -> list[Statistics]:
    """The statistics of models, as all replicas together have counted."""
    own = [statistics(model) for model in models]
    if app.supervised is None:
        return own
    names = [[model.name, model.version] for model in models]
    answers, _ = await app.supervised.ask(_TOPIC, names)
    others = [one for answer in answers for one in answer.said or ()]
    return [_summed(each, [other for other in others if _same(each, other)]) for each in own]


def answer_replicas(app: App) -> None:
    """Tell the other replicas what this one has counted, when they ask."""

    async def answer(names: list[list[str]]) -> list[Statistics]:
        served = [entry.served for entry in app.engine.entries() if [entry.name, entry.version] in names]
        return [statistics(model) for model in served if model is not None]

    if app.supervised is not None:
        app.supervised.answers(_TOPIC, answer)


def statistics(model: ServedModel) -> dict[str, Any]:
    """One element of `model_stats`."""
    telemetry = model.telemetry
    computed = telemetry.queue_s.count
    cache = model.cache if isinstance(model, ItemsModel) else None
    return {
        "name": model.name,
        "version": model.version,
        "last_inference": int(telemetry.last_inference * 1000),
        "inference_count": telemetry.rows,
        "execution_count": telemetry.batches,
        "inference_stats": {
            "success": _duration(telemetry.succeeded, telemetry.latency_s.sum),
            "fail": _duration(telemetry.failed, telemetry.failed_s),
            "queue": _duration(computed, telemetry.queue_s.sum),
            "compute_input": _duration(computed, 0.0),
            "compute_infer": _duration(computed, telemetry.infer_s),
            "compute_output": _duration(computed, 0.0),
            "cache_hit": _duration(0 if cache is None else cache.hits, 0.0),
            "cache_miss": _duration(0 if cache is None else cache.misses, 0.0),
        },
        "response_stats": {},
        "batch_stats": [
            _batches(rows, int(count), seconds) for rows, (count, seconds) in sorted(telemetry.batch_service.items())
        ],
        "memory_usage": [],
    }


def _batches(rows: int, count: int, seconds: float) -> dict[str, Any]:
    return {
        "batch_size": rows,
        "compute_input": _duration(count, 0.0),
        "compute_infer": _duration(count, seconds),
        "compute_output": _duration(count, 0.0),
    }


def _duration(count: int, seconds: float) -> dict[str, int]:
    return {"count": count, "ns": round(seconds * 1e9)}


def _same(one: Statistics, other: Statistics) -> bool:
    return (one["name"], one["version"]) == (other["name"], other["version"])


def _summed(own: Statistics, others: Sequence[Statistics]) -> Statistics:
    if not others:
        return own
    every = [own, *others]
    sizes = sorted({each["batch_size"] for one in every for each in one["batch_stats"]})
    by_size = [[each for one in every for each in one["batch_stats"] if each["batch_size"] == size] for size in sizes]
    return {
        **own,
        "last_inference": max(each["last_inference"] for each in every),
        "inference_count": sum(each["inference_count"] for each in every),
        "execution_count": sum(each["execution_count"] for each in every),
        "inference_stats": _sum_of_durations([each["inference_stats"] for each in every]),
        "batch_stats": [
            {"batch_size": size, **_sum_of_durations([_durations(each) for each in several])}
            for size, several in zip(sizes, by_size, strict=True)
        ],
    }


def _durations(batches: Statistics) -> Statistics:
    return {name: value for name, value in batches.items() if name != "batch_size"}


def _sum_of_durations(several: Sequence[dict[str, dict[str, int]]]) -> dict[str, dict[str, int]]:
    return {name: {unit: sum(each[name][unit] for each in several) for unit in ("count", "ns")} for name in several[0]}
