"""A random forest in FastAPI, three ways: a blocking endpoint, an async one, and `paceline.batched`."""

from typing import Annotated

from fastapi import Body, FastAPI
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier

import paceline

Row = Annotated[list[float], Body()]

app = FastAPI()
_model = RandomForestClassifier(10, random_state=0).fit(*load_digits(return_X_y=True))


@paceline.batched(max_batch_size=64)
def _classify(rows: list[list[float]]) -> list[int]:
    return _model.predict(rows).tolist()


@app.post("/threads")
def threads(row: Row) -> int:
    return int(_model.predict([row])[0])


@app.post("/async")
async def blocking(row: Row) -> int:
    return int(_model.predict([row])[0])


@app.post("/batched")
async def batched(row: Row) -> int:
    return await _classify.aio(row)
