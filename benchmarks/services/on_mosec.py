"""The model on mosec: its Rust server batches for $WORKERS Python workers.

$CODEC is how bodies are read: json, with the standard library, as mosec does; msgspec, the same JSON through mosec's
own hooks; msgpack, its mixin for binary bodies, here of the bytes of each input. $WAIT_MS is the longest wait of a
batch for more rows: mosec takes 10 unless told otherwise, and does not take 0.
"""

import os
from typing import Any

import msgspec
import numpy as np
from mosec import Server, Worker
from mosec.mixin import MsgpackMixin
from predictor import load


class Model(Worker):
    def __init__(self) -> None:
        self._model = load()

    def forward(self, data: list[Any]) -> list[Any]:
        return self._model.predict(data)


class WithMsgspec(Model):
    def deserialize(self, data: bytes) -> Any:
        return msgspec.json.decode(data)

    def serialize(self, data: Any) -> bytes:
        return msgspec.json.encode(data)


class WithMsgpack(MsgpackMixin, Model):
    def forward(self, data: list[dict[str, Any]]) -> list[bytes]:
        inputs = {
            name: np.frombuffer(b"".join(each[name] for each in data), kind).reshape(
                len(data), *data[0]["shapes"][name]
            )
            for name, kind in self._model.inputs.items()
        }
        return [row.tobytes() for row in self._model.run(inputs)]


if __name__ == "__main__":
    worker = {"json": Model, "msgspec": WithMsgspec, "msgpack": WithMsgpack}[os.environ["CODEC"]]
    server = Server()
    server.append_worker(
        worker, num=int(os.environ["WORKERS"]), max_batch_size=128, max_wait_time=int(os.environ["WAIT_MS"])
    )
    server.run()
