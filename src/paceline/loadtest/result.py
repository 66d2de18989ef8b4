"""What is the outcome of a load test? The document that `--json` prints, that reports are drawn from and gates compare.

Milliseconds, as reports have them. A number that is not known is None.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from paceline.core.errors import ConfigError

SCHEMA_VERSION: Final = 1
PERCENTILES: Final = {"p50_ms": 50.0, "p90_ms": 90.0, "p95_ms": 95.0, "p99_ms": 99.0, "p999_ms": 99.9}


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """A distribution of times."""

    count: int
    mean_ms: float | None
    p50_ms: float | None
    p90_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    p999_ms: float | None
    max_ms: float | None


class Slo(msgspec.Struct, frozen=True, kw_only=True):
    """A promise: this percentile of the latency is at most so long."""

    percentile: float
    latency_ms: float


class Instant(msgspec.Struct, frozen=True, kw_only=True):
    """A stretch of the time line.

    Attributes:
        at_s: its begin, since the step began to count; warm-up is negative.
        due, failed: requests per second, by when they were due.
        answered: predictions per second, by when they came.
        p50_ms, p99_ms: of the predictions, by when they were due.
    """

    at_s: float
    due: float
    answered: float
    failed: float
    p50_ms: float | None
    p99_ms: float | None


class Client(msgspec.Struct, frozen=True, kw_only=True):
    """What the client took, and whether it was in the way.

    Attributes:
        cpu: cores that it took.
        late_p99_ms: how late it was itself; that requests waited for a connection is the server's doing. None where
            the engine does not say.
        bottleneck: why its numbers say more of the client than of the server; "" if they do not.
    """

    cpu: float
    late_p99_ms: float | None
    bottleneck: str = ""


class StepResult(msgspec.Struct, frozen=True, kw_only=True):
    """What one load did.

    Attributes:
        label: short, such as "8 users" or "200/s".
        users: of a closed loop; None for an open one.
        offered_rate: requests due per second; of a closed loop, sent per second.
        duration_s: that counted; shorter than was asked for if the step was ended early.
        requests: that were due in it and came to an end; of users, also those that were under way when it began to
            count and had most of their time in it.
        rate: predictions per second that came in it.
        goodput: those of them within the latency of the SLO, per second; None without one.
        errors: by kind, such as {"status 503": 12, "timeout": 1}.
        latency: of the answers that are predictions, from when they were due.
        failed_latency: of the rest, until they had failed; without those that were never sent.
        queue, infer: as the server says, for the answers that say it.
        batch_rows: how many answers came from batches of so many rows.
        histogram: upper bounds in milliseconds, and counts, of `latency`.
        slo_met: None without an SLO.
    """

    label: str
    users: int | None
    think_s: tuple[float, float] | None
    offered_rate: float
    duration_s: float
    requests: int
    rate: float
    rows_per_s: float
    goodput: float | None
    slo_met: bool | None
    errors: dict[str, int]
    latency: Latency
    failed_latency: Latency
    queue: Latency | None
    infer: Latency | None
    batch_rows: dict[int, int]
    histogram: list[tuple[float, int]]
    timeline: list[Instant]
    client: Client

    @property
    def failed(self) -> int:
        """Requests that brought no prediction."""
        return sum(self.errors.values())

    @property
    def mean_batch_rows(self) -> float | None:
        """Of the batch that an answer came from; None if the server does not say."""
        return mean_size(self.batch_rows)


class Capacity(msgspec.Struct, frozen=True, kw_only=True):
    """The highest offered rate that met the SLO.

    Attributes:
        rate: met it; 0.0 if none did.
        missed_at: the lowest rate that did not; None if none was tried.
        why: in words.
        goodput: predictions per second within the latency of the SLO, at that rate.
        lower_bound: the client or the plan came to its end first, so the server may do more.
    """

    rate: float
    missed_at: float | None
    why: str
    goodput: float | None = None
    lower_bound: bool = False


class Gate(msgspec.Struct, frozen=True, kw_only=True):
    """A comparison that passes or fails."""

    rule: str
    label: str
    before: float | None
    now: float | None
    ok: bool
    why: str


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """A load test.

    Attributes:
        kind: `closed`, `open`, `users` or `capacity`.
        command: as one would type it.
        machine: of the client: cores, processor, kernel, Python.
        engine: what sent the requests: `paceline` or `locust`.
    """

    schema_version: int = SCHEMA_VERSION
    created: str
    paceline: str
    command: str
    kind: str
    url: str
    protocol: str
    model: str
    server: str
    rows: int
    engine: str
    machine: dict[str, Any]
    slo: Slo | None
    steps: list[StepResult]
    capacity: Capacity | None = None
    gates: list[Gate] = msgspec.field(default_factory=list)
    warnings: list[str] = msgspec.field(default_factory=list)


def read(path: Path) -> Result:
    """A document that `--output` has written.

    Raises:
        ConfigError: it cannot be read, is none, or is of another version of the schema.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        version = msgspec.json.decode(data, type=_Versioned).schema_version
        if version != SCHEMA_VERSION:
            raise ConfigError(
                f"{path}: schema_version: expected {SCHEMA_VERSION}, got {version}",
                hint="it was written by another version of Paceline: measure it again with this one",
            )
        return msgspec.json.decode(data, type=Result)
    except msgspec.DecodeError as error:
        raise ConfigError(f"{path}: is no result of a load test: {error}") from error


def mean_size(counts: Mapping[int, int]) -> float | None:
    """The mean of sizes that came so many times; None if none did."""
    whole = sum(counts.values())
    return sum(size * count for size, count in counts.items()) / whole if whole else None


class _Versioned(msgspec.Struct):
    schema_version: int
