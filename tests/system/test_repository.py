"""A server and its repository, from outside: starts that fail, swaps under load, versions, labels, loads by request."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from paceline.testing import RunningServer, run_server
from support import models
from support.repositories import put, replace_file, times, wait
from support.wire import Wire, ask, get, metric, post

FAST = ["--repository-poll-s", "0.05", "--warmup-s", "0.05"]
pytestmark = pytest.mark.slow


def value(server: RunningServer, target: str) -> float | int:
    """What a version makes of 1, by plain JSON or TensorFlow Serving's; the status when it refuses."""
    body = b'{"instances": [[1]]}' if ":" in target else b"[1]"
    answer = ask(server, post(body, target=target))
    if answer.status != 200:
        return answer.status
    document = json.loads(answer.body)
    return document["predictions"][0][0] if ":" in target else document[0]


def refuse_to_start(*arguments: str | Path) -> tuple[int, str]:
    command = [sys.executable, "-m", "paceline", "serve", *map(str, arguments), "--port", "0"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert "Traceback" not in result.stderr
    return result.returncode, result.stderr


class Load:
    """Clients that ask as fast as they are answered, until told to stop; what they got."""

    def __init__(self, server: RunningServer, target: str, clients: int = 8) -> None:
        self.answers: Counter[object] = Counter()
        self._server = server
        self._request = post(b"[1]", target=target)
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(20)

    def _ask(self) -> None:
        with Wire(self._server) as wire:
            while not self._stop.is_set():
                try:
                    answer = wire.send(self._request).response()
                except Exception as error:
                    self.answers[repr(error)] += 1
                    return
                self.answers[json.loads(answer.body)[0] if answer.status == 200 else answer.body] += 1


# -- the start ------------------------------------------------------------------------------------------------


def test_several_models_and_what_is_said_of_them(tmp_path):
    put(tmp_path, "a", 1), put(tmp_path, "b", 2)
    with run_server(tmp_path, FAST) as server:
        assert [value(server, "/models/a/predict"), value(server, "/models/b/predict")] == [1, 2]
        unnamed = ask(server, post(b"[0]"))
        assert unnamed.status == 400
        assert "several models are served, and the request names none of them: a, b" in unnamed.body.decode()
        assert "warming up 2 models" in server.output
        assert "2 of 2 versions ready after " in server.output
        listed = json.loads(ask(server, get("/v1/models")).body)
        assert listed["models"] == ["a", "b"]
        assert "/models/b/predict" in json.loads(ask(server, get("/openapi.json")).body)["paths"]


def test_the_folder_of_one_model(tmp_path):
    put(tmp_path, "half", 3)
    with run_server(tmp_path / "half", FAST) as server:
        assert value(server, "/v1/models/half/versions/3:predict") == 3
    with run_server(tmp_path / "half", [*FAST, "--name", "other"]) as server:
        assert value(server, "/v1/models/other:predict") == 3


def test_the_document_of_a_repository(tmp_path):
    put(tmp_path, "a", 1), put(tmp_path, "b", 1, build=lambda path: path.write_bytes(b"no model"))
    with run_server(tmp_path, [*FAST, "--json"], ready=False) as server:
        wait(lambda: '{"url"' in server.output)
        line = next(line for line in server.output.splitlines() if line.startswith('{"url"'))
        document = json.loads(line)
    assert [(each["model"], each["version"]) for each in document["models"]] == [("a", "1")]
    assert document["models"][0]["settings"]["instances"]["value"] >= 1
    assert [each["model"] for each in document["failed"]] == ["b"]


def test_one_bad_model_of_several_is_named_and_the_others_serve(tmp_path):
    put(tmp_path, "a", 1)
    bad = put(tmp_path, "b", 1, build=lambda path: path.write_bytes(b"no model"))
    with run_server(tmp_path, FAST, ready=False) as server:
        wait(lambda: "ready after" in server.output)
        assert value(server, "/models/a/predict") == 1
        answer = ask(server, get("/readyz"))
        assert answer.status == 503
        assert answer.body.startswith(b"b 1: ")
        assert value(server, "/models/b/predict") == 503
        assert "'b' version 1 is not loaded: " in server.output
        for page in ("/openapi.json", "/docs", "/metrics", "/readyz?verbose", "/v1/models/b", "/v2/models/stats"):
            assert ask(server, get(page)).status in (200, 503), page
        for page in ("/v1/models/b/metadata", "/v2/models/b", "/v2/models/b/config", "/v2/models/b/ready"):
            assert ask(server, get(page)).status == 503, page
        replace_file(bad / "model.onnx", times(tmp_path / ".good.onnx", 4).read_bytes())
        server.wait_ready()
        assert value(server, "/models/b/predict") == 4


def test_repositories_that_cannot_be_served(tmp_path):
    assert refuse_to_start(tmp_path) == (
        4,
        f"error: {tmp_path}: no model in this folder\nhint: expected NAME/VERSION/model.onnx\n",
    )
    models.identity(tmp_path / "lone.onnx")
    assert refuse_to_start(tmp_path)[1].endswith(f"hint: did you mean {tmp_path}/lone.onnx?\n")
    (tmp_path / "lone.onnx").unlink()
    assert refuse_to_start(tmp_path / "none")[0] == 4
    file = models.mlp(tmp_path / "single.onnx")
    code, said = refuse_to_start(file, "--model-control-mode", "explicit")
    assert code == 3
    assert said == f"error: model_control_mode (flag --model-control-mode): {file} is a model file, not a repository\n"
    put(tmp_path, "a", 1, build=lambda path: path.write_bytes(b"no model"))
    code, said = refuse_to_start(tmp_path)
    assert code == 4
    assert "a/1/model.onnx: cannot be loaded" in said.splitlines()[-1]
    code, said = refuse_to_start(tmp_path, "--model-control-mode", "explicit", "--load-model", "b")
    assert (code, said.splitlines()[0]) == (4, f"error: load_model: no model 'b' in {tmp_path}")


# -- swaps ----------------------------------------------------------------------------------------------------


def test_fault_085_versions_are_swapped_under_load_without_a_loss(tmp_path):
    put(tmp_path, "a", 1)
    with run_server(tmp_path, FAST) as server, Load(server, "/models/a/predict") as load:
        for version in range(2, 6):
            put(tmp_path, "a", version)
            wait(lambda version=version: load.answers[version] > 50)
        put(tmp_path, "a", 6, build=models.never_warm)
        wait(lambda: "'a' version 6 is not loaded" in server.output)
        seen = load.answers[5]
        wait(lambda: load.answers[5] > seen + 50)
        assert "version 6 is not loaded: warm-up failed" in server.output
        assert "; version 5 serves on" in server.output
    assert set(load.answers) == {1, 2, 3, 4, 5}


def test_fault_085_files_are_swapped_under_load_and_the_counters_go_on(tmp_path):
    file = put(tmp_path, "a", 1) / "model.onnx"
    with run_server(tmp_path, FAST) as server, Load(server, "/models/a/predict") as load:
        for factor in range(2, 5):
            replace_file(file, times(tmp_path / ".next.onnx", factor).read_bytes())
            wait(lambda factor=factor: load.answers[factor] > 50)
        counted = metric(server, "paceline_requests_total", model="a", version="1", outcome="ok")
        assert counted >= sum(load.answers.values()) - 8
        assert metric(server, "paceline_model_loads_total", model="a", outcome="ok") == 4
    assert set(load.answers) == {1, 2, 3, 4}


def test_a_model_folder_that_goes(tmp_path):
    put(tmp_path, "a", 1), put(tmp_path, "b", 1)
    with run_server(tmp_path, FAST) as server:
        shutil.rmtree(tmp_path / "b")
        wait(lambda: value(server, "/models/b/predict") == 404)
        assert "'b' version 1 is unloaded" in server.output
        assert ask(server, get("/readyz")).status == 200
        assert value(server, "/models/a/predict") == 1


def test_the_memory_of_unloaded_models_is_returned(tmp_path):
    """Ten swaps of a model of 32 MiB take no more memory than two of them."""
    wide = tmp_path / "wide.onnx"
    models.mlp(wide, (2048, 2048, 2048, 10))
    root = tmp_path / "models"
    put(root, "a", 1, build=lambda path: shutil.copy(wide, path))
    with run_server(root, FAST) as server:
        first = metric(server, "process_resident_memory_bytes")
        for version in range(2, 12):
            put(root, "a", version, build=lambda path: shutil.copy(wide, path))
            wait(lambda version=version: f"version {version - 1} is unloaded" in server.output)
            shutil.rmtree(root / "a" / str(version - 1))
        wait(lambda: metric(server, "process_resident_memory_bytes") < first + (40 << 20))


# -- versions and labels --------------------------------------------------------------------------------------


def test_versions_and_labels_of_tensorflow_serving(tmp_path):
    put(tmp_path, "a", 1), put(tmp_path, "a", 2), put(tmp_path, "a", 3, build=lambda p: p.write_bytes(b"no model"))
    flags = [*FAST, "--version-policy", "all", "--labels", "stable=1,canary=2,next=3"]
    with run_server(tmp_path, flags, ready=False) as server:
        wait(lambda: "ready after" in server.output)
        assert value(server, "/v1/models/a:predict") == 2
        assert value(server, "/v1/models/a/versions/1:predict") == 1
        assert value(server, "/v1/models/a/labels/stable:predict") == 1
        assert value(server, "/v1/models/a/labels/canary:predict") == 2
        assert value(server, "/v1/models/a/labels/next:predict") == 400
        assert value(server, "/v1/models/a/labels/none:predict") == 400
        assert value(server, "/v1/models/a/versions/4:predict") == 404
        status = json.loads(ask(server, get("/v1/models/a")).body)["model_version_status"]
        assert [(each["version"], each["state"]) for each in status] == [
            ("3", "END"),
            ("2", "AVAILABLE"),
            ("1", "AVAILABLE"),
        ]
        assert status[0]["status"]["error_code"] == "INTERNAL"
        assert "cannot be loaded" in status[0]["status"]["error_message"]
        (only,) = json.loads(ask(server, get("/v1/models/a/labels/canary")).body)["model_version_status"]
        assert only["version"] == "2"
        described = json.loads(ask(server, get("/v2/models/a")).body)
        assert described["versions"] == ["1", "2"]


# -- by request -----------------------------------------------------------------------------------------------


@contextmanager
def explicit(root: Path, *flags: str) -> Iterator[tuple[RunningServer, triton.InferenceServerClient]]:
    with run_server(root, [*FAST, "--model-control-mode", "explicit", *flags]) as server:
        client = triton.InferenceServerClient(f"{server.host}:{server.port}")
        try:
            yield server, client
        finally:
            client.close()


def infer(client: triton.InferenceServerClient, name: str, version: str = "") -> float:
    tensor = triton.InferInput("x", [1, 1], "FP32")
    tensor.set_data_from_numpy(np.ones((1, 1), np.float32))
    return float(client.infer(name, [tensor], model_version=version).as_numpy("y")[0, 0])


def test_tritons_client_loads_and_unloads(tmp_path):
    put(tmp_path, "a", 1), put(tmp_path, "b", 1)
    with explicit(tmp_path) as (_, client):
        assert client.is_server_ready()
        assert "model_repository" in client.get_server_metadata()["extensions"]
        assert client.get_model_repository_index() == [{"name": "a"}, {"name": "b"}]
        client.load_model("a")
        assert client.is_model_ready("a")
        assert infer(client, "a") == 1
        rows = {row["name"]: row for row in client.get_model_repository_index()}
        assert rows["a"] == {"name": "a", "version": "1", "state": "READY", "reason": ""}
        put(tmp_path, "a", 2)
        client.load_model("a")
        assert infer(client, "a", "2") == 2
        client.unload_model("a")
        wait(
            lambda: (
                {"name": "a", "version": "2", "state": "UNAVAILABLE", "reason": "unloaded"}
                in client.get_model_repository_index()
            )
        )
        assert not client.is_model_ready("a")
        with pytest.raises(InferenceServerException, match="Request for unknown model: 'a' is not found"):
            infer(client, "a")


def test_loads_that_fail_say_why(tmp_path):
    put(tmp_path, "a", 1), put(tmp_path, "bad", 1, build=lambda path: path.write_bytes(b"no model"))
    with explicit(tmp_path, "--load-model", "a") as (server, client):
        with pytest.raises(InferenceServerException, match="failed to load 'none', failed to poll from model repos"):
            client.load_model("none")
        with pytest.raises(InferenceServerException, match=r"failed to load 'bad', .*cannot be loaded"):
            client.load_model("bad")
        with pytest.raises(InferenceServerException, match="load parameter 'config' is not supported"):
            client.load_model("a", config="{}")
        with pytest.raises(InferenceServerException, match="is not supported: models come from the repository alone"):
            client.load_model("a", config="{}", files={"file:1/model.onnx": b"x"})
        with pytest.raises(InferenceServerException, match="Request for unknown model: 'none' is not found"):
            client.unload_model("none")
        rows = {row["name"]: row["state"] for row in client.get_model_repository_index()}
        assert rows == {"a": "READY", "bad": "UNAVAILABLE"}
        ready = ask(server, post(b'{"ready": true}', target="/v2/repository/index"))
        assert [row["name"] for row in json.loads(ready.body)] == ["a"]
        assert ask(server, post(b'{"ready": 1', target="/v2/repository/index")).status == 400
        assert infer(client, "a") == 1


def test_nothing_is_loaded_by_request_while_the_folder_is_watched(tmp_path):
    put(tmp_path, "a", 1)
    with run_server(tmp_path, FAST) as server:
        for action in ("load", "unload"):
            refusal = ask(server, post(b"{}", target=f"/v2/repository/models/a/{action}"))
            assert refusal.status == 503
            assert b"explicit model load / unload is not allowed if polling is enabled" in refusal.body
        assert b"model_repository" not in ask(server, get("/v2")).body
        assert json.loads(ask(server, post(b"", target="/v2/repository/index")).body)[0]["state"] == "READY"


# -- code in place of a model file ---------------------------------------------------------------------------------


def put_code(root: Path, version: int) -> None:
    """Add a version of a service that multiplies with its number."""
    hidden = root / "code" / f".{version}"
    hidden.mkdir(parents=True)
    (hidden / "service.py").write_text(f"def predict(batch):\n    return [item * {version} for item in batch]\n")
    hidden.rename(root / "code" / str(version))


def test_a_new_version_of_a_service_takes_over_with_its_own_workers(tmp_path):
    put_code(tmp_path, 1)
    with run_server(tmp_path, [*FAST, "--instances", "1"]) as server:
        assert ask(server, post(b"7")).body == b"7"
        before = workers_of(server.process.pid)
        put_code(tmp_path, 2)
        wait(lambda: ask(server, post(b"7")).body == b"14")
        wait(lambda: len(workers_of(server.process.pid)) == 1)
        assert not before & workers_of(server.process.pid)
        assert ask(server, post(b"7", target="/models/code/predict")).body == b"14"
        assert server.terminate() == 0


def workers_of(pid: int) -> set[int]:
    """The worker processes of a server."""
    found = set()
    for task in Path(f"/proc/{pid}/task").iterdir():
        found |= {int(child) for child in (task / "children").read_text().split()}
    return found
