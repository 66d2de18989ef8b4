"""The model in Triton's Python backend: its C++ server batches, this joins a batch's rows and runs them once.

Triton calls this file model.py and finds config.pbtxt beside its version's folder.
"""

import numpy as np
import triton_python_backend_utils as triton
from predictor import load


class TritonPythonModel:
    def initialize(self, args: dict) -> None:
        self._model = load()

    def execute(self, requests: list) -> list:
        parts = {
            name: [triton.get_input_tensor_by_name(each, name).as_numpy() for each in requests]
            for name in self._model.inputs
        }
        outputs = self._model.run({name: _joined(each) for name, each in parts.items()})
        responses, start = [], 0
        for rows in map(len, next(iter(parts.values()))):
            tensor = triton.Tensor(self._model.output, outputs[start : start + rows])
            responses.append(triton.InferenceResponse([tensor]))
            start += rows
        return responses


def _joined(arrays: list) -> np.ndarray:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
