"""Set-ups (a) and (b): a Flask application that calls the model for each request."""

import sys

from flask import Flask, request
from predict import load, rows_of

app = Flask(__name__)
model = load()


@app.post("/v1/models/service:predict")
def predict():
    return {"predictions": model(rows_of(request.get_json())).tolist()}


@app.get("/healthz")
def health():
    return {}


print("loaded", file=sys.stderr, flush=True)
