"""How does what was chosen become a bundle, while the one before it is perhaps being served?

Rules:
- The model lies in a folder that is called after its contents. `bundle.json` is replaced when it is whole; until then
  the older bundle is the one that is there, and only then its model goes.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any, Final

import msgspec

from paceline.optimize.data import items
from paceline.optimize.data.rows import Rows
from paceline.optimize.result import Study, Tried
from paceline.runtimes import bundle, model_files
from paceline.runtimes.bundle import Bundle, Provenance

_PREFIX: Final = "model-"
_UNFINISHED: Final = ".part"
_OURS: Final = re.compile(r"model-[0-9a-f]{12}")


def write(out: Path, name: str, model: Path, chosen: Tried, study: Study, rows: Rows) -> None:
    """Write the bundle of what was chosen.

    Args:
        name: of the model, when it is served.
        model: its file, or folder.
        rows: that candidates were judged on; one becomes the example.

    Raises:
        OSError: it cannot be written.
    """
    place = f"{_PREFIX}{model_files.digest(model)[:12]}"
    if not _is_whole(out / place / model.name, model):
        part = out / f".{place}{_UNFINISHED}"
        shutil.rmtree(part, ignore_errors=True)
        model_files.copy(model, part)
        shutil.rmtree(out / place, ignore_errors=True)
        os.replace(part, out / place)
    inside = f"{place}/{model.name}"
    bundle.write(
        out,
        Bundle(
            name=name,
            model=inside,
            options=chosen.candidate.options,
            settings={"threads": chosen.speeds[0].threads} if chosen.speeds else {},
            example=items.example(rows.inputs),
            provenance=Provenance(
                source=study.source["file"],
                source_sha256=study.source["sha256"],
                sha256=bundle.hashes(out, inside),
                machine=bundle.this_machine(),
                versions=study.versions,
                created=study.created,
                evidence=_evidence(chosen, study),
            ),
        ),
    )
    for other in out.glob(f"{_PREFIX}*"):
        # Whatever else is called so is not ours.
        if other.name != place and _OURS.fullmatch(other.name) and other.is_dir() and not other.is_symlink():
            shutil.rmtree(other)


def _is_whole(copied: Path, model: Path) -> bool:
    """Whether it was copied before, and nothing has changed it since: what is written into a bundle is vouched for."""
    return copied.exists() and model_files.digest(copied) == model_files.digest(model)


def _evidence(chosen: Tried, study: Study) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(chosen)
    kept = {name: found[name] for name in ("judgement", "speeds", "reasons") if found.get(name)}
    return {"candidate": chosen.candidate.name, "title": chosen.candidate.title, "data": study.data, **kept}
