"""What is said of a model file? The document behind `paceline inspect`, in the terminal and as JSON.

Rules:
- Sizes are bytes. `document` says which one this is. Fields may be added; `schema` counts changes that break readers.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec

from paceline.core.tensors import TensorSpec
from paceline.workers import frames

SCHEMA = 1

Level = Literal["unsafe", "unknown", "odd", "note"]
Safety = Literal["safe", "unknown", "unsafe"]


class Finding(msgspec.Struct, kw_only=True):
    """One thing worth knowing.

    Attributes:
        level: `unsafe`: loading it, or running it, does harm or can be made to; `unknown`: it runs code that nobody
            here can judge, or was not read; `odd`: it may not work as meant; `note`: good to know.
        hint: what to do about it.
    """

    level: Level
    text: str
    hint: str | None = None


class Tensor(msgspec.Struct, kw_only=True):
    """An input or output.

    Attributes:
        datatype: in the Open Inference Protocol's words, such as `FP32`; else in the file's; None: not told.
        shape: sizes; -1 or a name where any size fits. None: not told.
    """

    name: str
    datatype: str | None = None
    shape: list[int | str] | None = None


class Import(msgspec.Struct, kw_only=True):
    """A name that loading the file looks up in Python's modules.

    Attributes:
        called: it is called while the file is loaded, not only referred to.
        why: what is known of it.
    """

    name: str
    verdict: Literal["known", "unknown", "dangerous"]
    called: bool
    why: str


class Report(msgspec.Struct, kw_only=True, tag_field="document", tag="inspection"):
    """A model file, folder or piece of code.

    Attributes:
        inputs, outputs: as they are served: with these names, in this order. None: only loading it tells.
        format: as `paceline.runtimes.formats` calls it, or `python`, `r`, `pipeline`, `bundle`, `repository`, ...
        made_by: what wrote it, as it says itself.
        versions: such as `opset` -> `17`.
        operators: how many of each. For pickles: objects by class; for Keras: layers; for trees: kinds of models.
        parameters: numbers in weights, as the file has them; `weight_bytes` that they take. None: not told without
            loading it.
        about: further facts, such as `trees` -> `100`.
        safety: the worst of the findings: `unsafe`, `unknown`, or else `safe`.
        serve, optimize: the commands; None: it cannot be.
        extra: of this package that serving it needs.
        contains: the models inside a bundle or a folder.
    """

    schema: int = SCHEMA
    path: str
    format: str
    title: str
    size_bytes: int = 0
    made_by: str | None = None
    versions: dict[str, str] = {}
    inputs: list[Tensor] | None = None
    outputs: list[Tensor] | None = None
    operators: dict[str, int] = {}
    parameters: int | None = None
    weight_bytes: int | None = None
    about: dict[str, str | int] = {}
    imports: list[Import] = []
    findings: list[Finding] = []
    safety: Safety = "safe"
    serve: str | None = None
    optimize: str | None = None
    extra: str | None = None
    contains: list[Report] = []

    def find(self, level: Level, text: str, hint: str | None = None) -> None:
        """Add a finding, unless it is there."""
        found = Finding(level=level, text=text, hint=hint)
        if found not in self.findings:
            self.findings.append(found)

    def settle(self) -> None:
        """Set `safety`, once everything has been found."""
        levels = {finding.level for finding in self.findings} | {inner.safety for inner in self.contains}
        self.safety = "unsafe" if "unsafe" in levels else "unknown" if "unknown" in levels else "safe"


def tensors(specs: Iterable[TensorSpec | frames.Tensor]) -> list[Tensor]:
    """As a report has what is known of a signature."""
    return [
        Tensor(
            name=each.name,
            datatype=each.datatype.label if isinstance(each, TensorSpec) else each.datatype,
            shape=list(each.shape),
        )
        for each in specs
    ]


def counted(names: Iterable[str]) -> dict[str, int]:
    """How many there are of each, most first; of equally many, in the order of the alphabet."""
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    return by_count(counts)


def by_count(counts: dict[str, int]) -> dict[str, int]:
    """The same, most first."""
    return dict(sorted(counts.items(), key=lambda each: (-each[1], each[0])))


def listed(names: Iterable[str], most: int = 8) -> str:
    """Such as `a, b and 3 more`."""
    named = list(names)
    shown = ", ".join(named[:most])
    return shown if len(named) <= most else f"{shown} and {len(named) - most} more"
