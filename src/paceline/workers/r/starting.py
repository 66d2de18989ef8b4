"""The command that starts an R worker."""

from __future__ import annotations

from paceline.core.errors import RuntimeUnavailable
from paceline.workers.service import Options, Source
from paceline.workers.worker import Worker


def start(source: Source, model: str, threads: int, options: Options) -> Worker:  # noqa: ARG001
    """Start a worker; it says HELLO once it has evaluated the script."""
    raise RuntimeUnavailable(f"{source.path}: R scripts are not served yet")
