"""One served model: requests in, batches run, results out.

Rules:
- Everything but the run of a long batch happens on the event loop. A thread that has finished a batch takes the next
  one itself, so that its core does not wait for the loop; that is why the scheduler is entered under a lock.
- Requests parsed in one pass of the event loop are queued before the batch is formed: `submit` only asks for
  a dispatch, which runs when the pass is over.
- A batch that is predicted to run for less than `inline_limit_s` runs on the event loop, the others on the
  thread of their instance; a single client's also up to `_ALONE_LIMIT_S`, since nobody else can wait for the loop.
  The prediction is of the run alone: the service time of a batch on a thread holds the hand-over too, and would
  keep it there for ever.
- Every request ends exactly once, through `_answer` or `_fail`, or by `cancel`.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
import traceback
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from paceline.core.errors import BAD_OUTPUT, Cancelled, DeadlineExceeded, InternalError, ModelFailed, PacelineError
from paceline.core.requests import DONE, InferRequest
from paceline.core.tensors import Signature, Tensors, group_of
from paceline.engine.alarm import Alarm
from paceline.engine.instances import InstanceThread
from paceline.engine.running import BatchRunner, Result
from paceline.engine.telemetry import Telemetry
from paceline.scheduling import Batch, LatencyModel, Policy, Scheduler

if TYPE_CHECKING:
    from paceline.engine.warmup import Prepared

_NEVER = float("inf")
_ALONE_LIMIT_S = 5e-3
# Where the run time depends on the values, a prediction can be far off. Nothing else is served while a batch runs on
# the loop, so one run this long keeps the model on its threads for a while.
_SURPRISE_S = 20e-3
_WARY_S = 30.0


class ServedModel:
    """A warm model behind a scheduler, on the running event loop.

    Args:
        name, version: how clients address it.
        prepared: its instances and what was measured at warm-up.
        nonfinite: `error` fails requests with NaN or infinite outputs; other values let them through, and say to the
            protocols how to write them.
        alone: says whether there is at most one client.

    Attributes:
        closed: nothing may be kept for it any more.
        on_close: called with the model, for those who keep something for it.
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
        max_queue_delay_s: float = 0.0,
        alone: Callable[[], bool] = lambda: False,
    ) -> None:
        self.name = name
        self.version = version
        self.prepared = prepared
        self.nonfinite = nonfinite
        self.signature: Signature = prepared.signature
        self.telemetry = Telemetry()
        self.closed = False
        self.on_close: list[Callable[[ServedModel], object]] = []
        policy = Policy(
            max_batch_rows=prepared.max_batch_rows,
            instances=len(prepared.instances) * prepared.lanes,
            max_queue_requests=max_queue_requests,
            max_queue_bytes=max_queue_bytes,
            max_queue_delay_s=max_queue_delay_s,
        )
        self.latency = LatencyModel(prepared.profile)
        self._run_time = LatencyModel(prepared.profile)
        self.scheduler = Scheduler(policy, self.latency)
        self._loop = asyncio.get_running_loop()
        self._threads = [InstanceThread(f"{name}-{index}") for index in range(self._threads_wanted)]
        self._runner = BatchRunner(name, prepared.instances, self.signature, check_finite=nonfinite == "error")
        # Without open dimensions behind the batch, every request may run with every other.
        self._one_group = all(-1 not in spec.shape[1:] for spec in self.signature.inputs)
        self._lock = threading.Lock()
        self._alone = alone
        self._wary_until = -_NEVER
        self._dispatching = False
        self._next_deadline = Alarm(self._expire)
        self._next_start = Alarm(self._dispatch_soon)

    # -- requests in ------------------------------------------------------------------------------------------

    def request(
        self, inputs: Tensors, deadline: float, on_done: Callable[[InferRequest], None], size_bytes: int = 0
    ) -> InferRequest:
        """Make a request of arrays that fit the signature; batched ones have shape [rows, ...]."""
        if not self.signature.batched:
            return InferRequest(inputs, 1, deadline, on_done, None, size_bytes)
        group = None if self._one_group else group_of(inputs)
        return InferRequest(inputs, len(inputs[0]), deadline, on_done, group, size_bytes)

    def submit(self, request: InferRequest, *, admitted: bool = False) -> None:
        """Queue a request; its `on_done` is called later, exactly once.

        Args:
            admitted: `admit` was just asked for it.

        Raises:
            Overloaded, RequestTooLarge: it was not queued.
        """
        if request.rows == 0:
            self._loop.call_soon(self._answer_empty, request)
            return
        with self._lock:
            self.scheduler.arrived(request, time.monotonic(), admitted=admitted)
        if not self._dispatching:
            self._dispatching = True
            self._loop.call_soon(self._dispatch)
        if request.deadline < self._next_deadline.at:
            self._next_deadline.ring_by(request.deadline)

    def admit(self, deadline: float, size_bytes: int) -> None:
        """Check whether a request could be queued now, before its body is parsed.

        Raises:
            Overloaded: it could not.
        """
        with self._lock:
            self.scheduler.admit(1, size_bytes, deadline, time.monotonic())

    def cancel(self, request: InferRequest) -> None:
        """The client left: drop what has not started, ignore the result of what has. `on_done` is not called."""
        if request.error is None and request.outputs is None:
            with self._lock:
                self.scheduler.cancelled(request, time.monotonic())
            request.error = Cancelled("the client closed the connection")

    async def infer(self, inputs: Tensors, *, timeout_s: float = 30.0) -> Tensors:
        """Run one request and wait for its outputs."""
        done: asyncio.Future[Tensors] = self._loop.create_future()
        request = self.request(inputs, time.monotonic() + timeout_s, partial(_resolve, done))
        self.submit(request)
        try:
            return await done
        except asyncio.CancelledError:
            self.cancel(request)
            raise
        finally:
            del request, done  # an error that is raised holds this frame, and they the error

    def close(self) -> None:
        """Stop the instance threads once their batch is done.

        Whoever still holds the model may go on to use it; its memory is returned when nobody does.
        """
        self.closed = True
        for thread in self._threads:
            thread.stop()
        for forget in self.on_close:
            forget(self)
        self.on_close.clear()

    @property
    def _threads_wanted(self) -> int:
        return len(self.prepared.instances)

    @property
    def available(self) -> bool:
        """True while there is an instance that could run a batch now or later."""
        return True

    @property
    def idle(self) -> bool:
        """True when nothing waits and nothing runs."""
        with self._lock:
            return not self.scheduler.queued_requests and not self.scheduler.running_batches

    @property
    def queued_requests(self) -> int:
        """Requests (or parts of large ones) that wait."""
        with self._lock:
            return self.scheduler.queued_requests

    @property
    def queued_rows(self) -> int:
        """Rows that wait."""
        with self._lock:
            return self.scheduler.queued_rows

    # -- batches ----------------------------------------------------------------------------------------------

    def _dispatch(self) -> None:
        self._dispatching = False
        scheduler = self.scheduler
        while scheduler.has_work:
            with self._lock:
                batch, dropped = scheduler.next_batch(time.monotonic())
            self._drop(dropped)
            if batch is None:
                self._dispatch_at_next_start()
                return
            if self._begin(batch):
                # One batch a pass, so that sockets are served in between.
                self._dispatch_soon()
                return

    def _dispatch_soon(self) -> None:
        if not self._dispatching and self.scheduler.has_work:
            self._dispatching = True
            self._loop.call_soon(self._dispatch)

    def _dispatch_at_next_start(self) -> None:
        """A batch may be waiting for company: look again when it has waited long enough."""
        with self._lock:
            start = self.scheduler.next_start()
        self._next_start.ring_by(start)

    def _begin(self, batch: Batch) -> bool:
        """Run a batch, now or elsewhere; True when it has run now."""
        if self._fits_the_loop(batch):
            self._run_on_loop(batch)
            return True
        self._threads[batch.instance].run(partial(self._run_on_thread, batch))
        return False

    def _fits_the_loop(self, batch: Batch) -> bool:
        if batch.started < self._wary_until:
            return False
        expected_s = self._run_time(batch.rows)
        return expected_s <= self.prepared.inline_limit_s or (expected_s <= _ALONE_LIMIT_S and self._alone())

    def _run_on_loop(self, batch: Batch) -> None:
        try:
            result = self._runner.run(batch)
            if result.run_s > _SURPRISE_S:
                self._wary_until = batch.started + _WARY_S
            with self._lock:
                wanted = self._take_back(batch, result)
        except Exception:
            traceback.print_exc()
            self._abandon(batch)
        else:
            self._deliver(batch, result, wanted)

    def _run_on_thread(self, first: Batch) -> None:
        """Run a batch, and those that can be closed when it is done, without waiting for the event loop."""
        batch: Batch | None = first
        while batch is not None:
            try:
                batch = self._run_and_take_next(batch)
            except Exception:
                traceback.print_exc()
                self._call_on_loop(self._abandon, batch)
                return

    def _run_and_take_next(self, batch: Batch) -> Batch | None:
        result = self._runner.run(batch)
        with self._lock:
            wanted = self._take_back(batch, result)
            following, dropped = self.scheduler.next_batch(time.monotonic())
        self._call_on_loop(self._deliver_and_dispatch, batch, result, wanted, dropped)
        return following

    def _call_on_loop(self, callback: Callable[..., None], *args: object) -> None:
        # At shutdown the loop may be closed while a batch runs; then nobody waits for it any more.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(callback, *args)

    def _abandon(self, batch: Batch) -> None:
        """A defect of ours kept `batch` from its end: free its instance, and end the requests that have not ended."""
        requests = dict.fromkeys(piece.parent or piece for piece in batch.requests)
        lost = [request for request in requests if request.error is None and request.outputs is None]
        with self._lock:
            now = time.monotonic()
            if self.scheduler.runs(batch):
                self.scheduler.failed(batch, now)
            for request in lost:
                self.scheduler.cancelled(request, now)
        for request in lost:
            self._fail(request, InternalError("a batch was lost", model=self.name))
        self._dispatch_soon()

    def _take_back(self, batch: Batch, result: Result) -> list[InferRequest]:
        """Free the instance. The requests to answer with the outputs, or with the error."""
        now = time.monotonic()
        result.service_s = now - batch.started
        if result.error is not None:
            return self.scheduler.failed(batch, now, miscounted=result.error.code == BAD_OUTPUT)
        self._run_time.observe(batch.rows, result.run_s)
        return self.scheduler.finished(batch, now)

    def _deliver_and_dispatch(
        self, batch: Batch, result: Result, wanted: list[InferRequest], dropped: list[InferRequest]
    ) -> None:
        self._drop(dropped)
        self._deliver(batch, result, wanted)
        self._dispatch_soon()

    def _deliver(self, batch: Batch, result: Result, wanted: list[InferRequest]) -> None:
        if result.error is not None:
            for request in wanted:
                self._fail(request, result.error)
            return
        outputs, service_s = result.outputs, result.service_s
        self.telemetry.batch_done(batch.rows, service_s, time.time())
        suspicious = result.suspicious
        alone = len(batch.requests) == 1
        for request in wanted:
            try:
                start = request.offset
                stop = start + request.rows
                own = outputs if alone else tuple([output[start:stop] for output in outputs])
                self._settle(request, own, service_s, suspicious)
            except Exception as error:
                self._spoil(request.parent or request, "bad_model_output", "the outputs cannot be used", error)

    def _settle(self, request: InferRequest, outputs: Tensors, service_s: float, suspicious: bool) -> None:
        request.service_s = service_s
        whole = request.parent or request
        if whole.error is not None:
            return  # cancelled while its result was on the way here
        if suspicious and not whole.nonfinite_ok and not self._runner.all_finite(outputs):
            self._spoil(whole, "nonfinite_output", "an output is not finite (NaN or infinity)")
            return
        request.outputs = outputs
        if request.parent is not None:
            self._join(request.parent, request)
            return
        self._answer(request)

    def _join(self, whole: InferRequest, part: InferRequest) -> None:
        whole.service_s += part.service_s
        whole.batch_rows = max(whole.batch_rows, part.batch_rows)
        whole.queue_s = max(whole.queue_s, part.queue_s)
        whole.unjoined -= 1
        if whole.unjoined == 0:
            columns = zip(*[part.outputs or () for part in whole.parts or ()], strict=True)
            whole.outputs = tuple(np.concatenate(column) for column in columns)
            whole.state = DONE
            whole.parts = None
            self._answer(whole)

    # -- results out ------------------------------------------------------------------------------------------

    def _answer(self, request: InferRequest) -> None:
        self.telemetry.queue_s.observe(request.queue_s)
        self.telemetry.infer_s += request.service_s
        self._tell(request)

    def _answer_empty(self, request: InferRequest) -> None:
        if request.error is not None:
            return  # cancelled meanwhile
        request.state = DONE
        request.outputs = self.prepared.empty_outputs
        self._answer(request)

    def _spoil(self, whole: InferRequest, code: str, message: str, why: Exception | None = None) -> None:
        """End a request whose outputs are there, but are no answer."""
        with self._lock:
            self.scheduler.cancelled(whole, time.monotonic())
        detail = None if why is None else f"{type(why).__name__}: {why}"
        self._fail(whole, ModelFailed(message, code=code, detail=detail, model=self.name))

    def _fail(self, request: InferRequest, error: PacelineError) -> None:
        if request.error is None:
            request.error = error
            self._tell(request)

    def _tell(self, request: InferRequest) -> None:
        try:
            request.on_done(request)
        except Exception as error:
            self._report(error)

    def _report(self, error: Exception) -> None:
        # Whoever cannot take an answer must not keep the rest of the batch from theirs.
        self._loop.call_exception_handler(
            {"message": f"model '{self.name}': an answer could not be delivered", "exception": error}
        )

    def _drop(self, late: list[InferRequest]) -> None:
        for request in late:
            self._fail(request, DeadlineExceeded("Request timeout expired", model=self.name))

    # -- deadlines --------------------------------------------------------------------------------------------

    def _expire(self) -> None:
        with self._lock:
            late = self.scheduler.expired(time.monotonic())
            deadline = self.scheduler.next_deadline()
        self._drop(late)
        self._next_deadline.ring_by(deadline)


def _resolve(done: asyncio.Future[Tensors], request: InferRequest) -> None:
    if done.cancelled():
        return
    if request.error is not None:
        done.set_exception(request.error)
    else:
        done.set_result(request.outputs or ())
