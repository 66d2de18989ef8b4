"""The model on BentoML: $WORKERS workers, each with the adaptive batching of its endpoint."""

import os
from typing import Any

import bentoml
from predictor import load


@bentoml.service(workers=int(os.environ["WORKERS"]), traffic={"timeout": 60})
class Model:
    def __init__(self) -> None:
        self._model = load()

    @bentoml.api(batchable=True, max_batch_size=128, max_latency_ms=60_000)
    def predict(self, items: list[Any]) -> list[Any]:
        return self._model.predict(items)
