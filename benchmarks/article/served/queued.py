"""Set-up (c): a Flask application whose requests wait in a queue for a thread that calls the model in batches.

Rules:
- A batch starts when 20 rows wait, or when the oldest one has waited 500 ms.
- The thread sleeps until one of the two is true. Looking every few milliseconds would be the simpler code, and slower.
"""

import sys
import threading
import time
from collections import deque
from concurrent.futures import Future

import numpy as np
from flask import Flask, request
from predict import load, rows_of

MOST_ROWS = 20
WAIT_S = 0.5


class Batches:
    """Rows of many requests, predicted together by one thread."""

    def __init__(self, model):
        self._model = model
        self._waiting = deque()
        self._changed = threading.Condition()
        threading.Thread(target=self._run, daemon=True).start()

    def predict(self, row):
        """Wait for the prediction of one row."""
        answer = Future()
        with self._changed:
            self._waiting.append((time.monotonic() + WAIT_S, row, answer))
            self._changed.notify()
        return answer.result(timeout=60)

    def _run(self):
        while True:
            batch = self._next()
            try:
                outputs = self._model(np.stack([row for _, row, _ in batch]))
            except Exception as error:
                for _, _, answer in batch:
                    answer.set_exception(error)
                continue
            for (_, _, answer), output in zip(batch, outputs, strict=True):
                answer.set_result(output)

    def _next(self):
        with self._changed:
            self._changed.wait_for(lambda: self._waiting)
            oldest_s = self._waiting[0][0]
            self._changed.wait_for(lambda: len(self._waiting) >= MOST_ROWS, oldest_s - time.monotonic())
            return [self._waiting.popleft() for _ in range(min(len(self._waiting), MOST_ROWS))]


app = Flask(__name__)
batches = Batches(load())


@app.post("/v1/models/service:predict")
def predict():
    return {"predictions": [batches.predict(row).tolist() for row in rows_of(request.get_json())]}


@app.get("/healthz")
def health():
    return {}


print("loaded", file=sys.stderr, flush=True)
