"""A model that takes items, with a real worker: its calls end, and leave nothing behind."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from paceline.core.errors import PacelineError
from paceline.core.requests import InferRequest
from paceline.core.tensors import column
from paceline.engine.items import ItemsModel
from paceline.engine.pool import Limits
from paceline.engine.prediction_cache import MemoryCache
from paceline.engine.service_warmup import prepare_service
from paceline.engine.warmup import Wishes
from paceline.workers.service import Options, ServiceModel, Source

pytestmark = pytest.mark.slow

PATIENCE_S = 30.0
CODE = """
import time

def predict(batch: list):
    if "slow" in batch:
        time.sleep(0.3)
    if "poison" in batch:
        raise ValueError("poison")
    return batch
"""


class Asker:
    """Submits calls, and keeps nothing of them but weak references and how they ended."""

    def __init__(self, model: ItemsModel) -> None:
        self._model = model
        self.calls: list[weakref.ref[InferRequest]] = []
        self.ends: list[str] = []

    def ask(self, *items: str, timeout_s: float = PATIENCE_S, leave: bool = False, by_row: bool = False) -> None:
        deadline = time.monotonic() + timeout_s
        request = self._model.request((column([b'"%b"' % item.encode() for item in items]),), deadline, self._ended)
        request.errors_by_row = by_row
        self.calls.append(weakref.ref(request))
        try:
            self._model.submit(request)
        except PacelineError as error:
            self.ends.append(error.code)
        if leave:
            self._model.cancel(request)

    def _ended(self, request: InferRequest) -> None:
        if request.error is not None:
            self.ends.append(request.error.code)
            return
        assert request.outputs is not None
        self.ends += [each.code if isinstance(each, PacelineError) else each.decode() for each in request.outputs[0]]

    async def all_gone(self, ends: int) -> bool:
        """True as soon as so many ends have come, and every call is freed without the collector."""
        async with asyncio.timeout(PATIENCE_S):
            while len(self.ends) < ends or not self._model.idle or any(call() is not None for call in self.calls):  # noqa: ASYNC110
                await asyncio.sleep(0.002)
        return True


@contextmanager
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def run(path: Path, scenario: Callable[[Asker], Awaitable[None]], **options: Any) -> None:
    async def main() -> None:
        service = ServiceModel(Source(path), "m", Options())
        prepared = await asyncio.to_thread(prepare_service, service, 1, Wishes(4, 1, 1, 0.0), None, Limits())
        model = ItemsModel("m", "1", prepared, limits=Limits(), say=lambda _: None, **options)
        try:
            with no_collector():
                await scenario(Asker(model))
        finally:
            model.close()

    path.write_text(CODE)
    asyncio.run(main())


Step = dict[str, Any]
SCENARIOS: dict[str, tuple[Sequence[tuple[tuple[str, ...], Step]], list[str]]] = {
    "answered": ([(("a",), {})], ['"a"']),
    "shared": ([(("a",), {}), (("a", "b"), {}), (("b",), {})], ['"a"', '"a"', '"b"', '"b"']),
    "failed": ([(("poison",), {}), (("poison",), {})], ["model_failed"] * 2),
    "failed in a list": ([(("a", "poison"), {"by_row": True}), (("a",), {})], ['"a"', '"a"', "model_failed"]),
    "longer than a batch": ([(tuple("abcdefghij"), {})], [f'"{letter}"' for letter in "abcdefghij"]),
    "left": ([(("a",), {"leave": True}), (("a",), {})], ['"a"']),
    "left by all": ([(("a", "b"), {"leave": True}), (("a",), {"leave": True})], []),
    "late in the queue": ([(("slow",), {}), (("a",), {"timeout_s": 0.05}), (("a",), {})], ['"a"', '"slow"', "late"]),
    "late while it rides": ([(("slow",), {}), (("slow",), {"timeout_s": 0.05})], ['"slow"', "late"]),
}


@pytest.mark.parametrize("cache", [False, True], ids=["nothing kept", "kept"])
@pytest.mark.parametrize("name", SCENARIOS)
def test_calls_end_and_leave_nothing_behind(tmp_path: Path, name: str, cache: bool) -> None:
    steps, wanted = SCENARIOS[name]

    async def scenario(asker: Asker) -> None:
        for items, options in steps:
            asker.ask(*items, **options)
            await asyncio.sleep(0)
        assert await asker.all_gone(len(wanted))
        late = ("deadline_exceeded", "overloaded")
        assert sorted("late" if end in late else end for end in asker.ends) == sorted(wanted)

    run(tmp_path / "service.py", scenario, cache=MemoryCache(1 << 20, 60.0) if cache else None)


def test_what_is_kept_is_told_later_and_not_to_those_who_left(tmp_path: Path) -> None:
    async def scenario(asker: Asker) -> None:
        asker.ask("a")
        assert await asker.all_gone(1)
        asker.ask("a", leave=True)
        asker.ask("a")
        assert asker.ends == ['"a"'], "it was told before submit had returned"
        assert await asker.all_gone(2)
        assert asker.ends == ['"a"', '"a"']

    run(tmp_path / "service.py", scenario, cache=MemoryCache(1 << 20, 60.0))
