"""The model as a custom runtime of MLServer."""

import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse
from predictor import load


class Model(MLModel):
    async def load(self) -> bool:
        self._model = load()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        inputs: dict[str, np.ndarray] = {each.name: NumpyCodec.decode_input(each) for each in payload.inputs}
        output = NumpyCodec.encode_output(self._model.output, self._model.run(inputs))
        return InferenceResponse(model_name=self.name, outputs=[output])
