"""One server process per test model, started together the first time a test asks for any of them."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from onnx import TensorProto as T

from paceline.testing import RunningServer, run_server
from support import models

MODELS: dict[str, tuple[Callable[[Path], Path], Sequence[str]]] = {
    "mlp": (partial(models.mlp, sizes=(8, 16, 3)), ("--max-batch-size", "512")),
    "half_plus_two": (models.half_plus_two, ("--max-batch-size", "64")),
    "two": (models.two_in_two_out, ()),
    "whole": (partial(models.identity, element=T.INT64, shape=("N", 2)), ()),
    "words": (partial(models.identity, element=T.STRING, shape=("N",)), ()),
    "text": (models.text_and_bytes, ()),
    "fixed": (partial(models.identity, shape=(2, 3)), ()),
    # Cut into batches, their rows would have other last digits.
    "flowers": (models.flowers, ("--max-batch-size", "64")),
    "digits": (models.digits, ("--max-batch-size", "64")),
    "shortened": (models.shortened, ()),
    "table": (models.gather, ()),
    "log": (models.log_of, ("--v1-dialect", "tfs")),
}


@dataclass(frozen=True)
class Answer:
    """One response."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """The message of an error, which every body of one has first."""
        assert next(iter(self.json)) == "error"
        message: str = self.json["error"]
        return message


class Served:
    """One model behind a server of its own."""

    def __init__(self, name: str, path: Path, server: RunningServer) -> None:
        self.name = name
        self.path = path
        self.server = server

    def get(self, path: str, method: str = "GET") -> Answer:
        return self._ask(method, path, None, {})

    def post(
        self,
        path: str,
        body: Any,
        content_type: str = "application/json",
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """POST a body: bytes and text as they are, anything else as JSON."""
        raw = body.encode() if isinstance(body, str) else body
        if not isinstance(raw, bytes):
            raw = json.dumps(body).encode()
        return self._ask("POST", path, raw, {"content-type": content_type, **(headers or {})})

    @cached_property
    def session(self) -> ort.InferenceSession:
        """The same model, in this process."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        return ort.InferenceSession(str(self.path), options, providers=["CPUExecutionProvider"])

    def run(self, **inputs: np.ndarray) -> list[Any]:
        """What onnxruntime answers."""
        outputs: list[Any] = self.session.run(None, inputs)
        return outputs

    def _ask(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> Answer:
        connection = http.client.HTTPConnection(self.server.host, self.server.port, timeout=20)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return Answer(response.status, dict(response.getheaders()), response.read())
        finally:
            connection.close()


class ServedModels:
    """All of `MODELS`; `served[name]` waits until that one is ready."""

    def __init__(self, folder: Path) -> None:
        self._stack = ExitStack()
        self._threads = ThreadPoolExecutor(len(MODELS))
        self._starting = {name: self._threads.submit(self._start, name, folder / f"{name}.onnx") for name in MODELS}

    def __getitem__(self, name: str) -> Served:
        return self._starting[name].result()

    def close(self) -> None:
        """Stop them all."""
        self._threads.shutdown()
        self._stack.close()

    def _start(self, name: str, path: Path) -> Served:
        build, flags = MODELS[name]
        build(path)
        server = self._stack.enter_context(run_server(path, ["--warmup-s", "0.05", *flags]))
        return Served(name, path, server)
