"""One client call on its way through the server.

A request is created by a protocol, queued and batched by the scheduler, run by the engine, and ends exactly
once: with outputs, or with an error. The object is mutable, because one is made for every call and
its way through the server must cost little.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Hashable

from paceline.core.errors import PacelineError
from paceline.core.tensors import Tensors


class State(enum.IntEnum):
    """Where a request is in its life. It only moves forward.

    RUNNING covers what has left the queue: in a batch, waiting for a re-run after a failed batch, or cut into parts.
    """

    NEW = 0
    QUEUED = 1
    RUNNING = 2
    DONE = 3


NEW, QUEUED, RUNNING, DONE = State.NEW, State.QUEUED, State.RUNNING, State.DONE


class InferRequest:
    """Inputs of shape [rows, ...] with a deadline, and later the outputs or the error.

    Attributes:
        inputs: arrays in the order of the signature's inputs.
        rows: items along axis 0; 1 for a model without batch dimension.
        group: only requests with equal groups share a batch.
        deadline: absolute monotonic seconds.
        on_done: called exactly once, with this request, when `outputs` or `error` is set.
        on_part: called with each part of a streamed answer, before that; None: the parts are not wanted.
        part_timeout_s: from each part to the next; `deadline` holds for the first.
        began: a part has been given away: it cannot run once more.
        sequence: order of arrival at the scheduler.
        offset: its first row in the batch.
        losses: how many workers have died while they ran it.
        nonfinite_ok: NaN and infinity in the outputs are answers, whatever the model's policy.
        errors_by_row: an output may hold a row's own error; otherwise that fails the request.
        cached: all outputs were kept from before; None: nothing is kept. `age_s`: the time since, of the oldest.
        parent, parts, unjoined: a large request runs as parts; how many have no outputs yet.
        queue_s, service_s, batch_rows: what happened to it, for the response headers and the metrics.
    """

    # Defaults stand on the class: storing them in every request would cost half a microsecond.
    outputs: Tensors | None = None
    error: PacelineError | None = None
    state = NEW
    arrived = 0.0
    sequence = 0
    offset = 0
    queue_s = 0.0
    service_s = 0.0
    batch_rows = 0
    parent: InferRequest | None = None
    parts: list[InferRequest] | None = None
    unjoined = 0
    nonfinite_ok = False
    errors_by_row = False
    losses = 0
    cached: bool | None = None
    age_s = 0.0
    on_part: Callable[[bytes], None] | None = None
    part_timeout_s = 0.0
    began = False

    def __init__(
        self,
        inputs: Tensors,
        rows: int,
        deadline: float,
        on_done: Callable[[InferRequest], None],
        group: Hashable = None,
        size_bytes: int = 0,
    ) -> None:
        self.inputs = inputs
        self.rows = rows
        self.group = group
        self.bytes = size_bytes
        self.deadline = deadline
        self.on_done = on_done

    def split(self, max_rows: int) -> list[InferRequest]:
        """Cut into parts of at most `max_rows` rows, remembered in `parts` so that they can be joined again."""
        parts = []
        for start in range(0, self.rows, max_rows):
            stop = min(start + max_rows, self.rows)
            part = InferRequest(
                tuple(array[start:stop] for array in self.inputs),
                rows=stop - start,
                deadline=self.deadline,
                on_done=self.on_done,
                group=self.group,
                size_bytes=self.bytes * (stop - start) // self.rows,
            )
            part.parent = self
            parts.append(part)
        self.parts = parts
        self.unjoined = len(parts)
        return parts

    def rows_apart(self) -> list[InferRequest]:
        """Cut what has left the queue into its rows. Those of a part take its place among the parts of the whole."""
        if self.rows == 1:
            return [self]
        whole, before = self.parent, self.parts
        rows = self.split(1)
        for row in rows:
            row.state, row.losses = self.state, self.losses
            row.arrived, row.sequence = self.arrived, self.sequence
        if whole is not None and whole.parts is not None:
            self.parts = before
            place = whole.parts.index(self)
            whole.parts[place : place + 1] = rows
            whole.unjoined += len(rows) - 1
            for row in rows:
                row.parent = whole
        return rows
