"""A served model whose instances are worker processes.

What differs from any other: a batch runs elsewhere, and the process that runs it may die of it.

Rules:
- Rows that were lost run once more at once, if `retry_lost` allows; what is lost for good is answered at once, and
  a row that has killed twice is not run again (`quarantine.py`).
- While no worker is there, requests wait for the next, unless their deadline comes first: those are refused on arrival.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from paceline.core.errors import Overloaded, PacelineError, Quarantined
from paceline.core.requests import RUNNING, InferRequest
from paceline.core.tensors import Tensors
from paceline.engine.model import ServedModel
from paceline.engine.pool import Limits, Pool
from paceline.engine.quarantine import QUARANTINE_S, Quarantine
from paceline.engine.service_warmup import PreparedService
from paceline.scheduling import Batch, Unpredictable

# A client that reads nothing is cut off by its connection, long before.
_HELD_S: Final = 24 * 3600.0


class HostedModel(ServedModel):
    """A warm service behind a scheduler, on the running event loop.

    Args:
        limits: when a worker is replaced.
        retry_lost: run the requests of a worker that died once more.
        say: told what happens to workers, line by line.
        on_available: called when the last worker has gone, and when the first is back.

    Attributes:
        about: what the workers have recognised in the code.
        quarantine: rows that are not run any more.
    """

    def __init__(
        self,
        name: str,
        version: str,
        prepared: PreparedService,
        *,
        limits: Limits,
        retry_lost: bool = True,
        say: Callable[[str], None],
        on_available: Callable[[], object] = lambda: None,
        **options: Any,
    ) -> None:
        super().__init__(name, version, prepared, **options)
        self.about = prepared.service.about
        self._retry_lost = retry_lost and self.about.deterministic
        self._on_available = on_available
        self._was_available = True
        self._service = prepared.service
        self._say = partial(say_of, say, name)
        self.quarantine = Quarantine(name)
        if self.about.streams:
            self.latency = self.scheduler.latency = Unpredictable(prepared.profile)
        self.pool = Pool(
            prepared.workers,
            lambda: prepared.service.worker(prepared.threads),
            prepared.lanes,
            limits,
            self,
            self._say,
        )

    @property
    def available(self) -> bool:
        return self.pool.alive > 0

    def admit(self, deadline: float, size_bytes: int) -> None:
        if not self.pool.alive:
            self._check_that_one_is_due(deadline)
        super().admit(deadline, size_bytes)

    def submit(self, request: InferRequest, *, admitted: bool = False) -> None:
        if not self.pool.alive:
            self._check_that_one_is_due(request.deadline)
        self.quarantine.check(request.inputs)
        super().submit(request, admitted=admitted)

    def cancel(self, request: InferRequest) -> None:
        super().cancel(request)
        self._cancel_unwanted()

    def hold(self, request: InferRequest, held: bool) -> None:
        """Make no more parts of an answer, or go on: as fast as its client reads."""
        request.deadline = time.monotonic() + (_HELD_S if held else request.part_timeout_s)
        self._next_deadline.ring_by(request.deadline)
        self.pool.hold(request, held)

    def close(self) -> None:
        super().close()
        self.pool.close()
        self._service.close()

    # -- what the pool tells ----------------------------------------------------------------------------------

    def ended(self, batch: Batch, outcome: Tensors | PacelineError) -> None:
        """A batch has run."""
        for request in batch.requests if self.quarantine.has_suspects else ():
            self.quarantine.survived(request.inputs)
        self._judge(batch, outcome)

    def lost(self, batch: Batch, error: PacelineError, *, guilty: bool) -> None:
        """The worker died of a batch, or with it."""
        first = batch.requests[0]
        retry = self._retry_lost and not first.began
        # Only of a row that was alone is it known.
        if guilty and batch.rows == 1 and self.quarantine.killed(first.inputs, first.losses + 1):
            self._say(f"a row has killed two workers: its like are refused for {QUARANTINE_S:g} s")
            error, retry = self.quarantine.error(), False
        with self._lock:
            over = self.scheduler.lost(batch, time.monotonic(), retry=retry)
        for request in over:
            self._fail(request, error)
        self._tell_of_availability()
        self._dispatch_soon()

    def streamed(self, batch: Batch, part: bytes) -> None:
        """A part of the answer to the only request of a batch."""
        request = batch.requests[0]
        if request.state == RUNNING and request.on_part is not None:
            request.began = True
            # One that waits for its client has a deadline far away.
            request.deadline = max(request.deadline, time.monotonic() + request.part_timeout_s)
            request.on_part(part)

    def replaced(self, reason: str) -> None:
        """A worker has to be replaced."""
        self.telemetry.restarts[reason] += 1

    def left(self, lane: int) -> None:
        """A lane is away."""
        with self._lock:
            self.scheduler.left(lane, time.monotonic())
        self._tell_of_availability()

    def returned(self, lane: int) -> None:
        """A lane is back."""
        with self._lock:
            self.scheduler.returned(lane, time.monotonic())
        self._tell_of_availability()
        self._dispatch_soon()

    # -- instead of threads -----------------------------------------------------------------------------------

    @property
    def _threads_wanted(self) -> int:
        return 0

    def _begin(self, batch: Batch) -> bool:
        try:
            for request in batch.requests:
                self.quarantine.check(request.inputs)
        except Quarantined as error:
            # It waited while another one of its kind was found guilty.
            self._loop.call_soon(self._judge, batch, error)
        else:
            self.pool.run(batch)
        return False

    def _judge(self, batch: Batch, outcome: Tensors | PacelineError) -> None:
        result = self._runner.judged(outcome, batch)
        with self._lock:
            wanted = self._take_back(batch, result)
        self._deliver(batch, result, wanted)
        self._dispatch_soon()

    def _drop(self, late: list[InferRequest]) -> None:
        super()._drop(late)
        if late:
            self._cancel_unwanted()

    def _cancel_unwanted(self) -> None:
        # A worker that does one thing at a time does not read before it has done it.
        if self.about.lanes > 1 or self.about.streams:
            # A generator that is between two parts is no hang, and a worker has many of them.
            self.pool.cancel_unwanted(patiently=self.about.streams)

    def _tell_of_availability(self) -> None:
        if self.available is not self._was_available:
            self._was_available = self.available
            self._on_available()

    def _check_that_one_is_due(self, deadline: float) -> None:
        due = self.pool.due
        if due > deadline:
            raise Overloaded(
                f"model '{self.name}' has no worker now",
                reason="no_worker",
                retry_after_s=max(0.1, due - time.monotonic()),
                model=self.name,
            )


def say_of(say: Callable[[str], None], model: str, line: str) -> None:
    """Say a line of a model."""
    say(f"{model}: {line}")
