"""The model on Flask: an item of JSON in, its answer out."""

from flask import Flask, jsonify, request
from predictor import load

app = Flask(__name__)
_model = load()


@app.post("/predict")
def predict():
    return jsonify(_model.predict([request.get_json()])[0])
