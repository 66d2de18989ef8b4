"""What is recorded of each request that has ended, and when does it leave?

Samples leave in blocks: when one is full, or when the step says so. Nothing is allocated for one.
"""

from __future__ import annotations

import math
import struct
from typing import Final, Protocol

from paceline.loadtest.client.codec import Answer
from paceline.loadtest.samples import PACK, Outcome

_BLOCK_ROWS: Final = 4096
_MOST_STATUS: Final = 0xFFFF


class Sink(Protocol):
    """Where samples go: a `Channel`, or another client's."""

    def send_samples(self, rows: memoryview) -> None:
        """Take rows of `SAMPLE`, whose memory is used again."""


class Recorder:
    """The samples of one step.

    Args:
        start_s: of the step, in monotonic seconds.
    """

    def __init__(self, channel: Sink, start_s: float) -> None:
        self._channel = channel
        self._start_s = start_s
        self._block = bytearray(_BLOCK_ROWS * PACK.size)
        self._end = len(self._block)
        self._at = 0
        self._pack = PACK.pack_into

    def add(self, due_s: float, sent_s: float, now: float, outcome: int, answer: Answer) -> None:
        """Record a request that has ended now; times in monotonic seconds."""
        _, status, queue_s, infer_s, rows, _ = answer
        times = due_s - self._start_s, sent_s - due_s, now - due_s
        try:
            self._pack(self._block, self._at, *times, queue_s, infer_s, rows, status, outcome)
        except (OverflowError, struct.error):  # a server that says it took 1e300 seconds
            status = min(status, _MOST_STATUS)
            self._pack(self._block, self._at, *times, math.nan, math.nan, 0, status, outcome)
        self._at += PACK.size
        if self._at == self._end:
            self.flush()

    def add_failure(self, due_s: float, sent_s: float, now: float, outcome: Outcome) -> None:
        """Record a request without an answer."""
        self.add(due_s, sent_s, now, outcome, _NO_ANSWER)

    def flush(self) -> None:
        """Send what is recorded."""
        if self._at:
            self._channel.send_samples(memoryview(self._block)[: self._at])
            self._at = 0


_NO_ANSWER: Final = Answer(False, 0)
