"""What the scheduler is bound by, and what it hands out."""

from __future__ import annotations

from dataclasses import dataclass

from paceline.core.requests import InferRequest


@dataclass(frozen=True, slots=True)
class Policy:
    """The bounds that a scheduler keeps.

    Attributes:
        max_batch_rows: most rows in one batch.
        instances: how many batches may run at once.
        max_queue_requests, max_queue_bytes: bounds on what waits.
        max_queue_delay_s: longest wait of a request for others to share its batch; 0: none.
    """

    max_batch_rows: int
    instances: int = 1
    max_queue_requests: int = 4096
    max_queue_bytes: int = 256 << 20
    max_queue_delay_s: float = 0.0


class Batch:
    """Requests that run together in one call on one instance.

    Attributes:
        instance: number of the instance, 0-based.
        started: when it was closed, in monotonic seconds.
        expected_end: predicted, for admission.
    """

    __slots__ = ("expected_end", "instance", "requests", "rows", "started")

    def __init__(self, requests: list[InferRequest], rows: int, instance: int, started: float) -> None:
        self.requests = requests
        self.rows = rows
        self.instance = instance
        self.started = started
        self.expected_end = started
