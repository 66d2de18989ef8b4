"""What does the server say of a request: how long did it queue, how long did its batch run, of how many rows?"""

from __future__ import annotations

import math
import re
from typing import Final, NamedTuple

_QUEUE: Final = re.compile(rb"(?:^|,)\s*queue\s*;[^,]*?dur=(\d+(?:\.\d+)?)")
_INFER: Final = re.compile(rb"(?:^|,)\s*infer\s*;[^,]*?dur=(\d+(?:\.\d+)?)")
# As our server writes it, in one go.
_BOTH: Final = re.compile(rb"queue;dur=(\d+\.\d+), infer;dur=(\d+\.\d+)")
_MOST_ROWS: Final = 2**32 - 1


class Timing(NamedTuple):
    """Seconds; nan, and 0 rows, where the server does not say."""

    queue_s: float = math.nan
    infer_s: float = math.nan
    batch_rows: int = 0


NO_TIMING: Final = Timing()


def timing(server_timing: bytes, batch_size: bytes = b"") -> Timing:
    """From the values of the headers `server-timing` (milliseconds) and `x-batch-size`. What is odd is left out."""
    rows = int(batch_size) if batch_size.isdigit() and len(batch_size) <= 10 else 0
    rows = rows if rows <= _MOST_ROWS else 0
    both = _BOTH.fullmatch(server_timing)
    if both is not None:
        return Timing(float(both[1]) / 1e3, float(both[2]) / 1e3, rows)
    queue, infer = _QUEUE.search(server_timing), _INFER.search(server_timing)
    return Timing(
        float(queue[1]) / 1e3 if queue else math.nan,
        float(infer[1]) / 1e3 if infer else math.nan,
        rows,
    )
