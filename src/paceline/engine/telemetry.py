"""What happened to a model's requests, counted where it costs almost nothing.

Plain integers and lists, touched only from the event loop; `server/protocols/operations.py` turns them into
Prometheus text when asked.
"""

from __future__ import annotations

from collections import Counter

from paceline.core.stats import ROWS_BOUNDS, Histogram


class Telemetry:
    """Counters and histograms of one model.

    Attributes:
        requests: ended requests by (protocol, outcome), where outcome is `ok` or an error code.
        rejected: refused requests by reason.
        restarts: workers that had to be replaced, by reason.
        rows, batches: rows and batches that ran.
        batch_rows: rows per batch.
        queue_s, service_s, latency_s: histograms in seconds, per request, per batch, per request.
        infer_s: service time summed over requests (a batch of three counts three times).
        batch_service: per batch size in rows: [batches, seconds].
        last_inference: wall-clock seconds of the last batch; 0.0 before the first.
    """

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, str]] = Counter()
        self.rejected: Counter[str] = Counter()
        self.restarts: Counter[str] = Counter()
        self.failed_s = 0.0
        self.rows = 0
        self.batches = 0
        self.batch_rows = Histogram(ROWS_BOUNDS)
        self.queue_s = Histogram()
        self.service_s = Histogram()
        self.latency_s = Histogram()
        self.infer_s = 0.0
        self.batch_service: dict[int, list[float]] = {}
        self.last_inference = 0.0

    def batch_done(self, rows: int, service_s: float, wall_s: float) -> None:
        """Count one batch that ran."""
        self.rows += rows
        self.batches += 1
        self.batch_rows.observe(rows)
        self.service_s.observe(service_s)
        per_size = self.batch_service.get(rows)
        if per_size is None:
            per_size = self.batch_service[rows] = [0, 0.0]
        per_size[0] += 1
        per_size[1] += service_s
        self.last_inference = wall_s

    @property
    def succeeded(self) -> int:
        """Requests that were answered."""
        return sum(count for (_, outcome), count in self.requests.items() if outcome == "ok")

    @property
    def failed(self) -> int:
        """Requests that ended with an error."""
        return sum(count for (_, outcome), count in self.requests.items() if outcome != "ok")
