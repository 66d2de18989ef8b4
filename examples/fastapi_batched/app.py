"""A FastAPI application whose requests share calls of the model.

pip install fastapi uvicorn scikit-learn
uvicorn app:app
"""

import dataclasses

from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier

import paceline

app = FastAPI()
model = RandomForestClassifier(100, random_state=0).fit(*load_iris(return_X_y=True))


@paceline.batched(max_batch_size=64)
def classify(flowers: list[list[float]]) -> list[int]:
    return model.predict(flowers).tolist()


@app.post("/predict")
async def predict(flower: list[float]) -> int:
    return await classify.aio(flower)


@app.get("/statistics")
def statistics() -> dict[str, int]:
    return dataclasses.asdict(classify.statistics())


@app.exception_handler(paceline.Overloaded)
def overloaded(_: Request, error: paceline.Overloaded) -> PlainTextResponse:
    return PlainTextResponse(str(error), 503, {"Retry-After": str(max(1, round(error.retry_after_s)))})
