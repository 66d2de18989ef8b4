"""A Flask application whose threads share calls of the model.

pip install flask gunicorn scikit-learn
gunicorn --threads 32 app:app
"""

import dataclasses

from flask import Flask, jsonify, request
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier

import paceline

app = Flask(__name__)
model = RandomForestClassifier(100, random_state=0).fit(*load_iris(return_X_y=True))


@paceline.batched(max_batch_size=64)
def classify(flowers: list[list[float]]) -> list[int]:
    return model.predict(flowers).tolist()


@app.post("/predict")
def predict():
    return jsonify(classify(request.get_json()))


@app.get("/statistics")
def statistics():
    return jsonify(dataclasses.asdict(classify.statistics()))


@app.errorhandler(paceline.Overloaded)
def overloaded(error):
    return str(error), 503, {"Retry-After": str(max(1, round(error.retry_after_s)))}
