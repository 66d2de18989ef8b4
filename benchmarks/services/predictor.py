"""The model of every peer, a batch at a time: the ONNX file that $MODEL names, or the forest if it names that.

$THREADS is how many threads one copy may use. Needs numpy, and ONNX Runtime or scikit-learn.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np

_ARRAYS = {"tensor(float)": np.float32, "tensor(int64)": np.int64}


class Onnx:
    """A model file in ONNX Runtime."""

    def __init__(self, path: str) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(os.environ["THREADS"])
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.inputs = {each.name: _ARRAYS[each.type] for each in self._session.get_inputs()}
        self.output = self._session.get_outputs()[0].name

    def run(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        """The output for inputs of shape [N, ...]."""
        return self._session.run(None, inputs)[0]

    def predict(self, items: list[Any]) -> list[Any]:
        """Answers for items as they come from JSON: the one input's values, or an object with those of each."""
        if len(self.inputs) == 1:
            ((name, kind),) = self.inputs.items()
            return self.run({name: np.array(items, kind)}).tolist()
        return self.run(
            {name: np.array([item[name] for item in items], kind) for name, kind in self.inputs.items()}
        ).tolist()


class Trees:
    """The random forest of scikit-learn."""

    def __init__(self) -> None:
        from forest import Forest

        self._forest = Forest()
        self.inputs = {"x": np.float32}
        self.output = "label"

    def run(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        """The digits in images of shape [N, 64]."""
        return self._forest.classify(inputs["x"]).astype(np.int64)

    def predict(self, items: list[list[float]]) -> list[int]:
        """The digits in images as they come from JSON."""
        return self._forest.predict(items)


def load() -> Onnx | Trees:
    """The model that the environment asks for."""
    source = os.environ["MODEL"]
    return Trees() if source == "forest" else Onnx(source)
