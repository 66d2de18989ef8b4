"""A served model whose instances are worker processes.

What differs from any other: a batch runs elsewhere, and the process that runs it may die of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from paceline.core.errors import InstanceLost, PacelineError
from paceline.core.requests import InferRequest
from paceline.core.tensors import Tensors
from paceline.engine.model import ServedModel
from paceline.engine.pool import Limits, Pool
from paceline.engine.running import joined
from paceline.engine.service_warmup import PreparedService
from paceline.scheduling import Batch


class HostedModel(ServedModel):
    """A warm service behind a scheduler, on the running event loop.

    Args:
        limits: when a worker is replaced.
        retry_lost: run the requests of a worker that died once more.
        say: told what happens to workers, line by line.
        on_available: called when the last worker has gone, and when the first is back.

    Attributes:
        about: what the workers have recognised in the code.
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
        self.pool = Pool(
            prepared.workers,
            lambda: prepared.service.worker(prepared.threads),
            prepared.lanes,
            limits,
            self,
            lambda line: say(f"{name}: {line}"),
        )

    @property
    def available(self) -> bool:
        return self.pool.alive > 0

    def close(self) -> None:
        super().close()
        self.pool.close()

    # -- what the pool tells ----------------------------------------------------------------------------------

    def ended(self, batch: Batch, outcome: Tensors | PacelineError) -> None:
        """A batch has run."""
        result = self._runner.judged(outcome, batch)
        with self._lock:
            wanted = self._take_back(batch, result)
        self._deliver(batch, result, wanted)
        self._dispatch_soon()

    def lost(self, batch: Batch, error: PacelineError) -> None:
        """The worker died of a batch, or with it."""
        with self._lock:
            over = self.scheduler.lost(batch, time.monotonic(), retry=self._retry_lost)
        for request in over:
            self._fail(request, self._for_good(request, error))
        self._dispatch_soon()

    def streamed(self, batch: Batch, part: bytes) -> None:
        """A part of an answer came."""

    def left(self, lane: int) -> None:
        """A lane is away."""
        with self._lock:
            self.scheduler.left(lane, time.monotonic())
        self._on_available()

    def returned(self, lane: int) -> None:
        """A lane is back."""
        with self._lock:
            self.scheduler.returned(lane, time.monotonic())
        self._on_available()
        self._dispatch_soon()

    # -- instead of threads -----------------------------------------------------------------------------------

    @property
    def _threads_wanted(self) -> int:
        return 0

    def _begin(self, batch: Batch) -> bool:
        self.pool.run(batch, joined([request.inputs for request in batch.requests]))
        return False

    def _for_good(self, request: InferRequest, error: PacelineError) -> PacelineError:
        if request.losses < 2:
            return error
        return InstanceLost(f"two workers died while they ran this request: {error}", model=self.name)
