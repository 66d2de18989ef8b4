"""The small model in Triton's Python backend: its C++ server batches, this joins a batch's rows and runs them once.

The model's path is in $MODEL; Triton calls this file model.py and finds config.pbtxt beside its version's folder.
"""

import os

import numpy as np
import onnxruntime
import triton_python_backend_utils as triton


class TritonPythonModel:
    def initialize(self, args: dict) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])

    def execute(self, requests: list) -> list:
        inputs = [triton.get_input_tensor_by_name(request, "x").as_numpy() for request in requests]
        joined = inputs[0] if len(inputs) == 1 else np.concatenate(inputs)
        outputs = self._session.run(None, {"x": joined})[0]
        responses, start = [], 0
        for rows in map(len, inputs):
            tensor = triton.Tensor("y", outputs[start : start + rows])
            responses.append(triton.InferenceResponse([tensor]))
            start += rows
        return responses
