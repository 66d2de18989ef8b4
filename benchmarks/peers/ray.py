"""Ray Serve, with dynamic batching.

https://docs.ray.io/en/latest/serve/advanced-guides/dyn-req-batch.html: `@serve.batch`, and `max_ongoing_requests` above
the size of a batch; https://docs.ray.io/en/master/kuberay/user-guides/serve-high-throughput.html:
`RAY_SERVE_THROUGHPUT_OPTIMIZED`. Its gRPC wants a service definition of one's own, and is not measured.
"""

from __future__ import annotations

from benchmarks.peers.model import SERVICES
from benchmarks.peers.peer import Command, Environment, Launch, Setup
from benchmarks.peers.wires import PlainJson

_PINNED = ("ray[serve]==2.60.0",)


def _command(launch: Launch) -> Command:
    env = {**launch.env, "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    return Command([str(launch.python), str(SERVICES / "on_ray.py"), str(launch.port)], env)


SETUPS = [
    Setup(
        name="ray",
        title="Ray Serve",
        note=f"{', '.join(_PINNED)}; a replica for each core, batches up to 128 without a wait, throughput optimized",
        environment=Environment("ray", _PINNED),
        dialects={"json": PlainJson("/predict")},
        command=_command,
    )
]
