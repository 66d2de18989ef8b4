"""A scoring script of an Azure ML online endpoint, unchanged.

paceline serve examples/azure_score/score.py
curl http://127.0.0.1:8080/score -d '{"data": [{"rooms": 3, "area": 80}]}'
"""

import json
import os


def init():
    """Once in each worker, before the server is ready."""
    global model
    with open(os.path.join(os.environ["AZUREML_MODEL_DIR"], "model.json")) as file:
        model = json.load(file)


def run(data):
    """For each request: the body as a string in, what JSON can carry out."""
    rows = json.loads(data)["data"]
    return [model["base"] + sum(model["weights"][name] * value for name, value in row.items()) for row in rows]


def example():
    """For the warm-up and the page /docs; Azure does not look at it."""
    return {"data": [{"rooms": 3, "area": 80}]}
