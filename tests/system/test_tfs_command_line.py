"""TensorFlow Serving's command line and file of batching parameters, unchanged, against a real server."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from threading import Barrier

import pytest

from paceline.testing import run_server
from support.models import half_plus_two
from support.pbtxt import ARTICLE, write
from support.repositories import wait

pytestmark = pytest.mark.slow


@dataclass
class Answer:
    """What came back, and what the headers say of it."""

    body: dict
    batch_size: int
    queue_ms: float


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago, all different."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def predict(port: int, x: float, model: str = "m") -> Answer:
    url = f"http://127.0.0.1:{port}/v1/models/{model}:predict"
    request = urllib.request.Request(url, json.dumps({"instances": [x]}).encode())
    with urllib.request.urlopen(request, timeout=20) as response:
        queue = re.search(r"queue;dur=([0-9.]+)", response.headers["server-timing"])
        assert queue is not None
        return Answer(json.load(response), int(response.headers["x-batch-size"]), float(queue[1]))


def put_model(root: Path, name: str, version: int = 1) -> Path:
    folder = root / name / str(version)
    folder.mkdir(parents=True)
    half_plus_two(folder / "model.onnx")
    return root / name


def refused(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "paceline", "serve", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30)


def test_the_article_s_line_and_file_work_unchanged(tmp_path: Path) -> None:
    base_path = put_model(tmp_path, "m")
    write(tmp_path / "batching.cfg", ARTICLE)
    rest, grpc = free_ports(2)
    flags = ["--model_name=m", f"--model_base_path={base_path}", f"--rest_api_port={rest}", f"--port={grpc}"]
    flags += ["--enable_batching", "--batching_parameters_file=batching.cfg"]
    with run_server(None, flags, cwd=tmp_path) as server:
        assert server.port == rest
        for port in (rest, grpc):
            alone = predict(port, 2.0)
            assert alone.body == {"predictions": [3.0]}
            assert alone.batch_size == 1
            assert 500.0 <= alone.queue_ms < 10_000
        with ThreadPoolExecutor(20) as clients:
            together = Barrier(20)

            def one(index: int) -> Answer:
                together.wait(10)
                return predict(rest if index % 2 else grpc, float(index))

            answers = list(clients.map(one, range(20)))
        assert [answer.body["predictions"][0] for answer in answers] == [index / 2 + 2 for index in range(20)]
        assert {answer.batch_size for answer in answers} == {20}
        # The batch was full before its time was up.
        assert max(answer.queue_ms for answer in answers) < 500.0
        said = server.output
    assert "batching.cfg: batch_timeout_micros: a request waits up to 500 ms for others" in said
    assert "up to 20 rows within 500 ms" in said
    assert "(grpc_port: flag --port)" in said


def test_a_file_of_models(tmp_path: Path) -> None:
    put_model(tmp_path, "a")
    for version in (1, 2, 3):
        put_model(tmp_path / "elsewhere", "b", version)
    write(
        tmp_path / "models.cfg",
        f"model_config_list {{ config {{ name: 'first' base_path: '{tmp_path}/a' model_platform: 'tensorflow' }}\n"
        f"config {{ name: 'second' base_path: '{tmp_path}/elsewhere/b'\n"
        "model_version_policy { specific { versions: [1, 3] } } version_labels { key: 'stable' value: 1 } } }",
    )
    (port,) = free_ports(1)
    with run_server(None, [f"--model_config_file={tmp_path}/models.cfg", f"--rest_api_port={port}"]) as server:
        wait(lambda: "3 of 3 versions ready" in server.output)
        assert predict(port, 2.0, "first").body == {"predictions": [3.0]}
        for path in ("second", "second/versions/1", "second/versions/3", "second/labels/stable"):
            assert predict(port, 4.0, path).body == {"predictions": [4.0]}
        with pytest.raises(urllib.error.HTTPError) as caught:
            predict(port, 1.0, "second/versions/2")
        caught.value.close()
        assert caught.value.code == 404
        assert server.terminate() == 0


def test_a_file_beside_the_model_is_kept_to(tmp_path: Path) -> None:
    put_model(tmp_path, "m")
    write(
        tmp_path / "m" / "config.pbtxt",
        "backend: 'onnxruntime' max_batch_size: 3 dynamic_batching { max_queue_delay_microseconds: 200000 }",
    )
    with run_server(tmp_path) as server:
        wait(lambda: "up to 3 rows within 200 ms" in server.output)
        with urllib.request.urlopen(f"{server.url}/v2/models/m/config", timeout=20) as response:
            config = json.load(response)
        assert config["max_batch_size"] == 3
        assert config["dynamic_batching"]["max_queue_delay_microseconds"] == 200000
        assert 200.0 <= predict(server.port, 2.0).queue_ms < 10_000


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--model_name=m", "--model_base_pat=x"], 3, "hint: did you mean --model_base_path"),
        (["--model_name=m"], 3, "error: --model_base_path: must be given"),
        (["m.onnx", "--model_base_path=x"], 2, "MODEL 'm.onnx' and TensorFlow Serving's flags"),
        (["m.onnx", "--max_batch_size=4"], 2, "Did you mean '--max-batch-size'"),
        ([], 2, "Missing argument 'MODEL'"),
    ],
)
def test_fault_004_a_wrong_line_ends_at_once_and_says_why(arguments: list[str], code: int, said: str) -> None:
    result = refused(*arguments)
    assert (result.returncode, result.stdout) == (code, "")
    assert said in result.stderr
