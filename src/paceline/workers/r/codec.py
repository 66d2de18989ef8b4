"""How does a batch of JSON items travel to R, and its predictions back?

Body of RUN: a list of data frames; of a Studio script, a list of calls. Body of RESULT: a list with a result for each
(`host/results.R`). Both are written as R writes values (`serialization.py`).

Rules:
- The worker takes one call at a time: what a RESULT answers is the last RUN.
- An item that R cannot hold fails alone and is not sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
import numpy as np

from paceline.core.errors import InvalidRequest
from paceline.core.tensors import Array, Tensors
from paceline.workers.frames import BadFrame
from paceline.workers.r import columns, studio
from paceline.workers.r.columns import Table, Unfit
from paceline.workers.r.predictions import PredictionWriter
from paceline.workers.r.serialization import Value, dump, items, load

_DECODER: Final = msgspec.json.Decoder()
# What an escaped NUL looks like; the only way to write one in JSON.
_NUL: Final = b"\\u0000"


class FunctionCodec:
    """Items as the rows of data frames, for `predict_fn`.

    Args:
        nonfinite: what becomes of NaN and infinity: `error`, `null` or `string`.
    """

    def __init__(self, nonfinite: str = "error") -> None:
        self.one_call = True
        self._writer = PredictionWriter(nonfinite)
        # What a RESULT will answer: a place for each item, and which of them each data frame holds.
        self._answers = _column(0)
        self._groups: list[Sequence[int]] = []

    def encode(self, inputs: Tensors) -> Sequence[bytes]:
        texts = inputs[0].tolist()
        self._answers = _column(len(texts))
        values = _decoded(texts, self._answers)
        try:
            if any(_NUL in text for text in texts):
                raise Unfit
            tables = _tables(values)
        except (Unfit, RecursionError):
            _drop_unfit(values, self._answers)
            tables = _tables(values)
        self._groups = [indices for indices, _ in tables]
        return [dump(items([table for _, table in tables]))]

    def decode(self, body: memoryview) -> Tensors:
        answers = self._answers
        for indices, result in zip(self._groups, _results(body, len(self._groups)), strict=True):
            texts = self._writer.texts(result, len(indices))
            for index, text in zip(indices, texts, strict=True):
                answers[index] = text
        return (answers,)

    def close(self) -> None:
        """Nothing is shared."""


class StudioCodec:
    """Items as calls, for Studio scripts."""

    def __init__(self) -> None:
        self.one_call = True
        # As above, with the form of the answer for each that was sent.
        self._answers = _column(0)
        self._shapes: dict[int, studio.Shape] = {}

    def encode(self, inputs: Tensors) -> Sequence[bytes]:
        texts = inputs[0].tolist()
        self._answers = _column(len(texts))
        calls = {}
        for index, value in _decoded(texts, self._answers).items():
            try:
                if _NUL in texts[index] and (why := columns.problem(value)) is not None:
                    raise InvalidRequest(why)
                calls[index] = studio.call(value)
            except InvalidRequest as error:
                self._answers[index] = error
        self._shapes = {index: call.shape for index, call in calls.items()}
        return [dump(items([call.written for call in calls.values()]))]

    def decode(self, body: memoryview) -> Tensors:
        results = _results(body, len(self._shapes))
        for (index, shape), result in zip(self._shapes.items(), results, strict=True):
            self._answers[index] = studio.answer(result, shape)
        return (self._answers,)

    def close(self) -> None:
        """Nothing is shared."""


def _column(rows: int) -> Array:
    return np.empty(rows, object)


def _decoded(texts: Sequence[Any], answers: Array) -> dict[int, Any]:
    """The values by index. Each on its own: two broken texts could make sense together."""
    values = {}
    for index, text in enumerate(texts):
        try:
            values[index] = _DECODER.decode(text)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            answers[index] = InvalidRequest(f"the item is not JSON: {error}")
    return values


def _tables(values: dict[int, Any]) -> list[Table]:
    at = list(values)
    return [([at[row] for row in rows], table) for rows, table in columns.tables(list(values.values()))]


def _drop_unfit(values: dict[int, Any], answers: Array) -> None:
    for index, value in list(values.items()):
        why = columns.problem(value)
        if why is not None:
            answers[index] = InvalidRequest(why)
            del values[index]


def _results(body: memoryview, count: int) -> list[Value]:
    results = load(body)
    if results.kind != "list" or len(results.items) != count:
        raise BadFrame(f"R answered {count} tables with {len(results.items)} results")
    return results.items
