"""The examples of `paceline.batched`, under the servers that their authors would use."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

ROOT = Path(__file__).parents[2]
WAIT_S = 60.0
CLIENTS = 32
CALLS = 320
FLOWER = [5.1, 3.5, 1.4, 0.2]

UVICORN = ("uvicorn", "app:app", "--log-level", "warning")
GUNICORN = ("gunicorn", "app:app", "--threads", str(CLIENTS), "--worker-class", "gthread", "--log-level", "warning")


@contextmanager
def application(example: str, command: tuple[str, ...]) -> Iterator[httpx.Client]:
    """A client of an example that runs in its folder."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    place = ("--port", port) if command[0] == "uvicorn" else ("--bind", f"127.0.0.1:{port}")
    # As few threads as there is reason for: the forest is small, and other tests need the cores.
    process = subprocess.Popen(
        [sys.executable, "-m", *command, *place],
        cwd=ROOT / "examples" / example,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        limits = httpx.Limits(max_connections=CLIENTS)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=WAIT_S, limits=limits) as client:
            _wait_until_it_answers(client, process)
            yield client
    finally:
        process.terminate()
        process.wait(WAIT_S)


def _wait_until_it_answers(client: httpx.Client, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + WAIT_S
    while True:
        try:
            client.get("/statistics")
            return
        except httpx.TransportError:
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.05)


def ask(client: httpx.Client) -> Any:
    answer = client.post("/predict", json=FLOWER)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("example", "command"),
    [("fastapi_batched", UVICORN), ("flask_batched", GUNICORN), ("flask_batched", (*GUNICORN, "--preload"))],
    ids=["fastapi", "flask", "flask after a fork"],
)
def test_clients_at_the_same_time_share_calls_of_the_model(example: str, command: tuple[str, ...]):
    with application(example, command) as client:
        assert ask(client) == 0
        with ThreadPoolExecutor(CLIENTS) as threads:
            answers = list(threads.map(lambda _: ask(client), range(CALLS)))
        statistics = client.get("/statistics").json()
    assert answers == [0] * CALLS
    assert statistics["calls"] == CALLS + 1
    assert statistics["failed"] == statistics["late"] == statistics["refused"] == 0
    assert statistics["batches"] < CALLS * 0.75
    assert 1 < statistics["largest_batch"] <= 64
