"""What did the user write? The parts of a class or of a module that keep a contract, found and checked.

Rules:
- `predict` is the contract; every other part is optional, and looked for in a class alone: a module may well have a
  function `clean` that has nothing to do with us. Only `example`, and what declares tensors, counts there too.
- What is wrong with a part is said when the code is loaded, not at the first request.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from paceline.core.errors import ModelLoadError
from paceline.workers.frames import About
from paceline.workers.python import parameters
from paceline.workers.python.parameters import Takes, Wanted

PARTS: Final = ("setup", "validate", "fetch", "clean", "predict", "format", "example", "health")
_MAY_WAIT: Final = ("setup", "fetch", "predict")
_PER_ITEM: Final = ("validate", "fetch", "clean", "format")
_ARGUMENTS: Final = {"validate": ("item",), "fetch": ("item",), "clean": ("items",), "format": ("output",)}
_CONCURRENT_CALLS: Final = 64


@dataclass(frozen=True)
class Contract:
    """User code, recognised.

    Attributes:
        label: for people, such as `class Digits`.
        owner: what has the parts: a class, or an object.
        parts: the names of those that it has, and what they are called there.
        create: makes what the parts are called on.
        declared: what the code says of itself besides: `inputs`, `outputs`, `max_batch_size`, `deterministic`.
        note: what its author may have meant, and what is not so.
    """

    label: str
    owner: Any
    parts: Mapping[str, str]
    create: Callable[[], Any]
    declared: Mapping[str, Any] = field(default_factory=dict)
    note: str | None = None

    def __post_init__(self) -> None:
        for part, name in self.parts.items():
            found = getattr(self.owner, name)
            if not callable(found):
                raise ModelLoadError(
                    f"{self.label}: {name}: expected a function, got {type(found).__name__}",
                    hint=f"{name} is a part of a service: give what is none another name",
                )
            if self.is_async(part) and part not in _MAY_WAIT:
                raise ModelLoadError(
                    f"{self.label}: {name} must be a plain function: only setup, fetch and predict may be async"
                )
            if part != "predict":
                parameters.check_count(self.owner, name, _ARGUMENTS.get(part, ()))
        if self.streams and "clean" in self.parts:
            raise ModelLoadError(f"{self.label}: clean works on batches, and a generator takes one item at a time")
        if self.streams and "inputs" in self.declared:
            raise ModelLoadError(f"{self.label}: a generator works on items, and inputs declares tensors")
        both = [part for part in _PER_ITEM if part in self.parts]
        if "inputs" in self.declared and both:
            raise ModelLoadError(f"{self.label}: {both[0]} works on items, and inputs declares tensors")

    def is_async(self, part: str) -> bool:
        """True when the part is written with `async def`."""
        function = inspect.unwrap(getattr(self.owner, self.parts[part]))
        return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)

    @property
    def streams(self) -> bool:
        """True when `predict` is a generator."""
        function = inspect.unwrap(getattr(self.owner, self.parts["predict"]))
        return inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)

    def wanted(self) -> Wanted:
        """What `predict` is called with."""
        return parameters.wanted(self.owner, self.parts["predict"], self.streams)

    def about(self, takes: Takes | None) -> About:
        """What the server is told.

        Args:
            takes: what `predict` is called with; None: tensors.
        """
        waits = self.streams or "fetch" in self.parts
        most = self.declared.get("max_batch_size")
        if most is not None and (not isinstance(most, int) or isinstance(most, bool) or most < 1):
            raise ModelLoadError(f"{self.label}: max_batch_size: expected a number >= 1, got {most!r}")
        said = f"{self.label}: {', '.join(self._said(part, takes) for part in PARTS if part in self.parts)}"
        return About(
            says=[said] if self.note is None else [said, self.note],
            lanes=_CONCURRENT_CALLS if waits else 1,
            streams=self.streams,
            deterministic=bool(self.declared.get("deterministic", not self.streams)),
            max_batch_rows=1 if self.streams else most,
        )

    def _said(self, part: str, takes: Takes | None) -> str:
        marks = "async" if self.is_async(part) else ""
        if part != "predict":
            return f"{part} ({marks})" if marks else part
        if self.streams:
            return f"predict streams ({marks})" if marks else "predict streams"
        how = takes.value if takes is not None else "predict on tensors"
        return f"{how} ({marks})" if marks else how
