"""MLServer, with a custom runtime.

https://docs.seldon.ai/mlserver/user-guide/parallel-inference: `parallel_workers`, one for each core;
https://docs.seldon.ai/mlserver/user-guide/adaptive-batching: `max_batch_size` and `max_batch_time`, to be found by
experiment: 1 ms, as for the others that want a wait.
"""

from __future__ import annotations

import json

from benchmarks.peers.peer import Command, Environment, Launch, Setup
from benchmarks.peers.wires import OipGrpc, OipJson
from benchmarks.processes import free_port

# With a later uvloop its workers find no event loop and end.
_PINNED = ("mlserver==1.7.1", "uvloop==0.21.0")


def _command(launch: Launch) -> Command:
    over_grpc = launch.wire == "grpc"
    settings = {
        "host": "127.0.0.1",
        "http_port": free_port() if over_grpc else launch.port,
        "grpc_port": launch.port if over_grpc else free_port(),
        "metrics_port": free_port(),
        "parallel_workers": launch.workers,
        "debug": False,
        "logging_settings": None,
    }
    model = {
        "name": launch.model.served_as,
        "implementation": "on_mlserver.Model",
        "max_batch_size": 128,
        "max_batch_time": 0.001,
    }
    launch.folder.mkdir(parents=True, exist_ok=True)
    (launch.folder / "settings.json").write_text(json.dumps(settings))
    (launch.folder / "model-settings.json").write_text(json.dumps(model))
    return Command([launch.beside("mlserver"), "start", str(launch.folder)], launch.env)


SETUPS = [
    Setup(
        name="mlserver",
        title="MLServer",
        note=f"{', '.join(_PINNED)}; a worker for each core, batches up to 128, longest wait 1 ms",
        environment=Environment("mlserver", _PINNED),
        dialects={"oip": OipJson(), "grpc": OipGrpc()},
        command=_command,
    )
]
