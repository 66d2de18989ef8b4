"""The small model on mosec: its Rust server batches for one Python worker that runs ONNX Runtime.

The model's path is in $MODEL. $JSON=msgspec replaces the standard library's JSON, through mosec's own hooks.
"""

import os
from typing import Any

import msgspec
import numpy as np
import onnxruntime
from mosec import Server, Worker


class Model(Worker):
    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])

    def forward(self, data: list[Any]) -> list[Any]:
        return self._session.run(None, {"x": np.array(data, np.float32)})[0].tolist()


class WithMsgspec(Model):
    def deserialize(self, data: bytes) -> Any:
        return msgspec.json.decode(data)

    def serialize(self, data: Any) -> bytes:
        return msgspec.json.encode(data)


if __name__ == "__main__":
    server = Server()
    worker = WithMsgspec if os.environ.get("JSON") == "msgspec" else Model
    server.append_worker(worker, num=1, max_batch_size=128, max_wait_time=1)
    server.run()
