"""The model on LitServe: FastAPI and uvicorn in front, $WORKERS worker processes, batches of up to 64.

python on_litserve.py PORT; $FAST_QUEUE=1 is its own flag for many requests.
"""

import os
import sys
from typing import Any

import litserve
from predictor import load


class Api(litserve.LitAPI):
    def setup(self, device: str) -> None:
        self._model = load()

    def batch(self, inputs: list[Any]) -> list[Any]:
        return inputs

    def predict(self, batch: list[Any]) -> list[Any]:
        return self._model.predict(batch)

    def unbatch(self, output: list[Any]) -> list[Any]:
        return output


if __name__ == "__main__":
    server = litserve.LitServer(
        Api(max_batch_size=64, batch_timeout=0.01),
        accelerator="cpu",
        workers_per_device=int(os.environ["WORKERS"]),
        fast_queue=os.environ["FAST_QUEUE"] == "1",
    )
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="warning")
