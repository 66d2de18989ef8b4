"""What the operator sees on stderr at start: the model, each chosen number and why, the addresses, a curl."""

from __future__ import annotations

import sys

from paceline.config.machine import Cores
from paceline.config.settings import ServeSettings
from paceline.core.errors import PacelineError
from paceline.core.tensors import TensorSpec
from paceline.engine.engine import Entry
from paceline.engine.warmup import Prepared
from paceline.server.protocols.plain import Codec, example_body


def show_live(name: str, address: str, settings: ServeSettings) -> None:
    """Say that the port is open."""
    _print(f"paceline: live on http://{address} (host: {settings.origin('host')}), warming up '{name}'")


def show_failed(name: str, error: PacelineError) -> None:
    """Say why the model will not become ready."""
    _print(f"paceline: '{name}' is not ready: {error}")
    if error.hint:
        _print(f"hint: {error.hint}")


def show_ready(
    entry: Entry, prepared: Prepared, cores: Cores, address: str, seconds: float, settings: ServeSettings
) -> None:
    """Show the panel."""
    reasons = prepared.reasons
    lines = [
        ("model", f"{entry.name} version {entry.version} ({entry.platform})"),
        *[("input", _spec(spec)) for spec in prepared.signature.inputs],
        *[("output", _spec(spec)) for spec in prepared.signature.outputs],
        ("cores", f"{cores.whole}: {cores.why}"),
        ("instances", f"{len(prepared.instances)}: {reasons['instances']}"),
        ("threads", f"{prepared.threads} each: {reasons['threads']}"),
        ("batching", reasons.get("batching", "on")),
        ("batch size", f"up to {prepared.max_batch_rows} rows: {reasons['max_batch_size']}"),
        ("queue delay", "none: a batch is what has come while the last one ran"),
        (
            "service time",
            ", ".join(f"{rows}: {_time(s)}" for rows, s in _few(prepared.profile)) + " (rows: time)",
        ),
        ("deadline", f"{settings.timeout_ms / 1000:g} s a request ({settings.origin('timeout_ms')})"),
        ("ready after", f"{seconds:.2f} s"),
    ]
    width = max(len(label) for label, _ in lines)
    for label, text in lines:
        _print(f"  {label:<{width}}  {text}")
    body = example_body(Codec(prepared.signature), prepared.example)
    _print(f"try:  curl -s http://{address}/predict -H 'content-type: application/json' -d '{body}'")
    _print(f"      http://{address}/docs  has a page to try it on")


def _few(profile: list[tuple[int, float]]) -> list[tuple[int, float]]:
    return profile if len(profile) <= 4 else [profile[0], profile[len(profile) // 2], profile[-1]]


def _time(seconds: float) -> str:
    return f"{seconds * 1e3:.1f} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.0f} us"


def _spec(spec: TensorSpec) -> str:
    return f"{spec.name} {spec.datatype.label} [{', '.join(str(size) for size in spec.shape)}]"


def _print(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
