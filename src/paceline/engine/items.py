"""A served model that takes items of JSON: what of a request has to run?

Rules:
- Its requests are calls: their items fly together with others (`flights`), or their predictions are kept
  (`prediction_cache`).
- It admits what it runs, not what comes: what is kept, or under way, is answered while the queue is full.
- A request with a row that failed ends with that row's error, unless it has said that it takes errors by row.
- Streamed answers are made for one client: such a request goes straight through.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from paceline.core.requests import InferRequest
from paceline.core.tensors import Array, Tensors
from paceline.engine.alarm import Alarm
from paceline.engine.calls import FIRST, Call, Flight, Wanted
from paceline.engine.flights import Flights
from paceline.engine.hosted import HostedModel
from paceline.engine.prediction_cache import Counted, MemoryCache
from paceline.engine.redis_cache import RedisCache
from paceline.engine.service_warmup import PreparedService


class ItemsModel(HostedModel):
    """User code behind a scheduler, on the running event loop.

    Args:
        deduplicate: let equal items run once.
        cache: where predictions are kept.
        options: of `HostedModel`.

    Attributes:
        cache: what is told about the predictions that are kept; None: none are.
    """

    def __init__(
        self,
        name: str,
        version: str,
        prepared: PreparedService,
        *,
        deduplicate: bool = True,
        cache: MemoryCache | RedisCache | None = None,
        max_queue_requests: int = 4096,
        max_queue_bytes: int = 256 << 20,
        **options: Any,
    ) -> None:
        super().__init__(
            name,
            version,
            prepared,
            max_queue_requests=max_queue_requests,
            max_queue_bytes=max_queue_bytes,
            **options,
        )
        self.cache: Counted | None = cache
        self._memory = cache if isinstance(cache, MemoryCache) else None
        self._elsewhere = cache if isinstance(cache, RedisCache) else None
        self._share = deduplicate and self.about.deterministic and not self.about.raw
        self._rider_deadline = Alarm(self._expire_riders)
        self._flights = Flights(
            self,
            share=self._share,
            most_rows=prepared.max_batch_rows,
            most_riders=max_queue_requests,
            most_rider_bytes=max_queue_bytes,
            landed=None if cache is None else cache.keep,
            look_up=None if self._elsewhere is None else self._elsewhere.look_up,
        )

    @property
    def shared_rows(self) -> int:
        """Rows that did not run because an equal item was under way."""
        return self._flights.shared

    # -- requests in ------------------------------------------------------------------------------------------

    def request(
        self, inputs: Tensors, deadline: float, on_done: Callable[[InferRequest], None], size_bytes: int = 0
    ) -> InferRequest:
        return Call(inputs, len(inputs[0]), deadline, on_done, None, size_bytes)

    def admit(self, deadline: float, size_bytes: int) -> None:
        # What is kept or under way is answered however long the queue is: that shows when the items are known.
        if not self._share and self.cache is None:
            super().admit(deadline, size_bytes)

    def submit(self, request: InferRequest, *, admitted: bool = False) -> None:
        assert isinstance(request, Call)
        if request.rows == 0 or request.on_part is not None:
            super().submit(request)
            return
        texts = request.inputs[0].tolist()
        if len(texts) == 1 and self._memory is None:
            self._flights.take_one(request, texts[0])
            return
        wanted: Wanted = ((texts[0], FIRST),) if len(texts) == 1 else self._wanted(request, texts)
        if self._memory is not None:
            wanted = self._recalled(self._memory, request, wanted)
        if wanted:
            self._flights.take(request, wanted)

    def cancel(self, request: InferRequest) -> None:
        if isinstance(request, Call) and request.items is not None:
            self._flights.leave(request)
        super().cancel(request)

    @property
    def idle(self) -> bool:
        return super().idle and self._flights.idle

    def close(self) -> None:
        super().close()
        if self._elsewhere is not None:
            self._elsewhere.close()

    # -- what flights ask -------------------------------------------------------------------------------------

    def admit_rows(self, rows: int, size_bytes: int, deadline: float) -> None:
        """Check whether so much could be queued now."""
        with self._lock:
            self.scheduler.admit(rows, size_bytes, deadline, time.monotonic())

    def run(self, flight: Flight, *, admitted: bool) -> None:
        """Queue a flight."""
        super().submit(flight, admitted=admitted)

    def drop(self, flight: Flight) -> None:
        """Nobody waits for a flight any more."""
        super().cancel(flight)

    def end(self, call: Call) -> None:
        """Tell whoever asked."""
        if self.cache is not None:
            call.cached = call.kept_rows == call.rows
        self._tell(call)

    def look_by(self, deadline: float) -> None:
        """Look for riders that are late."""
        self._rider_deadline.ring_by(deadline)

    def soon(self, callback: Callable[..., object], *arguments: object) -> None:
        """Call it later."""
        self._loop.call_soon(callback, *arguments)

    # -- inside -----------------------------------------------------------------------------------------------

    def _wanted(self, call: Call, texts: list[bytes]) -> Wanted:
        """Which items stand in which rows."""
        call.answers = np.empty(len(texts), object)
        call.missing = len(texts)
        if not self._share:
            return [(text, (row,)) for row, text in enumerate(texts)]
        rows_of: dict[bytes, list[int]] = {}
        for row, text in enumerate(texts):
            rows_of.setdefault(text, []).append(row)
        call.missing = len(rows_of)
        return list(rows_of.items())

    def _recalled(self, memory: MemoryCache, call: Call, wanted: Wanted) -> Wanted:
        """Take what is kept; what is left."""
        answers = np.empty(1, object) if call.answers is None else call.answers
        missed = []
        for text, rows in wanted:
            kept = memory.find(text)
            if kept is None:
                missed.append((text, rows))
                continue
            for row in rows:
                answers[row] = kept.prediction
            call.missing -= 1
            call.kept_rows += len(rows)
            call.age_s = max(call.age_s, kept.age_s)
        if not missed:
            self._loop.call_soon(self._answer_kept, call, answers)
        return missed

    def _answer_kept(self, call: Call, answers: Array) -> None:
        if call.error is None:  # else cancelled meanwhile
            self._flights.finish(call, answers)

    def _expire_riders(self) -> None:
        self._flights.expire(time.monotonic())
