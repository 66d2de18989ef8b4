"""One served model: requests in, batches run, results out.

Rules:
- Everything but the run of a long batch happens on the event loop, so nothing here needs a lock.
- Requests parsed in one pass of the event loop are queued before the batch is formed: `submit` only asks for
  a dispatch, which runs when the pass is over.
- A batch that is predicted to run for less than `inline_limit_s` runs on the event loop, the others on the
  thread of their instance. The prediction is of the run alone: the service time of a batch on a thread holds the
  hand-over too, and would keep it there for ever.
- Every request ends exactly once, through `_answer` or `_fail`, or by `cancel`.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from paceline.core.errors import Cancelled, DeadlineExceeded, InternalError, ModelFailed, PacelineError
from paceline.core.requests import DONE, InferRequest
from paceline.core.tensors import Array, DataType, Signature, Tensors, group_of
from paceline.engine.instances import InstanceThread
from paceline.engine.telemetry import Telemetry
from paceline.scheduling import Batch, LatencyModel, Policy, Scheduler

if TYPE_CHECKING:
    from paceline.engine.warmup import Prepared

_NEVER = float("inf")
# Timers of the event loop have a resolution of a millisecond and may be that early.
_TIMER_SLACK_S = 1e-3


class ServedModel:
    """A warm model behind a scheduler, on the running event loop.

    Args:
        name, version: how clients address it.
        prepared: its instances and what was measured at warm-up.
        nonfinite: `error` fails requests with NaN or infinite outputs; other values let them through.
    """

    def __init__(
        self,
        name: str,
        version: str,
        prepared: Prepared,
        *,
        nonfinite: str = "error",
        max_queue_requests: int = 4096,
        max_queue_bytes: int = 256 << 20,
    ) -> None:
        self.name = name
        self.version = version
        self.prepared = prepared
        self.signature: Signature = prepared.signature
        self.telemetry = Telemetry()
        policy = Policy(
            max_batch_rows=prepared.max_batch_rows,
            instances=len(prepared.instances),
            max_queue_requests=max_queue_requests,
            max_queue_bytes=max_queue_bytes,
        )
        self.latency = LatencyModel(prepared.profile)
        self._run_time = LatencyModel(prepared.profile)
        self.scheduler = Scheduler(policy, self.latency)
        self._loop = asyncio.get_running_loop()
        self._threads = [InstanceThread(f"{name}-{index}") for index in range(policy.instances)]
        self._check_finite = nonfinite == "error" and any(
            spec.datatype.is_float and spec.datatype is not DataType.BF16 for spec in self.signature.outputs
        )
        self._dispatching = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = _NEVER

    # -- requests in ------------------------------------------------------------------------------------------

    def request(
        self, inputs: Tensors, deadline: float, on_done: Callable[[InferRequest], None], size_bytes: int = 0
    ) -> InferRequest:
        """Make a request of arrays that fit the signature; batched ones have shape [rows, ...]."""
        if not self.signature.batched:
            return InferRequest(inputs, rows=1, deadline=deadline, on_done=on_done, size_bytes=size_bytes)
        return InferRequest(
            inputs,
            rows=inputs[0].shape[0],
            deadline=deadline,
            on_done=on_done,
            group=group_of(inputs),
            size_bytes=size_bytes,
        )

    def submit(self, request: InferRequest) -> None:
        """Queue a request; its `on_done` is called later, exactly once.

        Raises:
            Overloaded: it was not queued.
        """
        if request.rows == 0:
            self._loop.call_soon(self._answer_empty, request)
            return
        self.scheduler.arrived(request, time.monotonic())
        if not self._dispatching:
            self._dispatching = True
            self._loop.call_soon(self._dispatch)
        if request.deadline < self._timer_at:
            self._arm_timer(request.deadline)

    def admit(self, deadline: float, size_bytes: int) -> None:
        """Check whether a request could be queued now, before its body is parsed.

        Raises:
            Overloaded: it could not.
        """
        self.scheduler.admit(1, size_bytes, deadline, time.monotonic())

    def cancel(self, request: InferRequest) -> None:
        """The client left: drop what has not started, ignore the result of what has. `on_done` is not called."""
        if request.state != DONE:
            self.scheduler.cancelled(request, time.monotonic())
            request.error = Cancelled("the client closed the connection")

    async def infer(self, inputs: Tensors, *, timeout_s: float = 30.0) -> Tensors:
        """Run one request and wait for its outputs."""
        done: asyncio.Future[Tensors] = self._loop.create_future()

        def on_done(request: InferRequest) -> None:
            if done.cancelled():
                return
            if request.error is not None:
                done.set_exception(request.error)
            else:
                done.set_result(request.outputs or ())

        request = self.request(inputs, time.monotonic() + timeout_s, on_done)
        self.submit(request)
        try:
            return await done
        except asyncio.CancelledError:
            self.cancel(request)
            raise

    def close(self) -> None:
        """Stop the instance threads once their batch is done."""
        if self._timer is not None:
            self._timer.cancel()
        for thread in self._threads:
            thread.stop()

    @property
    def idle(self) -> bool:
        """True when nothing waits and nothing runs."""
        return not self.scheduler.queued_requests and not self.scheduler.running_batches

    # -- batches ----------------------------------------------------------------------------------------------

    def _dispatch(self) -> None:
        self._dispatching = False
        while self.scheduler.has_work:
            batch, dropped = self.scheduler.next_batch(time.monotonic())
            for request in dropped:
                self._fail(request, DeadlineExceeded("Request timeout expired", model=self.name))
            if batch is None:
                return
            if self._run_time(batch.rows) <= self.prepared.inline_limit_s:
                self._run(batch, self._finish, self._recover)
                # One batch a pass, so that sockets are served in between.
                self._dispatch_soon()
                return
            self._threads[batch.instance].run(lambda batch=batch: self._run_on_thread(batch))

    def _dispatch_soon(self) -> None:
        if self.scheduler.has_work and not self._dispatching:
            self._dispatching = True
            self._loop.call_soon(self._dispatch)

    def _run_on_thread(self, batch: Batch) -> None:
        call = self._loop.call_soon_threadsafe
        try:
            self._run(
                batch,
                lambda *result: call(self._finish_and_dispatch, *result),
                lambda *failure: call(self._recover_and_dispatch, *failure),
            )
        except RuntimeError:
            # The loop was closed while this batch ran: the process is going down and nobody waits any more.
            return

    def _run(
        self,
        batch: Batch,
        finish: Callable[[Batch, Tensors, float], None],
        recover: Callable[[Batch, PacelineError], None],
    ) -> None:
        started = time.monotonic()
        try:
            outputs = self.prepared.instances[batch.instance].run(_gather(batch.requests))
            self._check_rows(outputs, batch.rows)
        except PacelineError as error:
            recover(batch, error)
        except Exception as error:
            recover(batch, InternalError(f"{type(error).__name__}: {error}", model=self.name))
        else:
            finish(batch, outputs, time.monotonic() - started)

    def _check_rows(self, outputs: Tensors, rows: int) -> None:
        if not self.signature.batched:
            return
        for spec, output in zip(self.signature.outputs, outputs, strict=True):
            if output.ndim == 0 or output.shape[0] != rows:
                got = output.shape[0] if output.ndim else "a scalar"
                raise ModelFailed(
                    f"output '{spec.name}': expected {rows} rows, got {got}",
                    code="bad_model_output",
                    model=self.name,
                )

    def _finish_and_dispatch(self, batch: Batch, outputs: Tensors, run_s: float) -> None:
        self._finish(batch, outputs, run_s)
        self._dispatch()

    def _recover_and_dispatch(self, batch: Batch, error: PacelineError) -> None:
        self._recover(batch, error)
        self._dispatch()

    def _finish(self, batch: Batch, outputs: Tensors, run_s: float) -> None:
        now = time.monotonic()
        self._run_time.observe(batch.rows, run_s)
        wanted = self.scheduler.finished(batch, now)
        service_s = now - batch.started
        self.telemetry.batch_done(batch.rows, service_s, time.time())
        suspicious = self._check_finite and not all(_surely_finite(output) for output in outputs)
        if len(batch.requests) == 1:
            for request in wanted:
                self._settle(request, outputs, service_s, suspicious)
            return
        for request in wanted:
            start, stop = request.offset, request.offset + request.rows
            self._settle(request, tuple([output[start:stop] for output in outputs]), service_s, suspicious)

    def _settle(self, request: InferRequest, outputs: Tensors, service_s: float, suspicious: bool) -> None:
        request.service_s = service_s
        if suspicious and not all(_finite(output) for output in outputs):
            error = ModelFailed(
                "an output is not finite (NaN or infinity)", code="nonfinite_output", model=self.name
            )
            whole = request.parent or request
            self.scheduler.cancelled(whole, time.monotonic())
            self._fail(whole, error)
            return
        request.outputs = outputs
        if request.parent is None:
            self._answer(request)
        else:
            self._join(request.parent, request)

    def _join(self, whole: InferRequest, part: InferRequest) -> None:
        whole.service_s += part.service_s
        whole.batch_rows = max(whole.batch_rows, part.batch_rows)
        parts = whole.parts or []
        whole.queue_s = max(whole.queue_s, part.queue_s)
        if all(part.outputs is not None for part in parts):
            columns = zip(*[part.outputs or () for part in parts], strict=True)
            whole.outputs = tuple(np.concatenate(column) for column in columns)
            whole.state = DONE
            whole.parts = None
            self._answer(whole)

    def _recover(self, batch: Batch, error: PacelineError) -> None:
        for request in self.scheduler.failed(batch, time.monotonic()):
            self._fail(request, error)

    # -- results out ------------------------------------------------------------------------------------------

    def _answer(self, request: InferRequest) -> None:
        telemetry = self.telemetry
        telemetry.queue_s.observe(request.queue_s)
        telemetry.infer_s += request.service_s
        request.on_done(request)

    def _answer_empty(self, request: InferRequest) -> None:
        request.state = DONE
        request.outputs = self.prepared.empty_outputs
        self._answer(request)

    def _fail(self, request: InferRequest, error: PacelineError) -> None:
        if request.error is None:
            request.error = error
            request.on_done(request)

    # -- deadlines --------------------------------------------------------------------------------------------

    def _arm_timer(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = deadline
        self._timer = self._loop.call_later(
            max(0.0, deadline - time.monotonic()) + _TIMER_SLACK_S, self._on_timer
        )

    def _on_timer(self) -> None:
        self._timer = None
        self._timer_at = _NEVER
        for request in self.scheduler.expired(time.monotonic()):
            self._fail(request, DeadlineExceeded("Request timeout expired", model=self.name))
        deadline = self.scheduler.next_deadline()
        if deadline < _NEVER:
            self._arm_timer(deadline)


def _gather(requests: list[InferRequest]) -> Tensors:
    """The inputs of all requests, joined along axis 0."""
    if len(requests) == 1:
        return requests[0].inputs
    columns = zip(*[request.inputs for request in requests], strict=True)
    return tuple([np.concatenate(column) for column in columns])


def _surely_finite(array: Array) -> bool:
    """False when `array` may hold NaN or infinity.

    The dot product with itself reads the memory once, at half the cost of `isfinite(...).all()`; it may overflow
    where every element is finite, and then `_finite` decides.
    """
    return array.dtype.kind != "f" or math.isfinite(np.vdot(array, array))


def _finite(array: Array) -> bool:
    return array.dtype.kind != "f" or bool(np.isfinite(array).all())
