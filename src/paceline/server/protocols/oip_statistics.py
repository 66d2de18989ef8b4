"""What happened to a model's requests, in the field names of Triton's statistics extension.

Rules:
- `success.count` counts requests, `inference_count` rows, `execution_count` batches.
- perf_analyzer reads every one of the eight inner objects, so all are there. Time spent on gathering and
  splitting tensors is part of `compute_infer`; `compute_input` and `compute_output` count requests only.
- There is no response cache: its hits and misses stay 0.
"""

from __future__ import annotations

from typing import Any

from paceline.engine.model import ServedModel


def statistics(model: ServedModel) -> dict[str, Any]:
    """One element of `model_stats`."""
    telemetry = model.telemetry
    computed = telemetry.queue_s.count
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
            "cache_hit": _duration(0, 0.0),
            "cache_miss": _duration(0, 0.0),
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
