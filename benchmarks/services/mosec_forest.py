"""The forest on mosec: its Rust server batches for $WORKERS Python workers.

$WAIT_MS is the longest wait of a batch for more rows: mosec takes 10 unless told otherwise, and does not take 0.
"""

import os

from forest import Forest
from mosec import Server, Worker


class Digits(Worker):
    def __init__(self) -> None:
        self._forest = Forest()

    def forward(self, data: list[list[float]]) -> list[int]:
        return self._forest.predict(data)


if __name__ == "__main__":
    server = Server()
    wait_ms = int(os.environ["WAIT_MS"])
    server.append_worker(Digits, num=int(os.environ["WORKERS"]), max_batch_size=64, max_wait_time=wait_ms)
    server.run()
