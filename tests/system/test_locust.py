"""Real Locust: the locustfile that is written, and `--engine locust`, which runs one."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from shutil import which
from typing import Any

import pytest

from paceline.core.errors import ConfigError, GeneratorFailed, RuntimeUnavailable
from paceline.loadtest.arrivals import Constant
from paceline.loadtest.locust import engine as locust_engine
from paceline.loadtest.locust import file as locust_file
from paceline.loadtest.locust.engine import LocustGenerator
from paceline.loadtest.result import StepResult
from paceline.loadtest.steps import Change, OpenLoop, Step, Users
from paceline.loadtest.tally import Tally
from paceline.loadtest.target import Target
from paceline.server.messages import message
from paceline.testing import RunningServer, run_server
from support import models
from support.wire import metric, until

pytestmark = pytest.mark.slow

WAIT_S = 60.0
BODY = json.dumps({"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}]}).encode()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    path = models.identity(tmp_path_factory.mktemp("models") / "same.onnx")
    with run_server(path, ["--warmup-s", "0.05"]) as running:
        yield running


def over_http(server: RunningServer, *bodies: bytes, **changes: Any) -> Target:
    given = {"path": "/v2/models/same/infer", "headers": (("content-type", "application/json"),), **changes}
    return Target(host=server.host, port=server.port, protocol="oip", bodies=bodies or (BODY,), **given)


def over_grpc(server: RunningServer, model: str = "same") -> Target:
    request = message("inference.ModelInferRequest")(model_name=model)
    request.inputs.add(name="x", datatype="FP32", shape=[1, 3]).contents.fp32_contents.extend([1.0, 2.0, 3.0])
    return Target(
        host=server.host,
        port=server.port,
        wire="grpc",
        protocol="oip-grpc",
        path="/inference.GRPCInferenceService/ModelInfer",
        bodies=(request.SerializeToString(),),
        headers=(("x-from", "a test"),),
    )


# -- the script -----------------------------------------------------------------------------------------------


def locust(script: Path) -> tuple[int, dict[str, Any], str]:
    """Run a locustfile as its head says; the exit code, the numbers of its requests, what it wrote."""
    command = [sys.executable, "-m", "locust", "-f", script, "--headless", "-u", "5", "-r", "5", "-t", "3s", "--json"]
    done = subprocess.run(command, cwd=script.parent, capture_output=True, text=True, timeout=WAIT_S, check=False)
    (stats,) = json.loads(done.stdout)
    return done.returncode, stats, done.stderr


@pytest.mark.parametrize("kind", ["in the script", "beside it", "grpc"])
def test_the_script_runs_with_locust_alone(server: RunningServer, tmp_path: Path, kind: str) -> None:
    long = [BODY + b" " * 30_000] * (kind == "beside it")
    target = over_grpc(server) if kind == "grpc" else over_http(server, BODY, *long)
    locust_file.write(tmp_path / "load.py", target, (0.01, 0.02))
    before = metric(server, "paceline_requests_total")
    code, stats, told = locust(tmp_path / "load.py")
    assert code == 0, told
    assert stats["num_failures"] == 0
    assert stats["num_requests"] >= 5
    assert stats["name"] == target.path
    assert metric(server, "paceline_requests_total") - before >= stats["num_requests"]


@pytest.mark.parametrize("wire", ["http1", "grpc"])
def test_the_script_sees_what_fails(server: RunningServer, tmp_path: Path, wire: str) -> None:
    target = over_grpc(server, "nobody") if wire == "grpc" else over_http(server, path="/v2/models/nobody/infer")
    locust_file.write(tmp_path / "load.py", target, (0.05, 0.05))
    code, stats, told = locust(tmp_path / "load.py")
    assert code == 1
    assert stats["num_failures"] == stats["num_requests"] > 0
    assert ("NOT_FOUND" if wire == "grpc" else "status 404") in told


# -- the engine -----------------------------------------------------------------------------------------------


def users(count: int, think_s: tuple[float, float] = (0.0, 0.0), **options: float) -> Step:
    return Step(load=Users(count=count, think_s=think_s), **{"warmup_s": 0.2, "duration_s": 0.6, **options})


def held(client: LocustGenerator, step: Step) -> StepResult:
    """Hold a step to its end."""
    client.begin(step)
    return awaited(client, Tally(step))


def awaited(client: LocustGenerator, tally: Tally) -> StepResult:
    def has_ended() -> bool:
        samples = client.poll(0.1)
        if samples is not None:
            tally.add(samples)
        return client.ended is not None

    until(has_ended, WAIT_S)
    assert client.ended is not None
    return tally.result("", client.ended)


def test_steps_of_users_over_http(server: RunningServer) -> None:
    before = metric(server, "paceline_requests_total")
    with LocustGenerator(over_http(server, BODY, BODY + b" ")) as client:
        first, second = held(client, users(1)), held(client, users(4))
    for result in (first, second):
        assert not result.errors
        assert result.latency.count == result.requests > 10
        assert result.latency.p50_ms is not None
        assert result.latency.p50_ms > 0
        assert result.queue is not None  # the server has told its share
        assert result.infer is not None
        assert sum(result.batch_rows.values()) == result.requests
        assert 0.5 < result.duration_s < 5
        assert result.client.cpu > 0
    warmed_up = metric(server, "paceline_requests_total") - before
    assert warmed_up > first.requests + second.requests


def test_users_over_grpc(server: RunningServer) -> None:
    with LocustGenerator(over_grpc(server)) as client:
        result = held(client, users(2))
    assert not result.errors
    assert result.requests > 10


def test_users_who_think_send_less(server: RunningServer) -> None:
    with LocustGenerator(over_http(server)) as client:
        result = held(client, users(3, (0.2, 0.3)))
    assert not result.errors
    assert 3 <= result.requests <= 3 * (0.6 / 0.2 + 1)


def test_answers_that_are_no_predictions_are_errors_by_status(server: RunningServer) -> None:
    with LocustGenerator(over_http(server, BODY, b"{")) as client:
        result = held(client, users(2))
    assert list(result.errors) == ["status 400"]
    assert result.latency.count > 0
    with LocustGenerator(over_grpc(server, "nobody")) as client:
        assert list(held(client, users(2)).errors) == ["status 5"]


def test_a_server_that_does_not_answer_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        target = Target(
            host="127.0.0.1", port=silent.getsockname()[1], protocol="raw", path="/predict", bodies=(b"{}",)
        )
        with LocustGenerator(target) as client:
            result = held(client, users(1, warmup_s=0.0, timeout_s=0.1))
    assert set(result.errors) == {"timeout"}


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    with run_server(models.identity(tmp_path / "same.onnx")) as server:
        target = over_http(server)
    with LocustGenerator(target) as client:
        result = held(client, users(1, (0.05, 0.05)))
    assert list(result.errors) == ["not connected"]


def test_users_come_and_leave_while_it_runs(server: RunningServer) -> None:
    step = users(1, (0.05, 0.05), duration_s=600.0)
    tally = Tally(step)
    with LocustGenerator(over_http(server)) as client:
        client.begin(step)
        for count, is_so in ((8, lambda rate: rate > 60), (1, lambda rate: rate < 40)):
            client.change(Change(users=count))
            until(lambda reached=is_so: reached(_rate(client, tally)), WAIT_S)
        client.stop()
        assert not awaited(client, tally).errors


def _rate(client: LocustGenerator, tally: Tally) -> float:
    """Answers per second, over half of one."""
    begun, before = time.monotonic(), tally.latency.count
    while time.monotonic() < begun + 0.5:
        samples = client.poll(0.1)
        if samples is not None:
            tally.add(samples)
    return (tally.latency.count - before) / (time.monotonic() - begun)


def test_users_who_have_left_are_gone_for_the_server(server: RunningServer) -> None:
    with LocustGenerator(over_http(server)) as client:
        held(client, users(8))
        until(lambda: metric(server, "paceline_connections") == 1)  # the one that asks


def test_a_step_that_is_ended_early_reports_what_it_has(server: RunningServer) -> None:
    step = users(2, duration_s=600.0)
    tally = Tally(step)
    with LocustGenerator(over_http(server)) as client:
        client.begin(step)

        def has_counted() -> bool:
            samples = client.poll(0.1)
            if samples is not None:
                tally.add(samples)
            return tally.requests > 10

        until(has_counted, WAIT_S)
        client.stop()
        result = awaited(client, tally)
        assert result.requests > 10
        assert result.duration_s < 600
        assert not held(client, users(1)).errors  # and the next one may follow


def test_what_is_wished_at_once_counts(server: RunningServer) -> None:
    step = users(1, duration_s=600.0)
    with LocustGenerator(over_http(server)) as client:
        client.begin(step)
        client.stop()
        assert awaited(client, Tally(step)).duration_s == 0.0


def test_a_process_that_dies_is_told(server: RunningServer) -> None:
    with LocustGenerator(over_http(server)) as client:
        client.begin(users(1, duration_s=600.0))
        os.kill(client.pid, signal.SIGKILL)
        with pytest.raises(GeneratorFailed, match="ended with code -9"):
            awaited(client, Tally(users(1)))


def test_users_that_cannot_even_ask_end_the_test(server: RunningServer) -> None:
    with LocustGenerator(over_http(server, headers=(("x-odd", "\u20ac"),))) as client:
        client.begin(users(1))
        with pytest.raises(GeneratorFailed, match=r"code 1: \w+Error: .*x-odd"):
            awaited(client, Tally(users(1)))


def test_a_rate_is_refused(server: RunningServer) -> None:
    with LocustGenerator(over_http(server)) as client, pytest.raises(ConfigError, match="no rates"):
        client.begin(Step(load=OpenLoop(arrivals=Constant(rate=10.0))))


def test_locust_may_be_missing(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locust_engine, "find_spec", lambda _: None)
    with pytest.raises(RuntimeUnavailable) as raised:
        LocustGenerator(over_grpc(server))
    assert raised.value.hint == "pip install 'paceline[locust]' grpcio"


# -- https ----------------------------------------------------------------------------------------------------


class _Echo(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@contextmanager
def tls_server(folder: Path) -> Iterator[tuple[int, Path]]:
    """A server that speaks https; its port, and the certificate to trust."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run([*made, *names, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with ThreadingHTTPServer(("127.0.0.1", 0), _Echo) as running:
        running.socket = context.wrap_socket(running.socket, server_side=True)
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield running.server_port, certificate
        running.shutdown()
        thread.join()


@pytest.mark.skipif(which("openssl") is None, reason="openssl is not installed")
def test_https_through_the_command(tmp_path: Path) -> None:
    (tmp_path / "body.json").write_bytes(b"{}")
    with tls_server(tmp_path) as (port, certificate):
        url = f"https://127.0.0.1:{port}/anything"
        trusted = bench(tmp_path, url, "--body", "body.json", "--json", env={"SSL_CERT_FILE": str(certificate)})
        untrusted = bench(tmp_path, url, "--body", "body.json", "--json", env={})
    assert trusted.returncode == 0, trusted.stderr
    result = json.loads(trusted.stdout)
    assert (result["engine"], result["url"]) == ("locust", url)
    assert [step["users"] for step in result["steps"]] == [1, 3]
    assert all(step["latency"]["count"] and not step["errors"] for step in result["steps"])
    assert untrusted.returncode != 0
    assert "certificate" in untrusted.stderr


@contextmanager
def bench_under_way(server: RunningServer) -> Iterator[subprocess.Popen[str]]:
    """The command in the middle of a test that would go on for long."""
    command = [sys.executable, "-m", "paceline", "bench", server.url, "--engine", "locust", "--users", "2"]
    command += ["--duration", "600s", "--warm-up", "0s", "--json"]
    before = metric(server, "paceline_requests_total")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            until(lambda: metric(server, "paceline_requests_total") - before > 100, WAIT_S)
            yield process
        finally:
            process.kill()


def test_ctrl_c_ends_locust_and_reports(server: RunningServer) -> None:
    with bench_under_way(server) as process:
        process.send_signal(signal.SIGINT)
        out, told = process.communicate(timeout=WAIT_S)
    assert process.returncode == 130, told
    (step,) = json.loads(out)["steps"]
    assert step["latency"]["count"] > 0
    until(lambda: metric(server, "paceline_connections") == 1)


def test_locust_ends_with_its_parent(server: RunningServer) -> None:
    with bench_under_way(server) as process:
        process.kill()
        process.communicate(timeout=WAIT_S)
    until(lambda: metric(server, "paceline_connections") == 1)


def test_the_command_refuses_what_locust_cannot(server: RunningServer, tmp_path: Path) -> None:
    for flags in (("--rate", "10/s"), ("--find-capacity", "--slo", "p99=50ms")):
        command = [sys.executable, "-m", "paceline", "bench", server.url, "--engine", "locust", *flags]
        done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S, check=False)
        assert done.returncode == 2
        assert "Locust has users, and no rates" in done.stderr


def bench(cwd: Path, *arguments: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "paceline", "bench", *arguments, "--engine", "locust", "--users", "1,3"]
    command += ["--think", "10ms..20ms", "--duration", "500ms", "--warm-up", "200ms", "--timeout", "5s"]
    return subprocess.run(
        command, cwd=cwd, env={**os.environ, **env}, capture_output=True, text=True, timeout=WAIT_S, check=False
    )
