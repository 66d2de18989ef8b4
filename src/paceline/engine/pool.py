"""The workers of one model: calls out, outcomes in, and a new worker for each that dies, hangs or leaks.

Rules:
- A worker that ends takes only its calls with it. The next one starts at once, and later and later when it keeps dying.
- A worker is killed when a call takes longer than the limit, or when it has been stopped for a while: neither can be
  told from a hang that never ends.
- One that takes too much memory works on until its successor is ready, and then ends what it has begun. From twice
  the limit on it gets nothing more to do.
- Who runs a batch is the scheduler's business: it numbers the lanes of all workers, and lane `i` is of worker `i % n`.
  A lane is away while it runs nothing and its place has no worker.
"""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final, Protocol

from paceline.core.backoff import Backoff
from paceline.core.errors import InstanceLost, InternalError, PacelineError
from paceline.core.requests import DONE, InferRequest
from paceline.core.tensors import Tensors
from paceline.engine.running import joined
from paceline.scheduling import Batch
from paceline.workers.worker import Worker

REASONS: Final = ("died", "hung", "stopped", "memory")
"""Why a worker is replaced."""

_LOOK_S: Final = 0.5
_STOPPED_S: Final = 1.0
# Under load a worker that leaks grows by more than it should until the next look.
_MEMORY_LOOK_S: Final = 0.05
_WITHDRAWN_AT: Final = 2
# One that is too large again so soon does not leak: replacing it at once would go on for ever.
_SHORT_S: Final = 5.0


@dataclass(frozen=True)
class Limits:
    """When a worker is replaced.

    Attributes:
        run_s: longest time of a call.
        memory_bytes: most resident memory; None: any.
    """

    run_s: float = 30.0
    memory_bytes: int | None = None


class Events(Protocol):
    """What the pool tells the model, on the event loop."""

    def ended(self, batch: Batch, outcome: Tensors | PacelineError) -> None:
        """A batch has run."""

    def lost(self, batch: Batch, error: PacelineError, *, guilty: bool) -> None:
        """Its worker died, and the batch may be why. The lane is away until `returned`."""

    def streamed(self, batch: Batch, part: bytes) -> None:
        """A part of the answer to the only request of a batch."""

    def replaced(self, reason: str) -> None:
        """A worker has to be replaced, for one of `REASONS`."""

    def left(self, lane: int) -> None:
        """A lane without a batch is away until `returned`."""

    def returned(self, lane: int) -> None:
        """A lane is back."""


@dataclass
class _Call:
    """A batch on its way.

    Attributes:
        started: when it began, or gave its last part.
        held: its client does not read the parts.
    """

    batch: Batch
    worker: Worker
    started: float
    held: bool = False
    cancelled: bool = False


@dataclass
class _Slot:
    """A place for a worker.

    Attributes:
        replacing: the task that starts the next one.
        due: when that is to be ready.
        stopped_since: when it was first seen stopped.
        looked: when its memory was last looked at.
    """

    worker: Worker | None
    ready_at: float
    backoff: Backoff = field(default_factory=Backoff)
    replacing: asyncio.Task[None] | None = None
    due: float = 0.0
    looked: float = 0.0
    stopped_since: float | None = None


class Pool:
    """The workers of one model, on the running event loop.

    Args:
        workers: ready ones.
        start: makes another; blocks.
        lanes: of each worker.
        say: told what happens to workers, line by line.

    Attributes:
        alive: how many workers take batches.
    """

    def __init__(
        self,
        workers: list[Worker],
        start: Callable[[], Worker],
        lanes: int,
        limits: Limits,
        events: Events,
        say: Callable[[str], None],
    ) -> None:
        self.alive = len(workers)
        self._start = start
        self._lanes = lanes
        self._limits = limits
        self._events: Events = events
        self._say = say
        self._loop = asyncio.get_running_loop()
        # Of its own: a start may take minutes, and others wait for the loop's threads.
        self._starters = ThreadPoolExecutor(len(workers), "paceline-replacing")
        self._start_s = max(worker.ready_s for worker in workers)
        self._calls: dict[int, _Call] = {}
        self._condemned: dict[Worker, tuple[str, str]] = {}
        self._closed = False
        self._slots = [_Slot(worker, time.monotonic()) for worker in workers]
        for worker in workers:
            worker.attach(self._loop, self)
        self._watching = self._loop.create_task(self._watch())

    @property
    def memory_bytes(self) -> dict[int, int]:
        """Resident memory of each worker, by its place."""
        return {index: slot.worker.memory_bytes() for index, slot in enumerate(self._slots) if slot.worker is not None}

    @property
    def due(self) -> float:
        """When the first worker is to be back, in monotonic seconds, where there is none."""
        return min(slot.due for slot in self._slots)

    def run(self, batch: Batch) -> None:
        """Run a batch on its lane."""
        lane = batch.instance
        worker = self._slot_of(lane).worker
        assert worker is not None, "a batch for a lane that is away"
        self._calls[lane] = _Call(batch, worker, time.monotonic())
        try:
            worker.start(lane, joined([request.inputs for request in batch.requests]))
        except PacelineError as error:
            self._loop.call_soon(self.finished, worker, lane, error)
        except Exception as error:  # such as no memory to share: nobody else would end the batch
            failed = InternalError(f"{type(error).__name__}: {error}", model=worker.model)
            self._loop.call_soon(self.finished, worker, lane, failed)

    def cancel_unwanted(self, *, patiently: bool) -> None:
        """Tell the workers which calls nobody waits for any more.

        Args:
            patiently: they have the time of a call to end them.
        """
        for lane, call in self._calls.items():
            if not call.cancelled and all(request.state == DONE for request in call.batch.requests):
                call.cancelled, call.held = True, False
                if patiently:
                    call.started = time.monotonic()
                call.worker.cancel(lane)

    def hold(self, request: InferRequest, held: bool) -> None:
        """Make no more parts of the answer to a request, or go on: as fast as its client reads."""
        for lane, call in self._calls.items():
            if call.batch.requests[0] is request and not call.cancelled:
                call.held, call.started = held, time.monotonic()
                call.worker.hold(lane, held)

    def close(self) -> None:
        """End all workers."""
        self._closed = True
        self._watching.cancel()
        self._starters.shutdown(wait=False, cancel_futures=True)
        for slot in self._slots:
            if slot.replacing is not None:
                slot.replacing.cancel()
            if slot.worker is not None:
                slot.worker.stop()
        for call in self._calls.values():
            call.worker.kill()

    # -- what workers tell ------------------------------------------------------------------------------------

    def finished(self, worker: Worker, call: int, outcome: Tensors | PacelineError) -> None:
        """A call has ended."""
        known = self._calls.get(call)
        if known is None or known.worker is not worker:
            return
        del self._calls[call]
        self._events.ended(known.batch, outcome)
        slot = self._slot_of(call)
        if slot.worker is worker:
            if self._limits.memory_bytes is not None:
                self._look_at_memory(slot, worker, self._limits.memory_bytes, time.monotonic())
            return
        if slot.worker is None:
            self._events.left(call)
        self._let_go_if_done(worker)

    def streamed(self, worker: Worker, call: int, part: bytes) -> None:
        """A call goes on."""
        known = self._calls.get(call)
        if known is not None and known.worker is worker:
            if not known.cancelled:
                known.started = time.monotonic()
            self._events.streamed(known.batch, part)

    def died(self, worker: Worker, how: str) -> None:
        """A worker is gone, with its calls."""
        if self._closed:
            return
        held = [lane for lane, call in self._calls.items() if call.worker is worker]
        reason, how = self._condemned.pop(worker, ("died", how))
        error = InstanceLost(f"the worker of '{worker.model}' died: {how}", model=worker.model)
        slot = next((slot for slot in self._slots if slot.worker is worker), None)
        if slot is None:
            self._say(f"worker {worker.pid}, which was to end, died: {how}")
        else:
            self._withdraw(slot)
            self._replace(slot, f"worker {worker.pid} died: {how}", reason)
        for lane in held:
            self._events.lost(self._calls.pop(lane).batch, error, guilty=reason != "stopped")
            if self._slot_of(lane).worker is not None:
                self._events.returned(lane)

    # -- replacing --------------------------------------------------------------------------------------------

    def _slot_of(self, lane: int) -> _Slot:
        return self._slots[lane % len(self._slots)]

    def _idle_lanes_of(self, slot: _Slot) -> list[int]:
        lanes = range(self._slots.index(slot), self._lanes * len(self._slots), len(self._slots))
        return [lane for lane in lanes if lane not in self._calls]

    def _withdraw(self, slot: _Slot) -> None:
        """Give the worker of a slot nothing more to do."""
        slot.worker = None
        self.alive -= 1
        for lane in self._idle_lanes_of(slot):
            self._events.left(lane)

    def _replace(self, slot: _Slot, why: str, reason: str) -> None:
        self._events.replaced(reason)
        if slot.replacing is not None:
            self._say(f"{why}; the next one is being started")
            return
        lived_s = time.monotonic() - slot.ready_at
        wait_s = slot.backoff.next_s(lived_s) if slot.worker is None or lived_s < _SHORT_S else 0.0
        self._say(f"{why}; a new one starts {'now' if wait_s == 0 else f'in {wait_s:g} s'}")
        slot.replacing = self._loop.create_task(self._fill(slot, wait_s))
        slot.due = time.monotonic() + wait_s + self._start_s

    async def _fill(self, slot: _Slot, wait_s: float) -> None:
        """Start a worker and give it the slot; try until it works."""
        while True:
            await asyncio.sleep(wait_s)
            try:
                worker = await self._started()
                break
            except Exception as error:
                if not isinstance(error, PacelineError | OSError):
                    traceback.print_exc()
                wait_s = slot.backoff.next_s(0.0)
                slot.due = time.monotonic() + wait_s + self._start_s
                self._say(f"a worker could not be started: {error}; tried again in {wait_s:g} s")
        self._start_s = worker.ready_s
        before, slot.worker = slot.worker, worker
        slot.ready_at, slot.stopped_since, slot.replacing = time.monotonic(), None, None
        worker.attach(self._loop, self)
        self._say(f"worker {worker.pid} is ready")
        if before is None:
            self.alive += 1
            for lane in self._idle_lanes_of(slot):
                self._events.returned(lane)
        else:
            self._let_go_if_done(before)

    async def _started(self) -> Worker:
        """A worker of a thread that goes on when nobody waits any more; then the worker is stopped."""
        starting = self._starters.submit(self._start)
        try:
            return await asyncio.shield(asyncio.wrap_future(starting))
        except asyncio.CancelledError:
            starting.add_done_callback(_stop_it)
            raise

    def _let_go_if_done(self, worker: Worker) -> None:
        """End a worker whose place is not its own any more, once it has no call left."""
        has_slot = any(slot.worker is worker for slot in self._slots)
        if not has_slot and not any(call.worker is worker for call in self._calls.values()):
            worker.stop()

    # -- watching ---------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        look_s = min(_LOOK_S, max(0.01, self._limits.run_s / 4))
        while True:
            await asyncio.sleep(look_s)
            try:
                self._look(time.monotonic())
            except Exception:  # whoever watches must not end because one look failed
                traceback.print_exc()

    def _look(self, now: float) -> None:
        for call in list(self._calls.values()):
            if now - call.started > self._limits.run_s and not call.held:
                self._condemn(call.worker, "hung", f"killed, for a batch ran longer than {self._limits.run_s:g} s")
        for slot in self._slots:
            if slot.worker is not None:
                self._look_whether_stopped(slot, slot.worker, now)
                if slot.worker is not None and self._limits.memory_bytes is not None:
                    self._look_at_memory(slot, slot.worker, self._limits.memory_bytes, now)

    def _look_whether_stopped(self, slot: _Slot, worker: Worker, now: float) -> None:
        if not worker.is_stopped():
            slot.stopped_since = None
            return
        slot.stopped_since = slot.stopped_since or now
        if now - slot.stopped_since >= _STOPPED_S:
            self._condemn(worker, "stopped", "killed, for a signal had stopped it")

    def _condemn(self, worker: Worker, reason: str, how: str) -> None:
        self._condemned.setdefault(worker, (reason, how))
        worker.kill()

    def _look_at_memory(self, slot: _Slot, worker: Worker, most: int, now: float) -> None:
        if now - slot.looked < _MEMORY_LOOK_S:
            return
        slot.looked = now
        used = worker.memory_bytes()
        if used > most and slot.replacing is None:
            self._replace(slot, f"worker {worker.pid} takes {used >> 20} MiB, more than {most >> 20}", "memory")
        if used > _WITHDRAWN_AT * most:
            self._withdraw(slot)
            self._let_go_if_done(worker)


def _stop_it(started: Future[Worker]) -> None:
    if not started.cancelled() and started.exception() is None:
        started.result().stop()
