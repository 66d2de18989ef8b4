"""What does a user do? Ask for one prediction, think for one to three seconds, ask again.

Rules:
- `ARTICLE_OUT` names the file for what Locust measured: a line for each request, and one when all users are there.
- `ARTICLE_SEED` seeds what users think and send, so that every set-up meets the same users.
"""

from __future__ import annotations

import json
import os
import random
from itertools import count
from pathlib import Path

from locust import HttpUser, events, task

from benchmarks.article.request import PATH, WIDTH

_OUT = Path(os.environ["ARTICLE_OUT"]).open("w", buffering=1)  # noqa: SIM115 - until the process ends
_SEED = os.environ["ARTICLE_SEED"]
_numbers = count()


class Visitor(HttpUser):
    """Somebody at a self-checkout, as in the article."""

    def on_start(self) -> None:
        self._random = random.Random(f"{_SEED}/{next(_numbers)}")

    def wait_time(self) -> float:
        return self._random.uniform(1, 3)

    @task
    def predict(self) -> None:
        row = [round(self._random.random(), 6) for _ in range(WIDTH)]
        with self.client.post(PATH, json={"instances": [row]}, catch_response=True) as response:
            if response.ok and len(response.json()["predictions"]) != 1:
                response.failure("expected one prediction")


@events.request.add_listener
def _write(response_time: float, exception: Exception | None, start_time: float, **_: object) -> None:
    failure = None if exception is None else f"{type(exception).__name__}: {exception}"
    print(json.dumps({"at": start_time, "s": response_time / 1e3, "failure": failure}), file=_OUT)


@events.spawning_complete.add_listener
def _all_are_there(**_: object) -> None:
    print(json.dumps({"spawned": True}), file=_OUT)
