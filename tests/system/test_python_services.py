"""Python services behind a real server: recognised, batched, fetched at once, and failing one by one."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pytest

from paceline.config.machine import usable_cores
from paceline.testing import run_server
from support.served import Served
from support.wire import ask, get, metric, post, until

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[2] / "examples"


@contextmanager
def serving(path: Path, code: str | None = None, *flags: str, name: str = "") -> Iterator[Served]:
    """Serve a file, which is written first where there is code."""
    if code is not None:
        path.write_text(dedent(code))
    with run_server(f"{path}{name}", ["--warmup-s", "0.05", *flags]) as server:
        yield Served(path.stem, path, server)


def rows(answer: Any) -> list[Any]:
    assert answer.status == 200, answer.text
    found: list[Any] = answer.json
    return found


def test_the_example_of_a_function():
    with serving(EXAMPLES / "python_function" / "readability.py") as served:
        assert served.post("/predict", '"The cat sat on the mat."').json == {"ease": 116.1, "words": 6}
        plain, number = rows(served.post("/batch-predict", ["Go.", 7]))
        assert plain["words"] == 1
        assert number["error"] == "the item: Expected `str`, got `int`"
        assert "code          function predict: predict in batches, example" in served.server.output


def test_the_example_of_a_class():
    with serving(EXAMPLES / "python_class" / "discount.py") as served:
        assert served.post("/predict", {"customer": 17}).json == {"discount": 0.2}
        known, wrong, unknown = rows(served.post("/batch-predict", [{"customer": 39}, {}, {"customer": -1}]))
        assert (known, unknown) == ({"discount": 0.16}, {"discount": 0.0})
        assert wrong["error"] == "customer: expected a number"
        said = "class Discount: setup, validate, fetch, clean, predict in batches, format, example, health"
        assert said in served.server.output


def test_what_was_recognised_is_in_the_json_document(tmp_path: Path):
    (tmp_path / "service.py").write_text("class Two:\n    def predict(self, batch): return batch\n")
    with run_server(f"{tmp_path / 'service.py'}:Two", ["--json"]) as server:
        document = next(json.loads(line) for line in server.output.splitlines() if line.startswith("{"))
        assert document["code"] == ["class Two: predict in batches"]
        assert document["platform"] == "python"


FETCH = """
import asyncio, time

class Slow:
    {fetch}
    def predict(self, batch): return [2 * each for each in batch]
    def example(self): return 1
"""


@pytest.mark.parametrize(
    "fetch",
    [
        "async def fetch(self, item):\n        await asyncio.sleep(0.05)\n        return item",
        "def fetch(self, item):\n        time.sleep(0.05)\n        return item",
    ],
    ids=["async", "sync"],
)
def test_64_items_are_fetched_in_the_time_of_a_few(tmp_path: Path, fetch: str):
    with serving(tmp_path / "service.py", FETCH.format(fetch=fetch)) as served:
        seconds = []
        for first in range(1000, 1500, 100):
            items = list(range(first, first + 64))
            began = time.monotonic()
            assert rows(served.post("/batch-predict", items)) == [2 * each for each in items]
            seconds.append(time.monotonic() - began)
        # One after the other would take 3.2 s.
        assert min(seconds) < 0.3, seconds


def test_requests_of_many_clients_are_fetched_at_once_and_predicted_together(tmp_path: Path):
    code = """
    import asyncio
    class Service:
        def setup(self): self.largest = 0
        async def fetch(self, item):
            await asyncio.sleep(0.05)
            return item
        def predict(self, batch):
            self.largest = max(self.largest, len(batch))
            return [self.largest for _ in batch]
    """
    with serving(tmp_path / "service.py", code, "--instances", "1") as served, ThreadPoolExecutor(32) as clients:
        began = time.monotonic()
        answers = list(clients.map(lambda number: served.post("/predict", number).json, range(96)))
        assert time.monotonic() - began < 96 * 0.05 / 2
        assert max(answers) > 1


def test_fault_56_an_item_that_makes_predict_raise_fails_alone(tmp_path: Path):
    code = """
    def predict(batch):
        return [100 // each for each in batch]
    def example():
        return 1
    """
    with serving(tmp_path / "service.py", code) as served:
        answers = rows(served.post("/batch-predict", [1, 0, *range(2, 32)]))
        assert [index for index, each in enumerate(answers) if isinstance(each, dict)] == [1]
        assert answers[1]["code"] == "model_failed"
        assert answers[31] == 100 // 31


def test_the_words_of_an_exception_are_for_the_log_and_for_debugging(tmp_path: Path):
    code = """
    def predict(batch):
        raise ValueError("password: hunter2")
    """
    for flags, shown in (((), False), (("--debug",), True)):
        with serving(tmp_path / "service.py", code, *flags) as served:
            answer = served.post("/predict", 1)
            assert answer.status == 500
            assert answer.error.startswith("the code raised ValueError")
            assert ("hunter2" in answer.text) is shown
            assert 'raise ValueError("password: hunter2")' in served.server.output
            assert "workers/python" not in served.server.output


@pytest.mark.parametrize(("policy", "written"), [("error", None), ("null", [1.5, None]), ("string", [1.5, "NaN"])])
def test_fault_54_nan_in_a_prediction_follows_the_setting(tmp_path: Path, policy: str, written: Any):
    code = "def predict(batch):\n    return [[each, float('nan')] for each in batch]\n"
    with serving(tmp_path / "service.py", code, "--nonfinite", policy) as served:
        answer = served.post("/predict", 1.5)
        if written is None:
            assert (answer.status, answer.json["code"]) == (500, "nonfinite_output")
        else:
            assert answer.json == written


def test_a_tensor_service_speaks_every_protocol_of_tensors(tmp_path: Path):
    code = """
    import numpy as np
    class Double:
        inputs = {"x": ("FP32", [-1, 3])}
        def predict(self, x): return {"y": 2 * x}
        def example(self): return np.array([1, 2, 3], np.float32)
    """
    with serving(tmp_path / "service.py", code) as served:
        assert served.get("/example").json == [1.0, 2.0, 3.0]
        assert served.post("/predict", [1, 2, 3]).json == [2.0, 4.0, 6.0]
        body = {"inputs": [{"name": "x", "shape": [2, 3], "datatype": "FP32", "data": [1, 2, 3, 4, 5, 6]}]}
        (output,) = served.post("/v2/models/service/infer", body).json["outputs"]
        assert (output["name"], output["datatype"], output["shape"]) == ("y", "FP32", [2, 3])
        np.testing.assert_array_equal(output["data"], [2, 4, 6, 8, 10, 12])
        answer = served.post("/v1/models/service:predict", {"instances": [[1, 2, 3]]})
        assert answer.json == {"predictions": [[2.0, 4.0, 6.0]]}


def test_a_tensor_service_known_by_its_example_alone(tmp_path: Path):
    code = """
    import numpy as np
    def predict(image: np.ndarray): return image.sum(axis=1)
    def example(): return np.ones(4)
    """
    with serving(tmp_path / "service.py", code) as served:
        assert served.get("/v2/models/service").json["inputs"] == [
            {"name": "image", "datatype": "FP64", "shape": [-1, 4]}
        ]
        assert rows(served.post("/batch-predict", [[1, 2, 3, 4], [0, 0, 0, 1]])) == [10.0, 1.0]
        assert served.post("/predict", [1]).status == 400


def test_fault_93_a_service_that_raises_anything_goes_on(tmp_path: Path):
    code = """
    import sys
    RAISES = {"exit": SystemExit(0), "interrupt": KeyboardInterrupt(), "memory": MemoryError()}
    def predict(batch):
        for each in batch:
            if each in RAISES:
                raise RAISES[each]
        return batch
    """
    with serving(tmp_path / "service.py", code) as served:
        for word in ("exit", "interrupt", "memory"):
            assert served.post("/predict", json.dumps(word)).status == 500
            assert served.post("/predict", json.dumps(f"not {word}")).json == f"not {word}"
        assert "exited" not in served.server.output


@pytest.mark.parametrize("kind", ["async ", ""])
def test_fault_92_a_fetch_that_hangs_does_not_take_the_service_with_it(tmp_path: Path, kind: str):
    wait = "while True: await asyncio.sleep(60)" if kind else "while True: time.sleep(60)"
    code = f"""
    import asyncio, time
    class Service:
        {kind}def fetch(self, item):
            if item == "hang":
                {wait}
            return item
        def predict(self, batch): return batch
    """
    flags = ("--timeout-ms", "500", "--run-timeout-ms", "1000", "--fetch-concurrency", "2", "--instances", "1")
    with serving(tmp_path / "service.py", code, *flags) as served, ThreadPoolExecutor(4) as clients:
        hanging = list(clients.map(lambda _: served.post("/predict", '"hang"').status, range(4)))
        assert set(hanging) <= {503, 504}
        until(lambda: served.post("/predict", '"well"').status == 200)


def test_an_example_that_the_code_fails_on_is_named(tmp_path: Path):
    code = """
    def predict(item: dict): return item["y"]
    def example(): return {"x": 1}
    """
    with serving(tmp_path / "service.py", code) as served:
        assert "example 0 fails, and what was measured is of no use: predict raised KeyError" in served.server.output


@pytest.mark.slow
@pytest.mark.parametrize("flags", [(), ("--no-deduplicate",)], ids=["shared", "not shared"])
def test_fault_55_a_wrong_count_is_no_answer_to_a_part_of_the_batch_that_it_happens_to_fit(tmp_path, flags):
    path = tmp_path / "service.py"
    path.write_text("def predict(batch):\n    return [1, 2] if len(batch) > 1 or batch[0] else [0]\n")
    with run_server(path, ["--instances", "1", *flags]) as server:
        answer = ask(server, post(b"[1,5,0,9]", target="/batch-predict"))
        assert answer.status == 200
        outcomes = json.loads(answer.body)
        assert outcomes[2] == 0
        assert [each["code"] for each in outcomes if each != 0] == ["bad_model_output"] * 3


@pytest.mark.slow
def test_setup_beside_a_function_is_said_not_to_be_called(tmp_path):
    path = tmp_path / "service.py"
    path.write_text("def setup():\n    raise SystemExit\n\ndef predict(batch):\n    return batch\n")
    with run_server(path, ["--instances", "1"]) as server:
        until(lambda: "setup() beside a function: not called; make it a class" in server.output)
        assert ask(server, post(b"3")).body == b"3"


@pytest.mark.slow
def test_what_setup_raises_is_told_to_the_operator_whole_and_to_clients_in_a_line(tmp_path):
    path = tmp_path / "service.py"
    path.write_text(
        "class S:\n    def setup(self):\n        open('nowhere')\n    def predict(self, batch):\n        return batch\n"
    )
    with run_server(path, ["--instances", "1"], ready=False) as server:
        until(lambda: "is not ready" in server.output)
        assert f'File "{path}", line 3' in server.output
        assert "the server stays up" in server.output
        told = ask(server, post(b"3"))
        assert told.status == 503
        assert b"FileNotFoundError" in told.body
        assert b"Traceback" not in told.body
        assert b"Traceback" not in ask(server, get("/readyz?verbose")).body


# -- how many workers -----------------------------------------------------------------------------------------

SLEEPS = """
import fcntl, time
from pathlib import Path
def example():
    return 1
def predict(batch):
    with open(Path(__file__).with_name("device"), "w") as device:
        if {exclusive}:
            fcntl.flock(device, fcntl.LOCK_EX)
        time.sleep(0.1)
    return batch
"""


@pytest.mark.skipif(usable_cores().whole < 2, reason="one core: there is one worker in any case")
@pytest.mark.parametrize("exclusive", [True, False])
def test_workers_that_only_wait_for_one_another_are_not_kept(tmp_path: Path, exclusive: bool):
    (tmp_path / "service.py").write_text(SLEEPS.format(exclusive=exclusive))
    with run_server(tmp_path / "service.py") as server:
        assert metric(server, "paceline_instances") == (1 if exclusive else usable_cores().whole)
        assert ("run at once; they wait" in server.output) == exclusive
        assert ask(server, post(b"7")).body == b"7"
    with run_server(tmp_path / "service.py", ["--instances", "2"]) as server:
        assert metric(server, "paceline_instances") == 2, "what the operator says stands"
