"""What does a client ask of user code, and what runs for it?

A `Call` is what a client asks for: items, in an order, perhaps some of them twice. A `Flight` is what runs: items that
differ, at most as many as a batch may have. Every item of a call waits for one item of a flight, its own or another's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from paceline.core.errors import PacelineError
from paceline.core.requests import InferRequest
from paceline.core.tensors import Array

Rows = Sequence[int]
Wanted = Sequence[tuple[bytes, Rows]]
"""Items, and in which rows of a call each of them stands."""

FIRST: Final[Rows] = (0,)


class Call(InferRequest):
    """What a client asks for.

    Attributes:
        items: what it waits for, and has waited for.
        missing: how many different items have no outcome yet.
        answers: the outcomes by row, where it has several.
        row_error: the first of a row.
        kept_rows: rows whose prediction was kept from before.
    """

    items: Sequence[Item] | None = None
    missing = 1
    answers: Array | None = None
    row_error: PacelineError | None = None
    kept_rows = 0


class Item:
    """An item under way.

    Attributes:
        flight: None until it is known that it has to run, and when it has run.
        waiting: who waits for it, and for which rows.
    """

    __slots__ = ("flight", "text", "waiting")

    def __init__(self, text: bytes, call: Call, rows: Rows) -> None:
        self.text = text
        self.waiting = {call: rows}
        self.flight: Flight | None = None


class Flight(InferRequest):
    """Items that run together.

    Attributes:
        starter: the call whose deadline it has.
    """

    items: Sequence[Item]
    starter: Call
