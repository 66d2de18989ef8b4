"""Services in R, for tests: skipped, visibly, where R is not installed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from paceline.testing import RunningServer, run_server
from support.doing import Answer
from support.wire import ask, post

needs_r = pytest.mark.skipif(shutil.which("R") is None, reason="R is not installed: apt-get install r-base-core")


@contextmanager
def serving(folder: Path, script: str, *flags: str, **options: Any) -> Iterator[RunningServer]:
    """A server of a script in R, one worker unless the flags say otherwise."""
    path = folder / "model.R"
    path.write_text(script)
    with run_server(path, ["--instances", "1", "--warmup-s", "0", *flags], **options) as server:
        yield server


def predict(server: RunningServer, item: Any, target: str = "/predict", timeout_ms: int = 20_000) -> Answer:
    """Ask for one prediction, or for what `target` answers."""
    answer = ask(server, post(json.dumps(item).encode(), f"X-Request-Timeout-Ms: {timeout_ms}", target=target))
    return Answer(answer.status, answer.headers, json.loads(answer.body))


def predictions(server: RunningServer, items: Sequence[Any]) -> Any:
    """What `/batch-predict` answers."""
    return predict(server, items, "/batch-predict").json
