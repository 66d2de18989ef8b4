"""What does the host need of user code, whatever contract it keeps? This, and nothing else.

A contract (a function, a class, `init`/`run`, a Studio module, a pipeline, a pickled model) is recognised by
a function that looks at the loaded code and returns a `Service`, or None.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from paceline.workers.frames import About, Setup


@dataclass(frozen=True)
class Failed:
    """Stands in the place of a prediction: this item failed, alone.

    Attributes:
        code: `invalid_item` when its client must change it; else `model_failed`.
        detail: the user's own frames, shown to clients in debug mode only.
    """

    message: str
    code: str = "model_failed"
    detail: str = ""


class Service(Protocol):
    """User code.

    Attributes:
        about: what was recognised.
        wants_text: items are passed as the JSON texts that they are, not decoded.
    """

    about: About
    wants_text: bool

    def setup(self, setup: Setup) -> Sequence[Any]:
        """Initialise, once; the items that the code says are good."""

    def predict(self, items: list[Any]) -> Sequence[Any]:
        """One prediction, or `Failed`, for each item. What it raises fails the batch."""
