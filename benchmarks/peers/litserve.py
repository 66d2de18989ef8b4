"""LitServe: FastAPI and uvicorn in front of worker processes.

https://lightning.ai/docs/litserve/features/batching: `max_batch_size` and `batch_timeout`;
https://lightning.ai/docs/litserve/api-reference/litserver: `workers_per_device`, and `fast_queue` for many requests.
"""

from __future__ import annotations

from functools import partial

from benchmarks.peers.model import SERVICES
from benchmarks.peers.peer import Command, Environment, Launch, Setup
from benchmarks.peers.wires import PlainJson

_PINNED = ("litserve==0.2.19",)
_ENVIRONMENT = Environment("litserve", _PINNED)


def _command(launch: Launch, fast_queue: str) -> Command:
    return Command(
        [str(launch.python), str(SERVICES / "on_litserve.py"), str(launch.port)],
        {**launch.env, "FAST_QUEUE": fast_queue},
    )


def _setup(name: str, title: str, fast_queue: str, *, by_name_only: bool = False) -> Setup:
    return Setup(
        name=name,
        title=title,
        note=f"{', '.join(_PINNED)}; a worker for each core, batches up to 64, batch_timeout 10 ms",
        environment=_ENVIRONMENT,
        dialects={"json": PlainJson("/predict")},
        command=partial(_command, fast_queue=fast_queue),
        by_name_only=by_name_only,
    )


SETUPS = [
    _setup("litserve", "LitServe", "0"),
    _setup("litserve-fast", "LitServe with fast_queue", "1", by_name_only=True),
]
