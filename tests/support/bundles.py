"""Bundles as the optimizer writes them, around small models."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from paceline.runtimes import bundle
from paceline.runtimes.bundle import Bundle, Provenance
from paceline.runtimes.options import RuntimeOptions
from support import models


def make(
    folder: Path,
    build: Callable[[Path], object] = models.mlp,
    model: str = "model-1/small.onnx",
    *,
    options: RuntimeOptions | None = None,
    settings: dict[str, int] | None = None,
    versions: dict[str, str] | None = None,
    example: str = "",
) -> Path:
    """A bundle that is as it was measured here a moment ago."""
    (folder / model).parent.mkdir(parents=True)
    build(folder / model)
    told = Provenance(
        source="small.pkl",
        source_sha256="0" * 64,
        sha256=bundle.hashes(folder, model),
        machine=bundle.this_machine(),
        versions=versions or {},
        created="2026-11-21T15:00:00+00:00",
    )
    bundle.write(
        folder,
        Bundle(
            name="small",
            model=model,
            options=options or RuntimeOptions(),
            settings=settings or {},
            example=example,
            provenance=told,
        ),
    )
    return folder


def edit(folder: Path, path: str, value: Any) -> None:
    """Put another value into `bundle.json`, at a path such as `provenance.machine.cores`."""
    document = json.loads((folder / "bundle.json").read_bytes())
    *above, last = path.split(".")
    place = document
    for name in above:
        place = place[name]
    place[last] = value
    (folder / "bundle.json").write_text(json.dumps(document))
