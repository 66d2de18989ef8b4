"""What is known of each request that was sent, or should have been?

Samples travel from the generator's process as rows of `SAMPLE`, packed one by one with `PACK`, read as one array.
"""

from __future__ import annotations

import enum
import struct
from typing import Final

import numpy as np
from numpy.typing import NDArray


class Outcome(enum.IntEnum):
    """How a request ended. Its value is stored; its name, in lower case, stands in reports."""

    OK = 0
    STATUS = 1  # answered with a status that is none of success
    NOT_CONNECTED = 2  # the connection could not be opened
    CLOSED = 3  # closed without an answer
    RESET = 4  # reset while the request was under way
    TIMEOUT = 5  # no complete answer in time
    MALFORMED = 6  # the answer is none of the protocol's
    UNSENT = 7  # due while the most requests that may wait in the client were waiting
    ABANDONED = 8  # the step was ended while it was under way
    NO_SOCKET = 9  # the client had no descriptor, port or memory left for a connection


SAMPLE: Final = np.dtype(
    [
        ("due_s", "<f8"),  # when it should have been sent, since the start of the step
        ("late_s", "<f4"),  # from then to when it was; what waited for a free connection included
        ("latency_s", "<f4"),  # from when it was due to the last byte of the answer
        ("queue_s", "<f4"),  # as the server says; not a number where it does not
        ("infer_s", "<f4"),
        ("batch_rows", "<u4"),  # rows of the batch that it ran in; 0 where the server does not say
        ("status", "<u2"),  # of HTTP, or of gRPC; 0 without an answer over HTTP
        ("outcome", "u1"),
    ]
)
PACK: Final = struct.Struct("<dffffIHB")
Samples = NDArray[np.void]
"""An array of `SAMPLE`."""

assert PACK.size == SAMPLE.itemsize
