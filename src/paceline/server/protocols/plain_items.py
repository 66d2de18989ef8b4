"""Runs the items of one call so that each fails alone.

Rules:
- Items that can be read are joined along axis 0 and run as one request, which the engine cuts as it likes. Items of
  another trailing shape are another request, and without a batch dimension every item is.
- When the model fails a request, its halves run apart, down to the items that are guilty. When it gave another
  number of rows, each item runs alone: a half might be given the right number by chance.
- A bounded number of requests is under way. Once one is refused or late, no further one is tried: the call
  fails when nothing was answered, else the items that are left get that error.
- A list may be long: the event loop gets its turn after every `_CHUNK` items.
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Iterator, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
import numpy as np

from paceline.core.errors import BAD_OUTPUT, DeadlineExceeded, ModelFailed, Overloaded, PacelineError
from paceline.core.requests import InferRequest
from paceline.core.tensors import Array, Tensors, group_of
from paceline.server.app import App
from paceline.server.calls import Encoded, Inference, timing
from paceline.server.http1 import JSON, HttpRequest
from paceline.server.status import describe

if TYPE_CHECKING:
    from paceline.server.protocols.plain import Codec

_CHUNK: Final = 128
_UNDER_WAY: Final = 64


class Unit(NamedTuple):
    """Inputs that run together, and which items they are: positions in the list, rising."""

    inputs: Tensors
    items: Array


class Items:
    """The items of one call.

    Args:
        count: how many there are.
    """

    def __init__(self, app: App, http: HttpRequest, call: Inference, codec: Codec, count: int) -> None:
        self._app = app
        self._http = http
        self._call = call
        self._codec = codec
        # Outputs, or the JSON of an error; and for each item, which of them is its own, and the row.
        self._results: list[Tensors | bytes] = []
        self._result_of = np.zeros(count, np.intp)
        self._row_of = np.zeros(count, np.intp)
        self._ran: list[InferRequest] = []
        self._answered = 0
        self._refused = 0
        self._stopped: PacelineError | None = None

    async def read_and_run(self, raws: Sequence[msgspec.Raw]) -> Encoded | PacelineError:
        """The answer to items that are still JSON."""
        units = await self._read(raws)
        shared = iter(units)
        await asyncio.gather(*[self._run_all(shared) for _ in range(min(_UNDER_WAY, len(units)))])
        return await self._answer()

    async def run_apart(self, failed: InferRequest) -> Encoded | PacelineError:
        """The answer to items that the model has failed together."""
        assert failed.error is not None
        await self._isolate(Unit(failed.inputs, np.arange(failed.rows)), failed.error)
        return await self._answer()

    # -- JSON to units ----------------------------------------------------------------------------------------

    async def _read(self, raws: Sequence[msgspec.Raw]) -> list[Unit]:
        pieces: dict[Hashable, list[Unit]] = {}
        batched = self._codec.signature.batched
        for start in range(0, len(raws), _CHUNK):
            for unit in self._chunk(raws[start : start + _CHUNK], start):
                key = group_of(unit.inputs) if batched else int(unit.items[0])
                pieces.setdefault(key, []).append(unit)
            await asyncio.sleep(0)
        return [_joined(units) for units in pieces.values()]

    def _chunk(self, raws: Sequence[msgspec.Raw], start: int) -> Iterator[Unit]:
        if self._codec.signature.batched:
            try:
                yield Unit(self._codec.many(b"[" + b",".join(raws) + b"]"), np.arange(start, start + len(raws)))
                return
            except PacelineError:
                pass  # some item is wrong: find out which
        for item, raw in enumerate(raws, start):
            try:
                inputs = self._codec.one(raw)
            except PacelineError as error:
                self._settle(np.array([item]), self._described(error))
            else:
                yield Unit(inputs, np.array([item]))

    # -- units to outcomes ------------------------------------------------------------------------------------

    async def _run_all(self, units: Iterator[Unit]) -> None:
        for unit in units:
            await self._run(unit)

    async def _run(self, unit: Unit) -> None:
        if self._stopped is not None:
            self._stop(unit, self._stopped)
            return
        size_bytes = len(self._http.body) * len(unit.items) // len(self._result_of)
        request = await self._call.run(unit.inputs, size_bytes)
        if request.error is not None:
            await self._isolate(unit, request.error)
            return
        self._ran.append(request)
        self._answered += len(unit.items)
        self._settle(unit.items, request.outputs or ())

    async def _isolate(self, unit: Unit, error: PacelineError) -> None:
        if isinstance(error, Overloaded | DeadlineExceeded):
            self._stop(unit, error)
        elif isinstance(error, ModelFailed) and len(unit.items) > 1:
            for piece in _pieces(len(unit.items), alone=error.code == BAD_OUTPUT):
                await self._run(Unit(tuple([array[piece] for array in unit.inputs]), unit.items[piece]))
        else:
            self._settle(unit.items, self._described(error))

    def _stop(self, unit: Unit, error: PacelineError) -> None:
        self._stopped = error
        self._refused += len(unit.items)
        self._settle(unit.items, self._described(error))

    def _settle(self, items: Array, result: Tensors | bytes) -> None:
        self._result_of[items] = len(self._results)
        self._row_of[items] = np.arange(len(items))
        self._results.append(result)

    def _described(self, error: PacelineError) -> bytes:
        return describe(error, self._http.id, self._app.debug)[1]

    # -- outcomes to JSON -------------------------------------------------------------------------------------

    async def _answer(self) -> Encoded | PacelineError:
        stopped = self._stopped
        if stopped is not None and not self._answered:
            return stopped
        if isinstance(stopped, Overloaded):
            self._call.model.telemetry.rejected[stopped.reason] += self._refused
        texts = []
        for start in range(0, len(self._result_of), _CHUNK):
            texts += self._shown(start, start + _CHUNK)
            await asyncio.sleep(0)
        extra = timing(self._ran[0]) if len(self._ran) == 1 and self._ran[0].batch_rows else b""
        return b"[" + b",".join(texts) + b"]", JSON, extra

    def _shown(self, start: int, stop: int) -> list[bytes]:
        """JSON of the outcomes of some items; those of neighbouring rows are written together."""
        results, rows = self._result_of[start:stop], self._row_of[start:stop]
        breaks = np.flatnonzero((np.diff(results) != 0) | (np.diff(rows) != 1)) + 1
        texts = []
        for run_rows, run_results in zip(np.split(rows, breaks), np.split(results, breaks), strict=True):
            result = self._results[run_results[0]]
            if isinstance(result, bytes):
                texts += [result] * len(run_rows)
            else:
                texts.append(self._codec.rows(result, slice(run_rows[0], run_rows[-1] + 1))[1:-1])
        return texts


def _joined(units: list[Unit]) -> Unit:
    if len(units) == 1:
        return units[0]
    inputs = tuple([np.concatenate(column) for column in zip(*[unit.inputs for unit in units], strict=True)])
    return Unit(inputs, np.concatenate([unit.items for unit in units]))


def _pieces(count: int, *, alone: bool) -> list[slice]:
    if alone:
        return [slice(index, index + 1) for index in range(count)]
    return [slice(0, count // 2), slice(count // 2, None)]
