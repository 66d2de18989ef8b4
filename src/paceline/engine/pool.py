"""The workers of one model: calls out, outcomes in, and a new worker for each that dies, hangs or leaks.

Rules:
- A worker that ends takes only its calls with it. The next one starts at once, and later and later when it keeps dying.
- A worker is killed when a call takes longer than the limit, or when it has been stopped for a while: neither can be
  told from a hang that never ends.
- One that takes too much memory works on until its successor is ready, and then ends what it has begun.
- Who runs a batch is the scheduler's business: it numbers the lanes of all workers, and lane `i` is of worker `i % n`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from paceline.core.backoff import Backoff
from paceline.core.errors import InstanceLost, PacelineError
from paceline.core.tensors import Tensors
from paceline.scheduling import Batch
from paceline.workers.worker import Worker

_LOOK_S: Final = 0.5
_STOPPED_S: Final = 1.0


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

    def lost(self, batch: Batch, error: PacelineError) -> None:
        """Its worker died. The lane is away until `returned`."""

    def streamed(self, batch: Batch, part: bytes) -> None:
        """A part of the answer to the only request of a batch."""

    def left(self, lane: int) -> None:
        """A lane without a batch is away until `returned`."""

    def returned(self, lane: int) -> None:
        """A lane is back."""


@dataclass
class _Call:
    batch: Batch
    worker: Worker
    started: float


@dataclass
class _Slot:
    """A place for a worker.

    Attributes:
        replacing: the task that starts the next one.
        stopped_since: when it was first seen stopped.
    """

    worker: Worker | None
    ready_at: float
    backoff: Backoff = field(default_factory=Backoff)
    replacing: asyncio.Task[None] | None = None
    stopped_since: float | None = None


class Pool:
    """The workers of one model, on the running event loop.

    Args:
        workers: ready ones.
        start: makes another; blocks.
        lanes: of each worker.
        say: told what happens to workers, line by line.

    Attributes:
        restarts: how many workers had to be replaced, by reason.
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
        self.restarts: dict[str, int] = {}
        self._start = start
        self._lanes = lanes
        self._limits = limits
        self._events = events
        self._say = say
        self._loop = asyncio.get_running_loop()
        self._calls: dict[int, _Call] = {}
        self._closed = False
        self._slots = [_Slot(worker, time.monotonic()) for worker in workers]
        for worker in workers:
            worker.attach(self._loop, self)
        self._watching = self._loop.create_task(self._watch())

    @property
    def alive(self) -> int:
        """How many workers take batches."""
        return sum(slot.worker is not None for slot in self._slots)

    @property
    def pids(self) -> list[int]:
        """Of the workers that take batches."""
        return [slot.worker.pid for slot in self._slots if slot.worker is not None]

    def run(self, batch: Batch, inputs: Tensors) -> None:
        """Run a batch on its lane."""
        worker = self._slots[batch.instance % len(self._slots)].worker
        assert worker is not None, "a batch for a lane that is away"
        self._calls[batch.instance] = _Call(batch, worker, time.monotonic())
        try:
            worker.start(batch.instance, inputs)
        except PacelineError as error:
            del self._calls[batch.instance]
            self._loop.call_soon(self._events.ended, batch, error)

    def cancel(self, batch: Batch) -> None:
        """Nobody waits for a batch any more."""
        call = self._calls.get(batch.instance)
        if call is not None and call.batch is batch:
            call.worker.cancel(batch.instance)

    def close(self) -> None:
        """End all workers."""
        self._closed = True
        self._watching.cancel()
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
        self._let_go_if_done(worker)

    def streamed(self, worker: Worker, call: int, part: bytes) -> None:
        """A call goes on."""
        known = self._calls.get(call)
        if known is not None and known.worker is worker:
            self._events.streamed(known.batch, part)

    def died(self, worker: Worker, how: str) -> None:
        """A worker is gone, with its calls."""
        if self._closed:
            return
        held = [lane for lane, call in self._calls.items() if call.worker is worker]
        error = InstanceLost(f"the worker of '{worker.model}' died: {how}", model=worker.model)
        slot = next((slot for slot in self._slots if slot.worker is worker), None)
        if slot is not None:
            slot.worker = None
            for lane in self._lanes_of(slot):
                if lane not in self._calls:
                    self._events.left(lane)
            self._replace(slot, f"worker {worker.pid} died: {how}", "died")
        for lane in held:
            self._events.lost(self._calls.pop(lane).batch, error)
        if slot is None:
            # It was on its way out; its place has a worker.
            for lane in held:
                self._events.returned(lane)

    # -- replacing --------------------------------------------------------------------------------------------

    def _lanes_of(self, slot: _Slot) -> range:
        return range(self._slots.index(slot), self._lanes * len(self._slots), len(self._slots))

    def _replace(self, slot: _Slot, why: str, reason: str) -> None:
        self.restarts[reason] = self.restarts.get(reason, 0) + 1
        if slot.replacing is None:
            wait_s = slot.backoff.next_s(time.monotonic() - slot.ready_at) if slot.worker is None else 0.0
            self._say(f"{why}; a new one starts {'now' if wait_s == 0 else f'in {wait_s:g} s'}")
            slot.replacing = self._loop.create_task(self._fill(slot, wait_s))

    async def _fill(self, slot: _Slot, wait_s: float) -> None:
        """Start a worker and give it the slot; try until it works."""
        while True:
            await asyncio.sleep(wait_s)
            try:
                worker = await self._started()
                break
            except PacelineError as error:
                wait_s = slot.backoff.next_s(0.0)
                self._say(f"a worker could not be started: {error}; tried again in {wait_s:g} s")
        before, slot.worker = slot.worker, worker
        slot.ready_at, slot.stopped_since, slot.replacing = time.monotonic(), None, None
        worker.attach(self._loop, self)
        self._say(f"worker {worker.pid} is ready")
        if before is None:
            for lane in self._lanes_of(slot):
                self._events.returned(lane)
        else:
            self._let_go_if_done(before)

    async def _started(self) -> Worker:
        """A worker of a thread that goes on when nobody waits any more; then the worker is stopped."""
        starting = self._loop.run_in_executor(None, self._start)
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            starting.add_done_callback(_stop_it)
            raise

    def _let_go_if_done(self, worker: Worker) -> None:
        """End a worker whose successor has taken over, once it has no call left."""
        has_slot = any(slot.worker is worker for slot in self._slots)
        if not has_slot and not any(call.worker is worker for call in self._calls.values()):
            worker.stop()

    # -- watching ---------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            now = time.monotonic()
            for call in list(self._calls.values()):
                if now - call.started > self._limits.run_s:
                    self._say(f"worker {call.worker.pid} hangs: a batch has run for {now - call.started:.1f} s")
                    call.worker.kill()
            for slot in self._slots:
                if slot.worker is not None:
                    self._look_at(slot, slot.worker, now)

    def _look_at(self, slot: _Slot, worker: Worker, now: float) -> None:
        if worker.is_stopped():
            slot.stopped_since = slot.stopped_since or now
            if now - slot.stopped_since >= _STOPPED_S:
                self._say(f"worker {worker.pid} has been stopped by a signal")
                worker.kill()
            return
        slot.stopped_since = None
        most = self._limits.memory_bytes
        if most is not None and slot.replacing is None and (used := worker.memory_bytes()) > most:
            self._replace(slot, f"worker {worker.pid} takes {used >> 20} MiB, more than {most >> 20}", "memory")


def _stop_it(started: asyncio.Future[Worker]) -> None:
    if not started.cancelled() and started.exception() is None:
        started.result().stop()
