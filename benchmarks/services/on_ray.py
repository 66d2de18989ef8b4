"""The model on Ray Serve: $WORKERS replicas, each with its dynamic batching.

python on_ray.py PORT
"""

import os
import signal
import sys
from typing import Any

import ray
from predictor import load
from ray import serve
from starlette.requests import Request

_WORKERS = int(os.environ["WORKERS"])


@serve.deployment(num_replicas=_WORKERS, max_ongoing_requests=256, ray_actor_options={"num_cpus": 1})
class Model:
    def __init__(self) -> None:
        self._model = load()

    @serve.batch(max_batch_size=128, batch_wait_timeout_s=0)
    async def predict(self, items: list[Any]) -> list[Any]:
        return self._model.predict(items)

    async def __call__(self, request: Request) -> Any:
        return await self.predict(await request.json())


if __name__ == "__main__":
    # As many as there are cores, and one for its own actors, which ask for none when they idle.
    ray.init(num_cpus=_WORKERS + 1, include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    serve.run(Model.bind(), route_prefix="/predict")
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    ray.shutdown()
