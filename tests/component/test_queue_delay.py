"""A served model whose requests wait for company: real timers, both where batches run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paceline.core.requests import InferRequest
from paceline.engine.model import ServedModel
from paceline.engine.warmup import Wishes, prepare
from paceline.runtimes.base import load
from support import models

PATIENCE_S = 20.0
DELAY_S = 0.15
HOSTING = {"inline": float("inf"), "thread": -1.0}


def serve(folder: Path, hosting: str, scenario: Callable[[ServedModel], Awaitable[Any]], instances: int = 1) -> Any:
    """Run `scenario` with a model that takes 4 rows at once and waits `DELAY_S` for them."""
    wishes = Wishes(max_batch_rows=4, instances=instances, threads=1, budget_s=0.02)
    ready = prepare(load(models.half_plus_two(folder / "m.onnx")), instances, wishes)

    async def run() -> Any:
        ready_here = replace(ready, inline_limit_s=HOSTING[hosting])
        model = ServedModel("m", "1", ready_here, max_queue_delay_s=DELAY_S)
        try:
            result = await asyncio.wait_for(scenario(model), PATIENCE_S)
            assert model.idle
            model.scheduler.validate_state()
            return result
        finally:
            model.close()

    return asyncio.run(run())


async def ask(model: ServedModel, timeout_s: float = PATIENCE_S) -> InferRequest:
    """One request of one row, once it has ended."""
    ended = asyncio.Event()
    inputs = (np.array([2], np.float32),)
    request = model.request(inputs, time.monotonic() + timeout_s, lambda _: ended.set())
    model.submit(request)
    await ended.wait()
    return request


@pytest.mark.slow
@pytest.mark.parametrize("hosting", HOSTING)
def test_a_single_request_waits_the_delay_and_no_less(tmp_path: Path, hosting: str) -> None:
    async def scenario(model: ServedModel) -> list[InferRequest]:
        return [await ask(model) for _ in range(3)]

    for request in serve(tmp_path, hosting, scenario):
        assert request.outputs is not None
        assert request.batch_rows == 1
        assert DELAY_S <= request.queue_s < DELAY_S + 0.1


@pytest.mark.parametrize("hosting", HOSTING)
@pytest.mark.parametrize("instances", [1, 2])
def test_full_batches_go_at_once(tmp_path: Path, hosting: str, instances: int) -> None:
    async def scenario(model: ServedModel) -> list[InferRequest]:
        return await asyncio.gather(*(ask(model) for _ in range(8)))

    requests = serve(tmp_path, hosting, scenario, instances)
    assert [request.batch_rows for request in requests] == [4] * 8
    assert max(request.queue_s for request in requests) < DELAY_S


@pytest.mark.slow
@pytest.mark.parametrize("hosting", HOSTING)
def test_what_a_full_batch_leaves_behind_is_run_when_it_has_waited(tmp_path: Path, hosting: str) -> None:
    async def scenario(model: ServedModel) -> list[InferRequest]:
        return await asyncio.gather(*(ask(model) for _ in range(6)))

    *full, first, second = serve(tmp_path, hosting, scenario)
    assert [request.batch_rows for request in (*full, first, second)] == [4, 4, 4, 4, 2, 2]
    assert DELAY_S <= first.queue_s < DELAY_S + 0.1


@pytest.mark.parametrize("hosting", HOSTING)
def test_a_deadline_shorter_than_the_delay_is_met(tmp_path: Path, hosting: str) -> None:
    request = serve(tmp_path, hosting, lambda model: ask(model, timeout_s=0.1))
    assert request.error is None
    assert request.queue_s < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("hosting", HOSTING)
def test_nothing_spins_while_a_request_waits(tmp_path: Path, hosting: str) -> None:
    looks: list[float] = []

    async def scenario(model: ServedModel) -> InferRequest:
        ask_for_a_batch = model.scheduler.next_batch

        def counted(now: float) -> Any:
            looks.append(now)
            return ask_for_a_batch(now)

        model.scheduler.next_batch = counted  # type: ignore[method-assign]
        return await ask(model)

    request = serve(tmp_path, hosting, scenario)
    assert request.queue_s >= DELAY_S
    # When it came, when its timer rang (a millisecond early at most twice), and when the thread was done with it.
    assert len(looks) <= 5
