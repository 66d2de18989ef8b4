"""A served model from the inside: real ONNX models behind the real scheduler, on an event loop."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto as T

from paceline.core.errors import (
    Cancelled,
    DeadlineExceeded,
    InternalError,
    InvalidRequest,
    ModelFailed,
    Overloaded,
    RequestTooLarge,
)
from paceline.core.requests import InferRequest
from paceline.core.tensors import Tensors
from paceline.engine.model import ServedModel
from paceline.engine.running import BatchRunner
from paceline.engine.warmup import Prepared, Wishes, prepare
from paceline.runtimes.base import Instance, load
from paceline.scheduling import LatencyModel, Scheduler
from support import models

PATIENCE_S = 20.0
HOSTING = {"inline": float("inf"), "thread": -1.0}


class Watched:
    """An instance that notes what it runs, and can be made to wait before it does.

    Attributes:
        batches: rows of each batch; threads: where each ran.
        started: set when a run begins; go: the run waits for it.
    """

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self.batches: list[int] = []
        self.inputs: list[Tensors] = []
        self.threads: list[threading.Thread] = []
        self.started = threading.Event()
        self.go = threading.Event()
        self.go.set()

    def run(self, inputs: Tensors) -> Tensors:
        self.batches.append(inputs[0].shape[0])
        self.inputs.append(inputs)
        self.threads.append(threading.current_thread())
        self.started.set()
        assert self.go.wait(PATIENCE_S)
        return self._instance.run(inputs)


class Outcomes:
    """Submits requests and collects how each ends; a second ending is a failure."""

    def __init__(self, model: ServedModel) -> None:
        self.model = model
        self.ended: list[InferRequest] = []
        self._change = asyncio.Event()

    def submit(self, *inputs: np.ndarray, timeout_s: float = PATIENCE_S) -> InferRequest:
        request = self.model.request(inputs, time.monotonic() + timeout_s, self._done)
        self.model.submit(request)
        return request

    async def wait_for(self, count: int) -> list[InferRequest]:
        async with asyncio.timeout(PATIENCE_S):
            while len(self.ended) < count:
                self._change.clear()
                await self._change.wait()
        return self.ended

    def _done(self, request: InferRequest) -> None:
        assert request not in self.ended, "ended twice"
        self.ended.append(request)
        self._change.set()


def prepared(path: Path, *, max_batch_rows: int = 32, instances: int = 1) -> tuple[Prepared, list[Watched]]:
    wishes = Wishes(max_batch_rows=max_batch_rows, instances=instances, threads=1, budget_s=0.02)
    ready = prepare(load(path), instances, wishes)
    watched = [Watched(instance) for instance in ready.instances]
    return replace(ready, instances=list(watched)), watched


def serve(ready: Prepared, hosting: str, scenario: Callable[[ServedModel], Awaitable[Any]], **options: Any) -> Any:
    """Run `scenario` with the model, on the event loop or on instance threads."""

    async def run() -> Any:
        model = ServedModel("m", "1", replace(ready, inline_limit_s=HOSTING[hosting]), **options)
        try:
            result = await asyncio.wait_for(scenario(model), PATIENCE_S)
            await idle(model)
            model.scheduler.validate_state()
            return result
        finally:
            model.close()

    return asyncio.run(run())


async def idle(model: ServedModel) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not model.idle:  # noqa: ASYNC110 - the model has no event for this; only tests wait for it
            await asyncio.sleep(0.001)


async def until_set(event: threading.Event) -> None:
    assert await asyncio.to_thread(event.wait, PATIENCE_S)


def row(*values: float) -> np.ndarray:
    return np.array([values], np.float32)


def index(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def codes(requests: list[InferRequest]) -> list[str | None]:
    return [request.error.code if request.error else None for request in requests]


# -- answers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hosting", HOSTING)
def test_a_batch_runs_where_its_length_says(tmp_path: Path, hosting: str) -> None:
    ready, (instance,) = prepared(models.mlp(tmp_path / "m.onnx"))

    async def scenario(model: ServedModel) -> list[Tensors]:
        return await asyncio.gather(*(model.infer((np.full((1, 64), i, np.float32),)) for i in range(8)))

    answers = serve(ready, hosting, scenario)
    on_loop = [thread is threading.main_thread() for thread in instance.threads]
    assert set(on_loop) == {hosting == "inline"}
    assert instance.batches == [8], "queued in one pass of the loop, so run together"
    for i, (answer,) in enumerate(answers):
        alone = ready.instances[0].run((np.full((1, 64), i, np.float32),))[0]
        assert answer == pytest.approx(alone, rel=1e-4, abs=1e-5)


def test_fault_051_zero_rows_get_an_empty_answer(tmp_path: Path) -> None:
    ready, (instance,) = prepared(models.two_in_two_out(tmp_path / "m.onnx"))
    empty = (np.empty((0, 2), np.float32), np.empty((0, 2), np.int64))
    added, doubled = serve(ready, "inline", lambda model: model.infer(empty))
    assert (added.shape, added.dtype) == ((0, 2), np.float32)
    assert (doubled.shape, doubled.dtype) == ((0, 2), np.int64)
    assert instance.batches == []


@pytest.mark.parametrize("hosting", HOSTING)
def test_fault_052_a_request_over_the_maximum_is_cut_and_joined_again(tmp_path: Path, hosting: str) -> None:
    ready, watched = prepared(models.two_in_two_out(tmp_path / "m.onnx"), max_batch_rows=4, instances=2)
    a = np.arange(22, dtype=np.float32).reshape(11, 2)
    b = np.arange(22, dtype=np.int64).reshape(11, 2)
    added, doubled = serve(ready, hosting, lambda model: model.infer((a, b)))
    assert added.tolist() == (a + b).tolist()
    assert doubled.tolist() == (b + b).tolist()
    assert sorted(watched[0].batches + watched[1].batches) == [3, 4, 4]


def test_a_model_fixed_at_one_row_answers_many(tmp_path: Path) -> None:
    ready, (instance,) = prepared(models.identity(tmp_path / "m.onnx", T.FLOAT, (1, 3)))
    x = np.arange(12, dtype=np.float32).reshape(4, 3)
    (y,) = serve(ready, "inline", lambda model: model.infer((x,)))
    assert y.tolist() == x.tolist()
    assert instance.batches == [1, 1, 1, 1]


def test_a_model_without_rows_runs_each_request_alone(tmp_path: Path) -> None:
    ready, (instance,) = prepared(models.total(tmp_path / "m.onnx"))

    async def scenario(model: ServedModel) -> list[Tensors]:
        return await asyncio.gather(*(model.infer((np.full(4, i, np.float32),)) for i in range(3)))

    assert [float(total) for (total,) in serve(ready, "inline", scenario)] == [0.0, 4.0, 8.0]
    assert len(instance.batches) == 3


def test_rows_that_influence_one_another_never_share_a_batch(tmp_path: Path) -> None:
    ready, (instance,) = prepared(models.softmax_over_rows(tmp_path / "m.onnx"))

    async def scenario(model: ServedModel) -> list[Tensors]:
        return await asyncio.gather(*(model.infer((np.zeros((n, 3), np.float32),)) for n in (1, 2, 4)))

    answers = serve(ready, "inline", scenario)
    assert [float(y[0, 0]) for (y,) in answers] == [1.0, 0.5, 0.25]
    assert instance.batches == [1, 2, 4]


@pytest.mark.parametrize("hosting", HOSTING)
def test_only_equal_trailing_shapes_share_a_batch(tmp_path: Path, hosting: str) -> None:
    ready, (instance,) = prepared(models.identity(tmp_path / "m.onnx", T.FLOAT, ("N", "L")))
    widths = [3, 5, 3, 5, 7]

    async def scenario(model: ServedModel) -> list[Tensors]:
        return await asyncio.gather(
            *(model.infer((np.full((1, width), i, np.float32),)) for i, width in enumerate(widths))
        )

    answers = serve(ready, hosting, scenario)
    assert [(y.shape, float(y[0, 0])) for (y,) in answers] == [((1, w), i) for i, w in enumerate(widths)]
    assert sorted(array.shape for (array,) in instance.inputs) == [(1, 7), (2, 3), (2, 5)]


def test_fault_061_the_numbers_are_the_same_with_and_without_batching(tmp_path: Path) -> None:
    path = models.mlp(tmp_path / "m.onnx")
    rows = np.random.default_rng(0).standard_normal((40, 64)).astype(np.float32)

    async def scenario(model: ServedModel) -> list[Tensors]:
        return await asyncio.gather(*(model.infer((rows[i : i + 1],)) for i in range(len(rows))))

    together, (shared,) = prepared(path, max_batch_rows=32)
    apart, (single,) = prepared(path, max_batch_rows=1)
    batched = serve(together, "inline", scenario)
    unbatched = serve(apart, "inline", scenario)
    assert shared.batches == [32, 8]
    assert set(single.batches) == {1}
    for (one,), (other,) in zip(batched, unbatched, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


# -- guilty rows ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hosting", HOSTING)
def test_fault_054_only_the_request_with_a_nonfinite_output_fails(tmp_path: Path, hosting: str) -> None:
    ready, (instance,) = prepared(models.log_of(tmp_path / "m.onnx"))

    async def scenario(model: ServedModel) -> list[InferRequest]:
        outcomes = Outcomes(model)
        requests = [outcomes.submit(row(1.0, value)) for value in (1.0, -1.0, 2.0, 0.0)]
        await outcomes.wait_for(4)
        return requests

    requests = serve(ready, hosting, scenario)
    assert instance.batches == [4]
    assert codes(requests) == [None, "nonfinite_output", None, "nonfinite_output"]
    assert requests[2].outputs is not None
    assert requests[2].outputs[0][0, 1] == pytest.approx(np.log(2.0))


def test_fault_054_large_finite_outputs_are_finite(tmp_path: Path) -> None:
    for element, dtype in ((T.FLOAT16, np.float16), (T.FLOAT, np.float32), (T.DOUBLE, np.float64)):
        ready, _ = prepared(models.identity(tmp_path / "m.onnx", element, ("N", 2)))
        largest = np.full((2, 2), np.finfo(dtype).max, dtype)
        (y,) = serve(ready, "inline", lambda model, x=largest: model.infer((x,)))
        assert y.tolist() == largest.tolist()


def test_fault_054_the_operator_may_let_nonfinite_outputs_through(tmp_path: Path) -> None:
    ready, _ = prepared(models.log_of(tmp_path / "m.onnx"))

    async def scenario(model: ServedModel) -> Tensors:
        assert model.nonfinite == "null", "protocols ask how to write them"
        return await model.infer((row(1.0, 0.0),))

    (y,) = serve(ready, "inline", scenario, nonfinite="null")
    assert y[0].tolist() == [0.0, -np.inf]


def test_fault_054_nonfinite_outputs_in_bf16_are_found(tmp_path: Path) -> None:
    ready, _ = prepared(models.identity(tmp_path / "m.onnx", T.BFLOAT16, ("N", 2)))
    finite = [0x0000, 0x8000, 0x7F7F, 0xFF7F, 0x3F80, 0x0001]  # zeros, the largest, one, the smallest
    nonfinite = [0x7F80, 0xFF80, 0x7FC0, 0xFFFF, 0x7F81]  # infinities, and NaN of several kinds

    async def scenario(model: ServedModel) -> list[InferRequest]:
        outcomes = Outcomes(model)
        requests = [outcomes.submit(np.array([[0x3F80, bits]], np.uint16)) for bits in finite + nonfinite]
        await outcomes.wait_for(len(requests))
        return requests

    requests = serve(ready, "inline", scenario)
    assert codes(requests) == [None] * len(finite) + ["nonfinite_output"] * len(nonfinite)
    assert [request.outputs[0][0, 1] for request in requests if request.outputs] == finite


@pytest.mark.parametrize("hosting", HOSTING)
def test_fault_054_one_nonfinite_part_ends_the_whole_request_once(tmp_path: Path, hosting: str) -> None:
    ready, _ = prepared(models.log_of(tmp_path / "m.onnx"), max_batch_rows=2, instances=2)
    bad = np.ones((7, 2), np.float32)
    bad[2] = -1.0

    async def scenario(model: ServedModel) -> list[InferRequest]:
        outcomes = Outcomes(model)
        requests = [outcomes.submit(bad), outcomes.submit(row(1.0, 1.0))]
        await outcomes.wait_for(2)
        await idle(model)
        return requests

    assert codes(serve(ready, hosting, scenario)) == ["nonfinite_output", None]


@pytest.mark.parametrize("hosting", HOSTING)
def test_fault_055_a_wrong_number_of_rows_fails_only_the_request_that_causes_it(tmp_path: Path, hosting: str) -> None:
    ready, _ = prepared(models.dropping(tmp_path / "m.onnx"))
    assert ready.signature.batched

    async def scenario(model: ServedModel) -> list[InferRequest]:
        outcomes = Outcomes(model)
        requests = [outcomes.submit(row(value, 1.0)) for value in (1.0, 2.0, -200.0, 3.0)]
        await outcomes.wait_for(4)
        return requests

    requests = serve(ready, hosting, scenario)
    assert codes(requests) == [None, None, "bad_model_output", None]
    answers = [request.outputs[0].tolist() for request in requests if request.outputs]
    assert answers == [[[1.0, 1.0]], [[2.0, 1.0]], [[3.0, 1.0]]]


@pytest.mark.parametrize("hosting", HOSTING)
@pytest.mark.parametrize("instances", [1, 2])
def test_fault_056_one_poison_row_in_a_batch_of_32_fails_alone(tmp_path: Path, hosting: str, instances: int) -> None:
    ready, watched = prepared(models.gather(tmp_path / "m.onnx"), instances=instances)

    async def scenario(model: ServedModel) -> list[InferRequest]:
        outcomes = Outcomes(model)
        requests = [outcomes.submit(index(99 if i == 20 else i % 10)) for i in range(32)]
        await outcomes.wait_for(32)
        return requests

    requests = serve(ready, hosting, scenario)
    batches = [rows for instance in watched for rows in instance.batches]
    assert max(batches) == 32
    assert len(batches) == 11
    assert [i for i, request in enumerate(requests) if request.error] == [20]
    assert isinstance(requests[20].error, ModelFailed)
    for i, request in enumerate(requests):
        assert i == 20 or request.outputs[0][0, 0] == 4 * (i % 10)


def test_a_poisoned_part_ends_the_whole_request_once_and_no_other(tmp_path: Path) -> None:
    for hosting in HOSTING:
        ready, _ = prepared(models.gather(tmp_path / "m.onnx"), max_batch_rows=4, instances=2)

        async def scenario(model: ServedModel) -> list[InferRequest]:
            outcomes = Outcomes(model)
            large = outcomes.submit(index(0, 1, 2, 3, 4, 5, 6, 99, 8, 9))
            small = [outcomes.submit(index(i)) for i in range(3)]
            await outcomes.wait_for(4)
            await idle(model)
            return [large, *small]

        assert codes(serve(ready, hosting, scenario)) == ["model_failed", None, None, None]


def test_text_that_is_no_unicode_is_the_fault_of_its_request(tmp_path: Path) -> None:
    ready, _ = prepared(models.identity(tmp_path / "m.onnx", T.STRING, ("N", 1)))

    async def scenario(model: ServedModel) -> list[InferRequest]:
        outcomes = Outcomes(model)
        requests = [outcomes.submit(np.array([[text]], object)) for text in (b"good", b"\xff", "good")]
        await outcomes.wait_for(3)
        return requests

    requests = serve(ready, "inline", scenario)
    assert [type(request.error) for request in requests] == [type(None), InvalidRequest, type(None)]


def test_a_defect_of_ours_in_a_run_is_an_internal_error(tmp_path: Path) -> None:
    class Broken:
        def run(self, inputs: Tensors) -> Tensors:
            raise ZeroDivisionError("no")

    ready, _ = prepared(models.mlp(tmp_path / "m.onnx"))
    broken = replace(ready, instances=[Broken()])
    with pytest.raises(InternalError, match="ZeroDivisionError: no"):
        serve(broken, "thread", lambda model: model.infer((np.ones((1, 64), np.float32),)))


class Widening:
    """An instance whose output is as wide as the number of rows: each batch is right, several do not fit together."""

    def run(self, inputs: Tensors) -> Tensors:
        rows = len(inputs[0])
        return (np.zeros((rows, rows), np.float32),)


@pytest.mark.parametrize("hosting", HOSTING)
def test_fault_055_parts_that_cannot_be_joined_fail_their_request_alone(tmp_path: Path, hosting: str) -> None:
    ready, _ = prepared(models.gather(tmp_path / "m.onnx"), max_batch_rows=4)
    ready = replace(ready, instances=[Widening()])

    async def scenario(model: ServedModel) -> list[InferRequest]:
        outcomes = Outcomes(model)
        requests = [outcomes.submit(index(*range(6))), outcomes.submit(index(6))]
        await outcomes.wait_for(2)
        return requests

    requests = serve(ready, hosting, scenario)
    assert codes(requests) == ["bad_model_output", None]
    assert requests[0].error.detail.startswith("ValueError: ")


def fail_once(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
    real, failed = getattr(owner, name), []

    def failing(*args: Any) -> Any:
        if not failed:
            failed.append(True)
            raise ZeroDivisionError("a defect")
        return real(*args)

    monkeypatch.setattr(owner, name, failing)


@pytest.mark.parametrize("hosting", HOSTING)
@pytest.mark.parametrize(
    ("owner", "name"),
    [(BatchRunner, "run"), (LatencyModel, "observe"), (Scheduler, "finished")],
)
def test_a_defect_of_ours_beside_a_run_loses_its_batch_and_nothing_else(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    hosting: str,
    owner: type,
    name: str,
) -> None:
    ready, _ = prepared(models.gather(tmp_path / "m.onnx"), max_batch_rows=4)
    fail_once(monkeypatch, owner, name)

    async def scenario(model: ServedModel) -> list[InferRequest]:
        outcomes = Outcomes(model)
        requests = [outcomes.submit(index(*range(6))), outcomes.submit(index(1)), outcomes.submit(index(*range(4)))]
        await outcomes.wait_for(3)
        requests.append(outcomes.submit(index(3)))
        await outcomes.wait_for(4)
        return requests

    assert codes(serve(ready, hosting, scenario)) == ["internal", None, None, None]
    assert "ZeroDivisionError: a defect" in capsys.readouterr().err


def test_a_defect_of_ours_in_the_next_batch_loses_no_answer_silently(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready, (instance,) = prepared(models.gather(tmp_path / "m.onnx"), max_batch_rows=1)
    instance.go.clear()

    async def scenario(model: ServedModel) -> list[InferRequest]:
        outcomes = Outcomes(model)
        requests = [outcomes.submit(index(1))]
        await until_set(instance.started)
        requests.append(outcomes.submit(index(2)))
        await asyncio.sleep(0)  # its own dispatch finds no instance
        fail_once(monkeypatch, Scheduler, "next_batch")
        instance.go.set()
        await outcomes.wait_for(2)
        return requests

    assert codes(serve(ready, "thread", scenario)) == ["internal", None]


# -- cancellation ---------------------------------------------------------------------------------------------


def test_fault_031_what_is_cancelled_before_it_starts_never_runs(tmp_path: Path) -> None:
    ready, (instance,) = prepared(models.gather(tmp_path / "m.onnx"), max_batch_rows=1)
    instance.go.clear()

    async def scenario(model: ServedModel) -> tuple[list[InferRequest], InferRequest]:
        outcomes = Outcomes(model)
        outcomes.submit(index(1))
        await until_set(instance.started)
        left, stays = outcomes.submit(index(2)), outcomes.submit(index(3))
        model.cancel(left)
        instance.go.set()
        await outcomes.wait_for(2)
        assert left not in outcomes.ended
        assert stays in outcomes.ended
        return outcomes.ended, left

    _, left = serve(ready, "thread", scenario)
    assert isinstance(left.error, Cancelled)
    assert [inputs[0].tolist() for inputs in instance.inputs] == [[1], [3]]


def test_the_result_of_a_request_cancelled_while_it_runs_is_ignored(tmp_path: Path) -> None:
    ready, (instance,) = prepared(models.gather(tmp_path / "m.onnx"), max_batch_rows=1)
    instance.go.clear()

    async def scenario(model: ServedModel) -> list[InferRequest]:
        outcomes = Outcomes(model)
        left = outcomes.submit(index(1))
        await until_set(instance.started)
        model.cancel(left)
        model.cancel(left)
        instance.go.set()
        outcomes.submit(index(2))
        await outcomes.wait_for(1)
        await idle(model)
        return outcomes.ended

    (ended,) = serve(ready, "thread", scenario)
    assert ended.inputs[0].tolist() == [2]


def test_cancelling_a_request_in_parts_stops_the_parts_that_wait(tmp_path: Path) -> None:
    ready, (instance,) = prepared(models.gather(tmp_path / "m.onnx"), max_batch_rows=2)
    instance.go.clear()

    async def scenario(model: ServedModel) -> list[InferRequest]:
        outcomes = Outcomes(model)
        large = outcomes.submit(index(*range(8)))
        await until_set(instance.started)
        model.cancel(large)
        assert model.scheduler.queued_requests == 0
        instance.go.set()
        await idle(model)
        await asyncio.sleep(0)
        return outcomes.ended

    assert serve(ready, "thread", scenario) == []
    assert instance.batches == [2]


def test_a_cancelled_request_of_zero_rows_is_not_answered(tmp_path: Path) -> None:
    ready, _ = prepared(models.gather(tmp_path / "m.onnx"))

    async def scenario(model: ServedModel) -> list[InferRequest]:
        outcomes = Outcomes(model)
        model.cancel(outcomes.submit(index()))
        last = outcomes.submit(index(1))
        await outcomes.wait_for(1)
        assert outcomes.ended == [last]
        return outcomes.ended

    serve(ready, "inline", scenario)


def test_giving_up_on_infer_cancels_the_request(tmp_path: Path) -> None:
    ready, (instance,) = prepared(models.gather(tmp_path / "m.onnx"), max_batch_rows=1)
    instance.go.clear()

    async def scenario(model: ServedModel) -> None:
        first = asyncio.ensure_future(model.infer((index(1),)))
        await until_set(instance.started)
        second = asyncio.ensure_future(model.infer((index(2),)))
        await asyncio.sleep(0)
        assert model.scheduler.queued_requests == 1
        second.cancel()
        await asyncio.wait([second])
        assert model.scheduler.queued_requests == 0
        instance.go.set()
        await first

    serve(ready, "thread", scenario)
    assert len(instance.batches) == 1


# -- deadlines and bounds -------------------------------------------------------------------------------------


def test_a_deadline_that_passes_while_running_is_kept_and_the_late_result_ignored(tmp_path: Path) -> None:
    ready, (instance,) = prepared(models.gather(tmp_path / "m.onnx"))
    instance.go.clear()

    async def scenario(model: ServedModel) -> tuple[list[InferRequest], float]:
        outcomes = Outcomes(model)
        started = time.monotonic()
        outcomes.submit(index(1), timeout_s=0.05)
        ended = await outcomes.wait_for(1)
        took_s = time.monotonic() - started
        assert model.scheduler.running_batches == 1
        instance.go.set()
        await idle(model)
        return ended, took_s

    (late,), took_s = serve(ready, "thread", scenario)
    assert isinstance(late.error, DeadlineExceeded)
    assert late.outputs is None
    assert 0.05 <= took_s < 2


def test_a_deadline_that_passes_in_the_queue_is_kept(tmp_path: Path) -> None:
    ready, (instance,) = prepared(models.gather(tmp_path / "m.onnx"), max_batch_rows=2)
    instance.go.clear()

    async def scenario(model: ServedModel) -> list[InferRequest]:
        outcomes = Outcomes(model)
        outcomes.submit(index(1))
        await until_set(instance.started)
        outcomes.submit(index(*range(6)), timeout_s=0.05)
        late = list(await outcomes.wait_for(1))
        instance.go.set()
        await outcomes.wait_for(2)
        return late

    (late,) = serve(ready, "thread", scenario)
    assert isinstance(late.error, DeadlineExceeded)
    assert late.rows == 6
    assert instance.batches == [1]


def test_a_full_queue_refuses(tmp_path: Path) -> None:
    ready, (instance,) = prepared(models.gather(tmp_path / "m.onnx"), max_batch_rows=1)
    instance.go.clear()

    async def scenario(model: ServedModel) -> None:
        outcomes = Outcomes(model)
        outcomes.submit(index(1))
        await until_set(instance.started)
        outcomes.submit(index(2))
        outcomes.submit(index(3))
        with pytest.raises(Overloaded) as caught:
            outcomes.submit(index(4))
        assert caught.value.reason == "queue_full"
        instance.go.set()
        await outcomes.wait_for(3)

    serve(ready, "thread", scenario, max_queue_requests=2)


def test_rows_that_hold_nothing_are_answered_and_bounded(tmp_path: Path) -> None:
    ready, _ = prepared(models.identity(tmp_path / "m.onnx", T.FLOAT, ("N", "L")))

    async def scenario(model: ServedModel) -> None:
        for rows in (1, 5, 3000):
            (y,) = await model.infer((np.empty((rows, 0), np.float32),))
            assert y.shape == (rows, 0)
        with pytest.raises(RequestTooLarge):
            await model.infer((np.empty((1 << 40, 0), np.float32),))

    serve(ready, "inline", scenario)


def test_what_waits_is_counted_while_no_thread_changes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ready, _ = prepared(models.gather(tmp_path / "m.onnx"))
    locks: list[threading.Lock] = []

    async def scenario(model: ServedModel) -> None:
        def counted(scheduler: Scheduler) -> int:
            assert model._lock.locked()
            locks.append(model._lock)
            return 0

        with monkeypatch.context() as patch:
            patch.setattr(Scheduler, "queued_requests", property(counted))
            patch.setattr(Scheduler, "queued_rows", property(counted))
            assert model.queued_requests == model.queued_rows == 0
            assert model.idle

    serve(ready, "inline", scenario)
    assert len(locks) == 3


def test_an_answer_that_cannot_be_delivered_costs_no_other_its_own(tmp_path: Path) -> None:
    for hosting in HOSTING:
        ready, _ = prepared(models.gather(tmp_path / "m.onnx"))

        async def scenario(model: ServedModel) -> list[str]:
            said: list[str] = []
            asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context["message"]))
            outcomes = Outcomes(model)

            def fail(request: InferRequest) -> None:
                raise ZeroDivisionError

            model.submit(model.request((index(1),), time.monotonic() + PATIENCE_S, fail))
            outcomes.submit(index(2))
            outcomes.submit(index(3))
            await outcomes.wait_for(2)
            return said

        assert len(serve(ready, hosting, scenario)) == 1


@pytest.mark.slow
@pytest.mark.parametrize("hosting", HOSTING)
@pytest.mark.parametrize("seed", range(3))
def test_every_request_ends_once_in_a_storm_of_faults(tmp_path: Path, hosting: str, seed: int) -> None:
    ready, _ = prepared(models.gather(tmp_path / "m.onnx"), max_batch_rows=8, instances=3)
    random = np.random.default_rng(seed)

    async def scenario(model: ServedModel) -> None:
        outcomes = Outcomes(model)
        requests, left = [], []
        for number in range(600):
            rows = random.integers(0, 10, random.integers(1, 25))
            if number % 11 == 0:
                rows[-1] = 99
            with suppress(Overloaded):
                requests.append(outcomes.submit(rows, timeout_s=0.002 if number % 7 == 0 else PATIENCE_S))
            if number % 5 == 0 and requests:
                # As a client that leaves at any moment: waiting, running, or answered already.
                await asyncio.sleep(0)
                victim = requests[random.integers(len(requests))]
                if victim not in outcomes.ended and victim not in left:
                    model.cancel(victim)
                    left.append(victim)
        assert len(requests) > 500
        await outcomes.wait_for(len(requests) - len(left))
        assert not set(outcomes.ended) & set(left)
        for request in outcomes.ended:
            check_ending(request)

    serve(ready, hosting, scenario)


def check_ending(request: InferRequest) -> None:
    (rows,) = request.inputs
    if request.error is None:
        assert request.outputs is not None
        assert request.outputs[0][:, 0].tolist() == (4.0 * rows).tolist()
    elif isinstance(request.error, ModelFailed):
        assert 99 in rows, "only the guilty fail"
    else:
        assert isinstance(request.error, DeadlineExceeded)
