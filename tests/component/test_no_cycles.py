"""A request that has ended frees its inputs at once: the server lets the garbage collector run rarely."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from paceline.core.errors import InternalError, ModelFailed
from paceline.core.requests import InferRequest
from paceline.core.tensors import Tensors
from paceline.engine.model import ServedModel
from paceline.engine.warmup import Prepared, Wishes, prepare
from paceline.runtimes.base import load
from support import models

PATIENCE_S = 20.0
HOSTING = {"inline": float("inf"), "thread": -1.0}


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture(params=HOSTING)
def ready(request: pytest.FixtureRequest, tmp_path: Path) -> Prepared:
    """The poison-row model: 99 makes it raise. On the event loop, and on the thread of an instance."""
    made = prepare(load(models.gather(tmp_path / "m.onnx")), 1, Wishes(4, 1, 1, 0.02))
    return replace(made, inline_limit_s=HOSTING[request.param])


class Ends:
    """Submits requests and keeps nothing of them but weak references to their inputs and how they ended."""

    def __init__(self, model: ServedModel) -> None:
        self._model = model
        self.inputs: list[weakref.ref[np.ndarray]] = []
        self.codes: list[str | None] = []

    def submit(self, *values: int, timeout_s: float = PATIENCE_S, cancel: bool = False) -> None:
        array = np.array(values, np.int64)
        self.inputs.append(weakref.ref(array))
        request = self._model.request((array,), time.monotonic() + timeout_s, self._done)
        self._model.submit(request)
        if cancel:
            self._model.cancel(request)

    def _done(self, request: InferRequest) -> None:
        self.codes.append(request.error and request.error.code)

    async def freed(self) -> bool:
        """True as soon as no input is left; the thread of an instance lets go a moment after it has answered."""
        until = time.monotonic() + 2.0
        while any(ref() is not None for ref in self.inputs) and time.monotonic() < until:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        return all(ref() is None for ref in self.inputs)


def run(ready: Prepared, scenario: Callable[[ServedModel], Awaitable[None]]) -> None:
    async def main() -> None:
        model = ServedModel("m", "1", ready)
        try:
            await asyncio.wait_for(scenario(model), PATIENCE_S)
        finally:
            model.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("requests", "codes"),
    [
        ([(1,)], [None]),
        ([(1,), (2, 3)], [None, None]),
        ([(99,)], ["model_failed"]),
        ([(1,), (99,), (2,)], [None, "model_failed", None]),
        ([tuple(range(10))], [None]),
        ([(*range(9), 99)], ["model_failed"]),
    ],
    ids=["answered", "batched", "failed", "failed in a batch", "split", "split and failed"],
)
def test_an_ended_request_frees_its_inputs(
    ready: Prepared, requests: list[tuple[int, ...]], codes: list[str | None]
) -> None:
    async def scenario(model: ServedModel) -> None:
        ends = Ends(model)
        for values in requests:
            ends.submit(*values)
        assert await ends.freed()
        assert sorted(map(str, ends.codes)) == sorted(map(str, codes))

    run(ready, scenario)


@pytest.mark.parametrize("values", [(1,), tuple(range(10))], ids=["whole", "split"])
def test_a_cancelled_request_frees_its_inputs(ready: Prepared, values: tuple[int, ...]) -> None:
    async def scenario(model: ServedModel) -> None:
        ends = Ends(model)
        ends.submit(*values, cancel=True)
        assert await ends.freed()
        assert ends.codes == []

    run(ready, scenario)


@pytest.mark.parametrize("values", [(1,), tuple(range(10))], ids=["whole", "split"])
def test_an_expired_request_frees_its_inputs(ready: Prepared, values: tuple[int, ...]) -> None:
    async def scenario(model: ServedModel) -> None:
        ends = Ends(model)
        ends.submit(*values, timeout_s=0.001)
        time.sleep(0.005)  # noqa: ASYNC251 - the loop is late, so that the deadline passes in the queue
        assert await ends.freed()
        assert ends.codes == ["deadline_exceeded"]

    run(ready, scenario)


def test_waiting_for_an_answer_that_is_an_error_leaves_nothing(ready: Prepared) -> None:
    async def scenario(model: ServedModel) -> None:
        array = np.array([99], np.int64)
        inputs = weakref.ref(array)
        with suppress(ModelFailed):
            await model.infer((array,))
        del array
        await asyncio.sleep(0.01)
        assert inputs() is None

    run(ready, scenario)


def test_a_defect_of_ours_leaves_nothing(ready: Prepared) -> None:
    class Broken:
        def run(self, inputs: Tensors) -> Tensors:
            try:
                raise InternalError("on purpose")
            except InternalError as error:
                raise ModelFailed("with a cause") from error

    async def scenario(model: ServedModel) -> None:
        ends = Ends(model)
        ends.submit(1)
        ends.submit(2)
        assert await ends.freed()
        assert ends.codes == ["model_failed", "model_failed"]

    run(replace(ready, instances=[Broken()]), scenario)
