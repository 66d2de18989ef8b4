"""What does a load test find out about servers, and which requests does it send to them?"""

from __future__ import annotations

import json
import threading
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from paceline.core.errors import ConfigError, Unreachable
from paceline.loadtest.requests import discovery, replay
from paceline.loadtest.requests.asking import NotHttp
from paceline.loadtest.requests.grpc_asking import NotGrpc
from paceline.testing import RunningServer, run_server
from support import models
from support.fronts import grpc_front, http_front
from support.odd_server import OddServer, Peer, ok
from support.oip_models import identities, scaled
from support.repositories import put
from support.services import write
from support.targets import refusals
from support.web_apps import FASTAPI, FLASK, web_app

pytestmark = pytest.mark.slow

SERVICE = """
import time

def predict(batch):
    time.sleep(0.002)
    return [len(item["text"]) for item in batch]

def example():
    return {"text": "eight"}
"""
PROTOCOLS = ("plain", "oip", "oip-binary", "tfs", "oip-grpc", "tfs-grpc")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    path = write(tmp_path_factory.mktemp("service"), service_py=SERVICE) / "service.py"
    with run_server(path, ["--instances", "1"]) as server:
        yield server


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Three models."""
    root = tmp_path_factory.mktemp("repository")
    for name in ("left", "right"):
        put(root, name, 1)
    put(root, "words", 1, build=models.text_and_bytes)
    with run_server(root, ["--warmup-s", "0"]) as server:
        yield server


def refusal(*arguments: Any, **options: Any) -> ConfigError:
    with pytest.raises(ConfigError) as error:
        discovery.find(*arguments, **options)
    return error.value


def metric(server: RunningServer, name: str) -> float:
    with urllib.request.urlopen(f"{server.url}/metrics", timeout=10) as response:
        lines = response.read().decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


# -- items of JSON --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_service_accepts_every_request(service: RunningServer, protocol: str, rows: int):
    target = discovery.find(service.url, protocol=protocol, rows=rows)
    assert len(set(target.bodies)) == len(target.bodies) == 1000
    assert "written in another way" in target.notes[0]
    thinned = target.bodies[::50]
    assert refusals(_with(target, thinned)) == []


def test_requests_of_a_load_test_do_not_run_as_one(service: RunningServer):
    target = discovery.find(service.url)
    before = metric(service, "paceline_shared_rows_total")
    parts = [_with(target, target.bodies[start::32]) for start in range(32)]
    with ThreadPoolExecutor(32) as clients:
        assert list(clients.map(refusals, parts)) == [[]] * 32
    assert metric(service, "paceline_shared_rows_total") == before
    # The same item from everybody would have: that is what the different ways to write it are for.
    with ThreadPoolExecutor(32) as clients:
        list(clients.map(refusals, [_with(target, target.bodies[:1] * 10)] * 32))
    assert metric(service, "paceline_shared_rows_total") > before


def test_rows_for_a_service_come_from_a_file(service: RunningServer, tmp_path: Path):
    path = tmp_path / "rows.csv"
    path.write_text("text,number\nabc,1\n,2\n")
    error = refusal(service.url, data=path, rows=2)
    assert (
        "/batch-predict: the server refuses a first request: the code raised TypeError; it was sent [" in error.message
    )
    path.write_text("text,number\nabc,1\nd,2\n")
    for protocol in PROTOCOLS:
        target = discovery.find(service.url, protocol=protocol, rows=2, data=path)
        assert refusals(target) == []
        assert target.notes == ("distinct requests: 1; equal items that are under way at once run once",)


def test_a_service_without_an_example_needs_data(tmp_path: Path):
    path = write(tmp_path, service_py="def predict(batch): return batch") / "service.py"
    with run_server(path, ["--cache", "memory"]) as server:
        error = refusal(server.url)
        assert error.message == f"{server.url}: it is not known what model 'service' takes"
        assert error.hint is not None
        assert error.hint.startswith("give it an example: example() in a service")
        assert error.hint.endswith("--data FILE with rows, or --body FILE with a whole request")
        (tmp_path / "rows.jsonl").write_text("1\n2\n")
        target = discovery.find(server.url, data=tmp_path / "rows.jsonl")
        assert target.bodies == (b"1", b"2")
        assert target.notes[-1].startswith("the server keeps predictions (X-Cache)")


def test_an_example_that_has_one_form_is_told(tmp_path: Path):
    path = write(tmp_path, service_py="def predict(batch): return batch\ndef example(): return 7") / "service.py"
    with run_server(path) as server:
        target = discovery.find(server.url)
        assert set(target.bodies) == {b"7"}
        assert target.notes[0].startswith("the example can be written in 1 way only")


def test_a_scoring_script_and_a_stream_are_services_too(tmp_path: Path):
    score = "def init(): pass\ndef run(data): return len(data)\ndef example(): return {'data': [1]}"
    with run_server(write(tmp_path / "a", score_py=score) / "score.py") as server:
        target = discovery.find(f"{server.url}/score")
        assert (target.path, target.protocol) == ("/score", "plain")
        assert refusals(_with(target, target.bodies[:5])) == []
        assert "takes one at a time" in refusal(f"{server.url}/score", rows=2).message
    stream = "def predict(item):\n    yield item\n    yield item\ndef example(): return [1]"
    with run_server(write(tmp_path / "b", service_py=stream) / "service.py") as server:
        assert refusals(_with(discovery.find(server.url), (b"[1]", b"[2]"))) == []


# -- which server, and which model ----------------------------------------------------------------------------


def test_one_of_several_models_has_to_be_named(several: RunningServer):
    error = refusal(several.url)
    assert error.message == f"{several.url}: serves 3 models: left, right, words"
    assert error.hint == "say which: --model NAME"
    error = refusal(several.url, model="lift")
    assert (error.message, error.hint) == (f"{several.url}: no model is called 'lift'", "did you mean 'left'?")
    assert refusal(several.url, model="x").hint == "served: left, right, words"
    assert "the URL names the model 'left'" in refusal(f"{several.url}/models/left", model="right").message


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_named_model_is_asked(several: RunningServer, protocol: str):
    for name in ("left", "words"):
        target = discovery.find(several.url, model=name, protocol=protocol)
        assert target.model == name
        assert refusals(target) == []


@pytest.mark.parametrize(
    ("path", "protocol", "asked"),
    [
        ("/models/left", "plain", "/models/left/predict"),
        ("/models/left/batch-predict", "plain", "/models/left/batch-predict"),
        ("/v2/models/left", "oip", "/v2/models/left/infer"),
        ("/v2/models/left/versions/1/infer", "oip", "/v2/models/left/versions/1/infer"),
        ("/v1/models/left/versions/1:predict", "tfs", "/v1/models/left/versions/1:predict"),
    ],
)
def test_the_path_of_a_url_says_protocol_and_model(several: RunningServer, path: str, protocol: str, asked: str):
    target = discovery.find(several.url + path)
    assert (target.protocol, target.path, target.model) == (protocol, asked, "left")
    assert refusals(target) == []


def test_a_version_that_is_not_there_is_refused(several: RunningServer):
    assert "404" in refusal(f"{several.url}/v2/models/left/versions/7").message


def test_grpc_in_the_url_is_taken_at_its_word(several: RunningServer):
    url = several.url.replace("http", "grpc")
    assert discovery.find(url, model="left").protocol == "oip-grpc"
    assert discovery.find(url, model="left", protocol="tfs-grpc").protocol == "tfs-grpc"


def test_servers_that_do_not_list_their_models_need_a_name(several: RunningServer):
    with http_front(several, r"/v2|/v2/models/.*") as url:
        error = refusal(url)
        assert (
            error.message
            == f"{url}: paceline {discovery.find(several.url, model='left').server[9:]} does not list its models"
        )
        assert error.hint == "say which to ask: --model NAME"
        assert "'none': the server answers 404" in refusal(url, model="none").message
    with http_front(several, r"/v2|/v2/models/.*|/v2/repository/index", prefix="/behind/a/proxy") as url:
        assert refusal(f"{url}/v2/models/lift").hint == "did you mean 'left'?"
        target = discovery.find(f"{url}/v2/models/left")
        assert target.path == "/behind/a/proxy/v2/models/left/infer"
        assert refusals(target) == []
    with grpc_front(several, r"/inference\..*") as url:
        assert refusal(url).message.endswith("serves 3 models: left, right, words")
        assert refusal(url, protocol="tfs-grpc").hint == "say which to ask: --model NAME"
        assert refusal(url, protocol="tfs-grpc", model="left").message.startswith("model 'left': ")


def test_tensorflow_serving_is_known_by_its_errors(tmp_path: Path):
    with (
        run_server(models.half_plus_two(tmp_path / "half.onnx"), ["--v1-dialect", "tfs"]) as server,
        http_front(server, r"/v1/.*") as url,
    ):
        assert refusal(url).message == f"{url}: TensorFlow Serving does not list its models"
        assert "Could not find any versions of model none" in refusal(url, model="none").message
        assert discovery.find(url, model="half").protocol == "tfs"


def test_the_protocol_has_the_datatypes_of_the_model(tmp_path: Path):
    with run_server(identities(tmp_path / "short.onnx", ["BF16", "FP16"])) as server:
        target = discovery.find(server.url)
        assert target.protocol == "oip-binary"
        assert refusals(target) == []
        error = refusal(server.url, protocol="tfs")
        assert error.message == "input 'in_BF16' is BF16, which the protocol tfs cannot carry"


def test_images_whose_size_is_open_are_as_large_as_the_example_or_a_guess(tmp_path: Path):
    path = models.identity(tmp_path / "image.onnx", shape=("N", 3, "H", "W"))
    (tmp_path / "example.json").write_text(json.dumps([np.ones((3, 5, 7)).tolist()]))
    with run_server(path, ["--examples", str(tmp_path / "example.json")]) as server:
        own = discovery.find(server.url, rows=2, protocol="oip")
        assert json.loads(own.bodies[0])["inputs"][0]["shape"] == [2, 3, 5, 7]
        assert own.notes == ()
        with http_front(server, r"/v2|/v2/models/.*") as url:
            guessed = discovery.find(url, model="image")
        assert json.loads(guessed.bodies[0])["inputs"][0]["shape"] == [1, 3, 8, 8]
        assert guessed.notes == ("open dimensions have size 8: --data FILE for others",)
        assert refusals(own) == []


def test_few_bodies_are_made_of_large_inputs(tmp_path: Path):
    with run_server(models.identity(tmp_path / "large.onnx", shape=("N", 500_000)), ["--warmup-s", "0"]) as server:
        target = discovery.find(server.url, protocol="oip-binary", rows=8)
        assert len(target.bodies) == (64 << 20) // len(target.bodies[0]) == 4
        assert refusals(target) == []


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_scalars_stay_scalars(tmp_path: Path, protocol: str):
    with run_server(scaled(tmp_path / "scaled.onnx"), ["--warmup-s", "0"]) as server:
        target = discovery.find(server.url, protocol=protocol)
        assert len(set(target.bodies)) == 100
        assert refusals(target) == []


def test_a_path_without_predictions_is_not_passed_over(service: RunningServer):
    for path in ("/predictt", "/docs", "/metrics"):
        error = refusal(service.url + path)
        assert error.message.startswith(f"{service.url}{path}: paceline ")
        assert error.message.endswith(" has no predictions there")
        assert error.hint is not None
        assert f"leave the path out: {service.url};" in error.hint


# -- servers of others ----------------------------------------------------------------------------------------


def test_an_example_in_the_description_of_a_fastapi_app_is_sent(tmp_path: Path):
    with web_app(tmp_path, FASTAPI) as url:
        for asked in (url, f"{url}/score-point", f"{url}/score-point?x=1"):
            target = discovery.find(asked)
            assert (target.protocol, target.server, target.model) == ("plain", "", "")
            assert target.path == asked.removeprefix(url) or asked == url
            assert json.loads(target.bodies[7]) == {"x": 1.5, "label": "a"}
            assert refusals(_with(target, target.bodies[:10])) == []
        assert refusal(f"{url}/other").message == f"{url}: it is not known what /other takes"
        assert refusal(url, protocol="oip").hint == "say which to ask: --model NAME"
        assert refusal(url, protocol="oip", model="m").message == f"{url}: it is not known what model 'm' takes"


def test_a_flask_app_is_sent_what_a_file_has(tmp_path: Path):
    (tmp_path / "rows.jsonl").write_text('{"x": 1}\n{"x": 2}\n')
    (tmp_path / "body.json").write_text('{"x": 3}')
    with web_app(tmp_path, FLASK) as url:
        assert refusal(f"{url}/predict").hint == "--data FILE with rows, or --body FILE with a whole request"
        assert "the URL has no path" in refusal(url).message
        rows = discovery.find(f"{url}/predict", data=tmp_path / "rows.jsonl")
        assert rows.bodies == (b'{"x": 1}', b'{"x": 2}')
        body = discovery.find(f"{url}/predict", body=tmp_path / "body.json", headers=[("X-Key", "k")])
        assert body.protocol == "raw"
        assert body.headers == (("content-type", "application/json"), ("x-key", "k"))
        assert refusals(rows) == refusals(body) == []
        (tmp_path / "body.json").write_text('{"y": 3}\n')
        error = refusal(f"{url}/predict", body=tmp_path / "body.json")
        assert error.message.startswith(f"{url}/predict: the server refuses a first request: 500 ")
        assert error.message.endswith('; it was sent {"y": 3}')


# -- as they are ----------------------------------------------------------------------------------------------


def test_whole_bodies_go_where_the_url_or_the_protocol_says(several: RunningServer, tmp_path: Path):
    made = {protocol: discovery.find(several.url, model="left", protocol=protocol) for protocol in PROTOCOLS}
    for protocol, target in made.items():
        path = tmp_path / f"{protocol}.json"
        path.write_bytes(target.bodies[0])
        headers = [each for each in target.headers if each[0] != "content-type"]
        kind = dict(target.headers).get("content-type")
        sent = discovery.find(
            several.url, model="left", protocol=protocol, body=[path, path], content_type=kind, headers=headers
        )
        assert (sent.protocol, sent.path, sent.bodies) == ("raw", target.path, (target.bodies[0],) * 2)
        assert refusals(sent) == []
    base = several.url.replace("http", "grpc")
    message = tmp_path / "oip-grpc.json"
    assert refusals(discovery.find(f"{base}/inference.GRPCInferenceService/ModelInfer", body=message)) == []
    assert "UNIMPLEMENTED" in refusal(f"{base}/no.Such/Method", body=message).message


def test_a_recording_is_sent_in_its_order_to_its_paths(several: RunningServer, tmp_path: Path):
    path = tmp_path / "requests.jsonl"
    lines = [
        {"at": 2, "path": "/models/right/batch-predict", "body": [[1.0]]},
        {"at": 1, "body": [3.0]},
    ]
    path.write_text("\n".join(map(json.dumps, lines)))
    target = discovery.find(several.url, model="left", replay=replay.read(path))
    assert target.bodies == (b"[3.0]", b"[[1.0]]")
    assert target.paths == ("/models/left/predict", "/models/right/batch-predict")
    assert (target.protocol, target.headers) == ("raw", (("content-type", "application/json"),))
    assert refusals(target) == []
    lines[1]["path"] = "/models/left/predict"  # then no model has to be named
    path.write_text("\n".join(map(json.dumps, lines)))
    assert discovery.find(several.url, replay=replay.read(path)).paths == target.paths


def test_contradictions_are_refused(tmp_path: Path):
    url, path = "localhost:1", tmp_path / "x.json"
    assert refusal(url, rows=0).message == "--rows: expected 1 or more, got 0"
    assert refusal(url, data=path, body=path).message == "--data and --body: give one of them"
    assert refusal(url, protocol="raw").hint == "--body FILE"
    assert "expected one of plain, oip, oip-binary" in refusal(url, protocol="soap").message


# -- servers that do not answer -------------------------------------------------------------------------------


def test_a_server_that_is_not_there_is_told_with_a_hint():
    error = refusal("localhost:1")
    assert isinstance(error, Unreachable)
    assert (error.message, error.hint) == (
        "http://localhost:1: nothing listens there",
        "start a server: paceline serve MODEL",
    )
    assert isinstance(refusal("grpc://localhost:1"), Unreachable)
    assert "cannot be resolved" in refusal("http://no.such.host.invalid").message


def test_a_server_that_never_ends_its_answer_is_given_up():
    def drip(peer: Peer) -> None:
        peer.request()
        peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n")
        while not ended.wait(0.01):
            peer.send(b" ")

    ended = threading.Event()

    with OddServer(drip) as server:
        error = refusal(f"{server.host}:{server.port}", timeout_s=0.3)
        ended.set()
    assert isinstance(error, Unreachable)
    assert error.message.endswith(": no answer within 0.3 s")


def test_what_is_no_http_is_told():
    def greet(peer: Peer) -> None:
        peer.send(b"220 mail.example.org ESMTP\r\n")
        peer.request()

    with OddServer(greet) as server:
        assert isinstance(refusal(f"{server.host}:{server.port}"), NotHttp)
        assert isinstance(refusal(f"grpc://{server.host}:{server.port}"), NotGrpc)


def test_answers_that_say_nothing_leave_the_server_unknown():
    def nothing(peer: Peer) -> None:
        for _ in peer.requests():
            peer.send(ok(b"<html>"))

    with OddServer(nothing) as server:
        error = refusal(f"{server.host}:{server.port}")
    assert error.message == "the server is of no known kind, and the URL has no path"


def test_a_model_that_loads_is_waited_for(tmp_path: Path):
    slow = "import time\ntime.sleep(1.5)\n" + SERVICE
    said: list[str] = []
    with run_server(write(tmp_path, service_py=slow) / "service.py", ready=False) as server:
        assert refusals(_with(discovery.find(server.url, say=said.append), (b'{"text": "a"}',))) == []
    assert said[0].startswith("waiting for model 'service': loading")


def test_a_model_that_cannot_be_loaded_is_not_waited_for(tmp_path: Path):
    path = models.never_warm(tmp_path / "never.onnx")
    with run_server(path, ready=False) as server:
        error = refusal(server.url)
        assert error.message.startswith("model 'never' is not ready, and will not be: warm-up failed: ")


def _with(target: Any, bodies: tuple[bytes, ...]) -> Any:
    return msgspec.structs.replace(target, bodies=bodies)
