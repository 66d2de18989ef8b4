"""The forest on LitServe: FastAPI and uvicorn in front, $WORKERS worker processes, batches of up to 64.

python litserve_forest.py PORT
"""

import os
import sys

import litserve
from forest import Forest


class Digits(litserve.LitAPI):
    def setup(self, device: str) -> None:
        self._forest = Forest()

    def batch(self, inputs: list[list[float]]) -> list[list[float]]:
        return inputs

    def predict(self, batch: list[list[float]]) -> list[int]:
        return self._forest.predict(batch)

    def unbatch(self, output: list[int]) -> list[int]:
        return output


if __name__ == "__main__":
    server = litserve.LitServer(
        Digits(max_batch_size=64, batch_timeout=0.01),
        accelerator="cpu",
        workers_per_device=int(os.environ["WORKERS"]),
        fast_queue=os.environ.get("FAST_QUEUE") == "1",
    )
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="warning")
