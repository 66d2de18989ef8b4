"""How calls end, in one process: what they leave behind, what is counted, and what a full queue does to them."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from onnx import TensorProto as T

from paceline.core.requests import InferRequest
from paceline.server.calls import Inference
from paceline.server.http1 import HttpRequest
from support import models
from support.inside import Inside

GOOD = {"inputs": [{"name": "i", "shape": [1], "datatype": "INT64", "data": [3]}]}
CALLS: dict[str, tuple[str, Any, int]] = {
    "good predict": ("/predict", 3, 200),
    "mistyped predict": ("/predict", "a", 400),
    "predict of a list": ("/predict", [1], 400),
    "no JSON": ("/predict", b"{", 400),
    "failing predict": ("/predict", 99, 500),
    "good batch-predict": ("/batch-predict", [1, 2], 200),
    "batch-predict with bad items": ("/batch-predict", [1, "a", 2], 200),
    "batch-predict with failing items": ("/batch-predict", [1, 99, 2], 200),
    "batch-predict with both": ("/batch-predict", [1, 99, "a"], 200),
    "no list": ("/batch-predict", 1, 400),
    "rows": ("/v1/models/table:predict", {"instances": [1]}, 200),
    "columns": ("/v1/models/table:predict", {"inputs": [1]}, 200),
    "bad rows": ("/v1/models/table:predict", {"instances": ["a"]}, 400),
    "failing rows": ("/v1/models/table:predict", {"instances": [99]}, 500),
    "open inference": ("/v2/models/table/infer", GOOD, 200),
    "bad open inference": ("/v2/models/table/infer", {"inputs": []}, 400),
    "bad element": ("/v2/models/table/infer", {"inputs": [{**GOOD["inputs"][0], "data": ["a"]}]}, 400),
    "failing open inference": ("/v2/models/table/infer", {"inputs": [{**GOOD["inputs"][0], "data": [99]}]}, 500),
}


@pytest.fixture
def table(tmp_path: Path) -> Callable[..., Inside]:
    path = models.gather(tmp_path / "table.onnx")
    return lambda **options: Inside(path, **options)


@pytest.fixture
def uncollected() -> Iterator[Callable[[], list[str]]]:
    """The requests and calls that only the collector would find; it is off meanwhile."""

    def found() -> list[str]:
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        gc.set_debug(0)
        kinds = (HttpRequest, InferRequest, Inference)
        names = [type(each).__name__ for each in gc.garbage if isinstance(each, kinds)]
        gc.garbage.clear()
        return names

    gc.collect()
    gc.disable()
    yield found
    gc.enable()


@pytest.mark.parametrize("case", CALLS)
def test_requests_leave_no_reference_cycles(table: Any, uncollected: Any, case: str) -> None:
    path, body, status = CALLS[case]

    async def scenario() -> list[str]:
        inside = table()
        await inside.post(path, body)
        uncollected()
        for _ in range(3):
            assert (await inside.post(path, body))[0] == status
        found: list[str] = uncollected()
        inside.model.close()
        return found

    assert asyncio.run(scenario()) == []


@pytest.mark.parametrize("body", [1, [1, 2], [1, "a"]])
def test_clients_that_leave_leave_no_reference_cycles(table: Any, uncollected: Any, body: Any) -> None:
    async def scenario() -> list[str]:
        inside = table()
        uncollected()
        connection, _ = inside.send("/batch-predict" if isinstance(body, list) else "/predict", body)
        connection.connection_lost(None)
        del connection
        for _ in range(20):
            await asyncio.sleep(0.001)
        assert inside.model.telemetry.requests == {("plain", "cancelled"): 1}
        assert inside.model.idle
        found: list[str] = uncollected()
        inside.model.close()
        return found

    assert asyncio.run(scenario()) == []


@pytest.mark.parametrize("case", CALLS)
def test_every_call_is_counted_once(table: Any, case: str) -> None:
    path, body, status = CALLS[case]

    async def scenario() -> None:
        inside = table()
        answered, answer = await inside.post(path, body)
        assert answered == status
        ((_, outcome),) = inside.model.telemetry.requests.elements()
        assert outcome == ("ok" if status == 200 else answer["code"])
        inside.model.close()

    asyncio.run(scenario())


def test_a_full_queue_refuses_a_list_with_a_bad_item_whole(table: Any) -> None:
    async def scenario() -> None:
        inside = table(max_queue_requests=1)
        _, first = inside.send("/batch-predict", [1, "a"])
        _, second = inside.send("/batch-predict", [1, "a"])
        assert (await first.answer()).startswith(b"HTTP/1.1 200")
        assert (await second.answer()).startswith(b"HTTP/1.1 503")
        assert inside.model.telemetry.rejected == {"queue_full": 1}
        inside.model.close()

    asyncio.run(scenario())


def test_a_list_with_a_bad_item_takes_one_place_in_the_queue(table: Any) -> None:
    async def scenario() -> None:
        inside = table(max_queue_requests=1)
        status, answer = await inside.post("/batch-predict", [1, 2, 3, "a"])
        assert (status, [type(item) for item in answer]) == (200, [list, list, list, dict])
        inside.model.close()

    asyncio.run(scenario())


def test_long_lists_without_batch_dimension_never_fill_the_queue(tmp_path: Path) -> None:
    async def scenario() -> None:
        inside = Inside(models.identity(tmp_path / "fixed.onnx", T.FLOAT, (2,)), max_queue_requests=100)
        status, answer = await inside.post("/batch-predict", [[index, 0] for index in range(1000)])
        assert (status, answer) == (200, [[index, 0] for index in range(1000)])
        inside.model.close()

    asyncio.run(scenario())


def test_a_list_with_a_bad_item_leaves_the_loop_to_others(table: Any) -> None:
    async def scenario() -> None:
        inside = table()
        _, long = inside.send("/batch-predict", [1] * 100_000 + ["a"])
        passes = 0
        async with asyncio.timeout(20):
            while not long.written:
                passes += 1
                await asyncio.sleep(0)
        assert passes > 100
        inside.model.close()

    asyncio.run(scenario())


def test_the_timeout_in_a_body_is_checked_at_admission(table: Any) -> None:
    async def scenario() -> None:
        inside = table()
        path = "/v2/models/table/infer"
        assert (await inside.post(path, GOOD))[0] == 200
        status, answer = await inside.post(path, GOOD | {"parameters": {"timeout": 1}})
        assert (status, answer["code"]) == (503, "deadline_unreachable")
        assert inside.model.telemetry.rejected == {"deadline_unreachable": 1}
        inside.model.close()

    asyncio.run(scenario())
