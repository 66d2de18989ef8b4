"""What the operator sees on stderr at start: the model, each chosen number and why, the addresses, a curl.

Rules:
- Plain text in columns, so that a log file holds the same as a terminal. Colour only on a terminal, and not
  against NO_COLOR. (A table drawn with rich costs 30 ms more from start to ready.)
- The curl is one line that any shell runs as it stands. An example too long to read is fetched from the server.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, Final

import orjson

from paceline.config.machine import Cores
from paceline.config.setting import without_password
from paceline.config.settings import ServeSettings
from paceline.core.errors import PacelineError
from paceline.core.tensors import TensorSpec
from paceline.engine.engine import Entry
from paceline.engine.service_warmup import PreparedService
from paceline.engine.warmup import Prepared
from paceline.server.example_bodies import NO_EXAMPLE, ExampleBodies

_LONGEST_INLINE: Final = 300
# What a shell may read as more than itself, even between single quotes: fish's backslash, csh's history.
_UNSAFE: Final = frozenset("'\\!")
_ANYWHERE: Final = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}
_BOLD, _DIM, _BLUE = "1", "2", "36"

Line = tuple[str, str, str]
"""What it is, its value, and why."""


def show_live(names: Sequence[str], address: str, settings: ServeSettings) -> None:
    """Say that the port is open."""
    what = f"'{names[0]}'" if len(names) == 1 else f"{len(names)} models"
    _print(f"paceline: live on http://{address} (host: {settings.origin('host')}), warming up {what}")


def show_line(text: str) -> None:
    """Say one thing that happened."""
    _print(f"paceline: {text}")


def show_fewer_connections(connections: int, settings: ServeSettings) -> None:
    """Say that the operating system allows fewer connections than are configured."""
    wanted = f"max_connections is {settings.max_connections} ({settings.origin('max_connections')})"
    _print(f"paceline: at most {connections} connections: the limit of open files allows no more; {wanted}")
    _print("hint: raise the hard limit (ulimit -Hn), or lower max_connections")


def show_failed(name: str, error: PacelineError) -> None:
    """Say why the model will not become ready."""
    _print(f"paceline: '{name}' is not ready: {error}")
    if error.hint:
        _print(f"hint: {error.hint}")
    _print("paceline: the server stays up, and not ready, until it is stopped")


def show_ready(
    entry: Entry, prepared: Prepared, cores: Cores, address: str, seconds: float, settings: ServeSettings
) -> None:
    """Show the panel."""
    url = _url(address)
    lines = [*_code(prepared), *_bundle(entry), *_signature(prepared), *_settings(prepared, cores, settings)]
    blocks = [
        f"{_styled(_BOLD, entry.name)}  version {entry.version}, {entry.platform}, ready after {seconds:.2f} s",
        _columns(lines),
        _columns(
            [
                ("try it", _styled(_BLUE, f"{url}/docs"), ""),
                ("metrics", _styled(_BLUE, f"{url}/metrics"), ""),
            ]
        ),
        curl(url, ExampleBodies(prepared.signature, prepared.example).predict()),
        NO_EXAMPLE if prepared.signature.items and not prepared.example else "",
    ]
    _print("\n" + "\n\n".join(_indented(block) for block in blocks if block) + "\n")


def show_models_ready(
    entries: Sequence[Entry], cores: Cores, address: str, seconds: float, settings: ServeSettings
) -> None:
    """Show a panel with one line for each version of each model."""
    url = _url(address)
    lines = [(f"{entry.name} {entry.version}", *_summary(entry)) for entry in entries]
    served = sum(entry.served is not None for entry in entries)
    said = {"explicit": "by request", "none": "as they were at the start"}
    changes = said.get(settings.model_control_mode, f"watched every {settings.repository_poll_s:g} s")
    blocks = [
        f"{_styled(_BOLD, f'{served} of {len(entries)}')} versions ready after {seconds:.2f} s; changes: {changes}",
        _columns(lines) if lines else "",
        _columns(
            [
                ("cores", str(cores.whole), f"{cores.why}; models share them"),
                ("try it", _styled(_BLUE, f"{url}/docs"), ""),
                ("metrics", _styled(_BLUE, f"{url}/metrics"), ""),
            ]
        ),
    ]
    _print("\n" + "\n\n".join(_indented(block) for block in blocks if block) + "\n")


def write_models_ready(
    entries: Sequence[Entry], cores: Cores, address: str, seconds: float, settings: ServeSettings
) -> None:
    """Write what the panel shows of several models to stdout, as one JSON document on one line."""
    models = [_model(entry, entry.served.prepared, cores, settings) for entry in entries if entry.served is not None]
    failed = [
        {"model": entry.name, "version": entry.version, "reason": entry.reason}
        for entry in entries
        if entry.served is None
    ]
    _write({"url": _url(address), "models": models, "failed": failed, "ready_s": round(seconds, 3)})


def write_ready(
    entry: Entry, prepared: Prepared, cores: Cores, address: str, seconds: float, settings: ServeSettings
) -> None:
    """Write what the panel shows to stdout, as one JSON document on one line."""
    document = {"url": _url(address), **_model(entry, prepared, cores, settings), "ready_s": round(seconds, 3)}
    _write(document)


def _model(entry: Entry, prepared: Prepared, cores: Cores, settings: ServeSettings) -> dict[str, Any]:
    batching, _, why = prepared.reasons.get("batching", "on").partition(": ")
    return {
        "model": entry.name,
        "version": entry.version,
        "platform": entry.platform,
        **({"code": _says(prepared)} if _says(prepared) else {}),
        **({"bundle": entry.bundle} if entry.bundle else {}),
        **({"warnings": list(entry.warnings)} if entry.warnings else {}),
        "inputs": [_described(spec) for spec in prepared.signature.inputs],
        "outputs": [_described(spec) for spec in prepared.signature.outputs],
        "settings": {
            "batching": _chosen(batching, why),
            "max_batch_size": _chosen(prepared.max_batch_rows, prepared.reasons["max_batch_size"]),
            "instances": _chosen(len(prepared.instances), prepared.reasons["instances"]),
            "threads": _chosen(prepared.threads, prepared.reasons["threads"]),
            "cores": _chosen(cores.whole, cores.why),
            "timeout_ms": _chosen(settings.timeout_ms, settings.origin("timeout_ms")),
        },
    }


def _summary(entry: Entry) -> tuple[str, str]:
    if entry.served is None:
        return entry.phase.value if entry.phase.value != "END" else "failed", entry.reason
    prepared = entry.served.prepared
    split = f"{len(prepared.instances)} x {prepared.threads}, up to {prepared.max_batch_rows} rows"
    delay_s = entry.served.scheduler.policy.max_queue_delay_s
    if delay_s:
        split += f" within {delay_s * 1e3:g} ms"
    return split, prepared.reasons["instances"]


def _write(document: dict[str, Any]) -> None:
    with suppress(OSError):  # whoever started the server may have gone; its clients have not
        os.write(1, orjson.dumps(document) + b"\n")


def _described(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype.label, "shape": list(spec.shape)}


def _chosen(value: int | str, reason: str) -> dict[str, Any]:
    return {"value": value, "reason": reason}


def curl(url: str, example: bytes | None) -> str:
    """One line that sends the example; empty when JSON cannot carry it."""
    if example is None:
        return ""
    # zsh takes the brackets of an IPv6 address for a pattern.
    quote = "'" if "[" in url else ""
    post = f"curl -s {quote}{url}/predict{quote} -H 'content-type: application/json' -d"
    text = example.decode()
    if len(text) <= _LONGEST_INLINE and text.isascii() and not _UNSAFE.intersection(text):
        return f"{post} '{text}'"
    return f"curl -s {quote}{url}/example{quote} | {post} @-"


def _code(prepared: Prepared) -> Iterator[Line]:
    """What was recognised in code that a user wrote."""
    for index, line in enumerate(_says(prepared)):
        yield ("" if index else "code", line, "")


def _bundle(entry: Entry) -> Iterator[Line]:
    """What the optimizer made, and what is not as it was then."""
    if entry.bundle:
        yield "bundle", entry.bundle, ""
    for index, line in enumerate(entry.warnings):
        yield ("" if index else "warning", line, "")


def _says(prepared: Prepared) -> list[str]:
    return prepared.service.about.says if isinstance(prepared, PreparedService) else []


def _signature(prepared: Prepared) -> Iterator[Line]:
    for kind, specs in (("input", prepared.signature.inputs), ("output", prepared.signature.outputs)):
        for index, spec in enumerate(specs):
            yield ("" if index else kind, _spec(spec), "")


def _settings(prepared: Prepared, cores: Cores, settings: ServeSettings) -> Iterator[Line]:
    reasons = prepared.reasons
    on, _, why = reasons.get("batching", "on").partition(": ")
    yield "batching", on, why
    yield "batch size", f"up to {prepared.max_batch_rows}", reasons["max_batch_size"]
    yield "instances", str(len(prepared.instances)), reasons["instances"]
    yield "threads", f"{prepared.threads} each", reasons["threads"]
    yield "cores", str(cores.whole), cores.why
    yield "queue delay", *_queue_delay(settings)
    yield "deadline", f"{settings.timeout_ms / 1000:g} s", settings.origin("timeout_ms")
    if prepared.signature.items:
        yield "cache", *_cache(settings)
    profile = ", ".join(f"{rows}: {_time(seconds)}" for rows, seconds in _few(prepared.profile))
    yield "service time", f"{profile} (rows: time of one run)", ""


def _queue_delay(settings: ServeSettings) -> tuple[str, str]:
    if not settings.max_queue_delay_ms:
        return "none", "a batch is what has come while the last one ran"
    return f"{settings.max_queue_delay_ms:g} ms", f"{settings.origin('max_queue_delay_ms')}; without, none would wait"


def _cache(settings: ServeSettings) -> tuple[str, str]:
    if settings.cache == "none":
        return "none", "--cache keeps predictions"
    room = f", {settings.cache_mb} MiB" if settings.cache == "memory" else ""
    return f"{without_password(settings.cache)}{room}, {settings.cache_ttl_s:g} s", settings.origin("cache")


def _few(profile: list[tuple[int, float]]) -> list[tuple[int, float]]:
    return profile if len(profile) <= 3 else [profile[0], profile[len(profile) // 2], profile[-1]]


def _time(seconds: float) -> str:
    return f"{seconds * 1e3:.1f} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.0f} us"


def _spec(spec: TensorSpec) -> str:
    return f"{spec.name} {spec.datatype.label} [{', '.join(str(size) for size in spec.shape)}]"


def _url(address: str) -> str:
    host, _, port = address.rpartition(":")
    return f"http://{_ANYWHERE.get(host, host)}:{port}"


def _columns(lines: list[Line]) -> str:
    labels = max(len(label) for label, _, _ in lines)
    values = max((len(value) for _, value, why in lines if why), default=0)
    return "\n".join(
        f"{_styled(_DIM, f'{label:<{labels}}')}  " + (f"{value:<{values}}  {_styled(_DIM, why)}" if why else value)
        for label, value, why in lines
    )


def _indented(block: str) -> str:
    return "\n".join(f"  {line}" for line in block.splitlines())


def _styled(style: str, text: str) -> str:
    return f"\x1b[{style}m{text}\x1b[0m" if _has_colour() else text


def _has_colour() -> bool:
    # https://no-color.org: any value but the empty one counts.
    return sys.stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _print(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
