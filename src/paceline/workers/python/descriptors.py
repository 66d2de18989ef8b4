"""Descriptors that user code should not meet: what closes all that it did not open begins at 3."""

from __future__ import annotations

import fcntl
import resource
from typing import Final

_FIRST: Final = 900


def copy(descriptor: int) -> int:
    """The same thing under a high number, not inherited by child processes."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, min(_FIRST, soft // 2))
