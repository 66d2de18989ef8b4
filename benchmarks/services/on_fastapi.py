"""The model on FastAPI: the body and the answer are typed, so that Pydantic reads and writes the JSON.

$ITEM is the type of an item. With $SHORT=1 the endpoint is a coroutine: a model of microseconds is not worth a thread.
"""

import os
from typing import Annotated, Any

from fastapi import Body, FastAPI
from predictor import load

_TYPES: dict[str, Any] = {
    "row": list[float],
    "image": list[list[list[float]]],
    "tokens": dict[str, list[int]],
}
_item = _TYPES[os.environ["ITEM"]]
Item = Annotated[_item, Body()]
Answer = list[float] | int

app = FastAPI()
_model = load()


if os.environ["SHORT"] == "1":

    @app.post("/predict")
    async def predict(item: Item) -> Answer:
        return _model.predict([item])[0]

else:

    @app.post("/predict")
    def predict(item: Item) -> Answer:
        return _model.predict([item])[0]
