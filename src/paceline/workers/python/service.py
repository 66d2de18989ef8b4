"""What does the host need of user code, whatever contract it keeps? This, and nothing else.

A contract (a function, a class, `init`/`run`, a Studio module, a pipeline, a pickled model) is recognised by
a function that looks at the loaded code and returns a service, or None.

Rules:
- A service takes items of JSON (`Service`), or tensors (`TensorService`).
- What a service raises fails the batch, with the user's own frames in the log. `InvalidRequest` from
  `paceline.core.errors` blames the client; so does `Failed(..., code=INVALID)`, for one item.
- A prediction is whatever `values.py` can write as JSON; `msgspec.Raw` and `orjson.Fragment` are JSON already.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, runtime_checkable

from paceline.core.tensors import Tensors
from paceline.workers.frames import About, Readiness, Setup

INVALID: Final = "invalid_item"
"""Code of an item that its client must change."""


@dataclass(frozen=True)
class Failed:
    """Stands in the place of a prediction: this item failed, alone.

    Attributes:
        code: `INVALID` when its client must change it; else `model_failed`, or `BAD_OUTPUT`.
        detail: the user's own frames, shown to clients in debug mode only.
    """

    message: str
    code: str = "model_failed"
    detail: str = ""


def any_failed(items: Iterable[Any]) -> bool:
    """True when one of the items is `Failed`; cheaper than asking each."""
    return Failed in set(map(type, items))


def run_good(items: list[Any], run: Callable[[list[Any]], Sequence[Any]]) -> Sequence[Any]:
    """What `run` makes of the items that are not `Failed`, one for each; those that are keep their places."""
    if items and not any_failed(items):
        return run(items)
    good = [item for item in items if not isinstance(item, Failed)]
    results = iter(run(good) if good else ())
    return [item if isinstance(item, Failed) else next(results) for item in items]


class Service(Protocol):
    """User code that takes items.

    Attributes:
        about: what was recognised.
        wants_text: items are passed as the JSON texts that they are (`bytes`), not decoded.
    """

    about: About
    wants_text: bool

    def setup(self, setup: Setup) -> Sequence[Any]:
        """Initialise, once; the items that the code says are good."""

    def predict(self, items: list[Any]) -> Sequence[Any]:
        """One prediction, or `Failed`, for each item. What it raises fails the batch."""


@runtime_checkable
class TensorService(Protocol):
    """User code that takes tensors: those of `about.inputs`, or of what `setup_tensors` has returned."""

    about: About

    def setup_tensors(self, setup: Setup) -> Readiness:
        """Initialise, once; what is known now: inputs, outputs, examples (items of JSON as `/predict` takes them)."""

    def predict_tensors(self, inputs: Tensors) -> Tensors:
        """The outputs, in the order of the signature, one row for each row of the inputs.

        The inputs are read-only, and valid until it returns.
        """
