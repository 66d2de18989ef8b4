"""How is a bundle served? As it was measured; and where this machine is another one, that is said.

Rules:
- What the bundle sets for a model is a file beside it: a flag, a variable and [models.NAME] win over it.
- Numbers that were measured, such as threads, are used where machine and files are as they were; elsewhere the
  warm-up finds its own.
- How the model is run, such as its precision, belongs to the answers that were judged, and holds everywhere.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from paceline.config.settings import Found
from paceline.runtimes import bundle as bundles
from paceline.runtimes.bundle import Bundle, Differences
from paceline.runtimes.options import RuntimeOptions

ORIGIN = "bundle"
"""Where a setting came from, for people."""


class Unpacked(NamedTuple):
    """What a bundle says of its model.

    Attributes:
        file: file or folder of the model.
        found: settings, for `ServeSettings.for_model`.
        example: one of the rows it was judged on, as an item of JSON; b"": none.
        says: what it holds, for people.
        warnings: what is not as it was measured, for people.
    """

    file: Path
    options: RuntimeOptions
    found: dict[str, Found]
    example: bytes
    says: str
    warnings: tuple[str, ...]


def unpack(folder: Path) -> Unpacked:
    """Read a bundle, and compare what is here with what it was measured with. Blocks.

    Raises:
        ModelLoadError: it is none, or refers to what is not in its folder.
    """
    bundle = bundles.read(folder)
    differences = bundles.differences(bundle, folder)
    found = {
        name: Found(value, ORIGIN)
        for name, value in (("runtime", bundle.options.runtime), ("precision", bundle.options.precision))
        if value is not None
    }
    if not differences.files and not differences.machine:
        found |= {name: Found(value, ORIGIN) for name, value in bundle.settings.items()}
    return Unpacked(
        file=folder / bundle.model,
        options=bundle.options,
        found=found,
        example=bundle.example.encode(),
        says=_says(bundle),
        warnings=tuple(_warnings(bundle, differences)),
    )


def _warnings(bundle: Bundle, differences: Differences) -> list[str]:
    warnings = [f"bundle: {line}" for line in differences.lines]
    if bundle.settings and (differences.files or differences.machine):
        named = ", ".join(f"{name} {value}" for name, value in bundle.settings.items())
        warnings.append(f"bundle: not used, for they were measured with another: {named}")
    return warnings


def _says(bundle: Bundle) -> str:
    told = bundle.provenance
    title = told.evidence.get("title")
    what = title if isinstance(title, str) else bundle.model
    # Escaped: whatever stands there, it stays one line of the log.
    return f"{what}, made of {told.source} on {told.created}".encode("unicode_escape").decode()
