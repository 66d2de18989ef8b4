"""BentoML, with adaptive batching.

https://docs.bentoml.com/en/latest/get-started/adaptive-batching.html: `batchable=True`, `max_batch_size` and
`max_latency_ms`;
https://docs.bentoml.com/en/latest/build-with-bentoml/parallelize-requests.html: a worker for each core.
"""

from __future__ import annotations

from benchmarks.peers.model import SERVICES
from benchmarks.peers.peer import Command, Environment, Launch, Setup
from benchmarks.peers.wires import PlainJson

_PINNED = ("bentoml==1.4.39",)


def _command(launch: Launch) -> Command:
    flags = ["--host", "127.0.0.1", "--port", str(launch.port), "--working-dir", str(SERVICES)]
    env = {**launch.env, "BENTOML_HOME": str(launch.folder), "BENTOML_DO_NOT_TRACK": "True"}
    return Command([launch.beside("bentoml"), "serve", "on_bentoml:Model", *flags], env)


SETUPS = [
    Setup(
        name="bentoml",
        title="BentoML",
        note=f"{', '.join(_PINNED)}; a worker for each core, adaptive batching up to 128",
        environment=Environment("bentoml", _PINNED),
        dialects={"json": PlainJson("/predict", listed_as="items")},
        command=_command,
    )
]
