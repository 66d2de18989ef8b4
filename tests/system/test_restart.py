"""`paceline restart`: do clients notice, and does a bad start change anything?"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from paceline.testing import RunningServer, run_server
from support import models
from support.load import load
from support.wire import Wire, ask, get, post, until

ROW = b"[1,2,3]"
HAPROXY = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def runtime_folder(tmp_path, monkeypatch):
    """A place of its own for the sockets on which supervisors are asked."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


@pytest.fixture
def model(tmp_path):
    return models.identity(tmp_path / "echo.onnx")


def restart(*flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "paceline", "restart", *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def replicas(server: RunningServer) -> set[int]:
    children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(server.process.pid)], capture_output=True, check=False)
    return {int(number) for number in children.stdout.split()}


def test_fault_081_no_request_is_lost(model):
    with run_server(model, ["--replicas", "2"]) as server:
        before = replicas(server)
        with load(server.host, server.port, ROW) as running:
            for _ in range(3):
                done = restart()
                assert (done.returncode, done.stdout) == (0, "2 of 2 replicas replaced\n"), done.stderr
            assert running.answered > 300
        assert running.failed == []
        assert not replicas(server) & before


@pytest.mark.skipif(HAPROXY is None, reason="haproxy is not installed")
def test_fault_080_no_request_is_lost_behind_a_balancer(model, tmp_path):
    with run_server(model, ["--replicas", "2"]) as server, haproxy(tmp_path, server) as port:
        with load("127.0.0.1", port, ROW) as running:
            for _ in range(3):
                assert restart().returncode == 0
            assert running.answered > 300
        assert running.failed == []


def _answers(server: RunningServer) -> bool:
    with suppress(OSError):
        return ask(server, get("/readyz")).status == 200
    return False


@contextmanager
def haproxy(folder: Path, server: RunningServer) -> Iterator[int]:
    """A balancer in front of a server; its port."""
    assert HAPROXY is not None
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    (folder / "haproxy.cfg").write_text(
        f"""
        defaults
            mode http
            timeout connect 5s
            timeout client 30s
            timeout server 30s
        frontend all
            bind 127.0.0.1:{port}
            default_backend paceline
        backend paceline
            option httpchk GET /readyz
            server one {server.host}:{server.port} check inter 200ms
"""
    )
    process = subprocess.Popen([HAPROXY, "-db", "-f", str(folder / "haproxy.cfg")])
    try:
        until(lambda: _answers(RunningServer(process, "127.0.0.1", port, server.log)))
        yield port
    finally:
        process.kill()
        process.wait()


def test_the_new_processes_have_the_new_configuration(model, tmp_path):
    config = tmp_path / "paceline.toml"
    config.write_text("[serve]\nserver_name = 'before'\n")
    with run_server(model, ["--replicas", "1", "--config", str(config)]) as server:
        assert json.loads(ask(server, get("/v2")).body)["name"] == "before"
        config.write_text("[serve]\nserver_name = 'after'\n")
        assert restart().returncode == 0
        assert json.loads(ask(server, get("/v2")).body)["name"] == "after"


def test_fault_086_a_wrong_configuration_keeps_the_old(model, tmp_path):
    config = tmp_path / "paceline.toml"
    config.write_text("[serve]\n")
    with run_server(model, ["--replicas", "2", "--config", str(config)]) as server:
        before = replicas(server)
        config.write_text("[serve]\ntimout_ms = 5\n")
        failed = restart()
        assert failed.returncode == 1
        assert "timout_ms: unknown setting" in failed.stderr
        assert "did you mean 'timeout_ms'?" in failed.stderr
        assert replicas(server) == before
        assert ask(server, post(ROW)).status == 200


def test_a_model_that_has_gone_keeps_the_old(model):
    with run_server(model, ["--replicas", "1"]) as server:
        model.unlink()
        failed = restart()
        assert failed.returncode == 1
        assert "no such model file" in failed.stderr
        assert ask(server, post(ROW)).status == 200


def test_a_client_that_keeps_its_connection_is_told_to_come_back(model):
    with run_server(model, ["--replicas", "1"]) as server, Wire(server) as wire:
        assert not wire.send(post(ROW)).response().closes
        asking = subprocess.Popen([sys.executable, "-m", "paceline", "restart"], stderr=subprocess.DEVNULL)
        until(lambda: "is ready after" in server.output)
        answer = wire.send(post(ROW)).response()
        assert (answer.status, answer.closes) == (200, True)
        assert asking.wait(20) == 0


def test_a_silent_client_gets_a_moment_and_is_then_closed(model):
    with run_server(model, ["--replicas", "1"]) as server, Wire(server) as wire:
        wire.send(post(ROW)).response()
        started = time.monotonic()
        assert restart().returncode == 0
        assert wire.rest() == b""
        assert time.monotonic() - started > 2


def test_a_hangup_restarts_too(model):
    with run_server(model, ["--replicas", "1"]) as server:
        before = replicas(server)
        server.process.send_signal(signal.SIGHUP)
        until(lambda: replicas(server) and not replicas(server) & before)
        assert ask(server, post(ROW)).status == 200


def test_two_at_a_time_are_one_too_many(model):
    with run_server(model, ["--replicas", "1"]) as server, Wire(server) as wire:
        wire.send(post(ROW)).response()  # it keeps the old process for a moment
        first = subprocess.Popen([sys.executable, "-m", "paceline", "restart"], stderr=subprocess.DEVNULL)
        until(lambda: "is ready after" in server.output)
        second = restart()
        assert second.returncode == 1
        assert "a restart is under way" in second.stderr
        assert first.wait(20) == 0


def test_without_a_supervisor_there_is_nothing_to_ask(model):
    with run_server(model):
        failed = restart()
        assert failed.returncode == 1
        assert "no server with a supervisor" in failed.stderr
        assert "--replicas" in failed.stderr


def test_of_several_servers_one_must_be_named(model):
    with run_server(model, ["--replicas", "1"]) as one, run_server(model, ["--replicas", "1"]) as other:
        failed = restart()
        assert failed.returncode == 1
        assert str(one.port) in failed.stderr
        assert str(other.port) in failed.stderr
        done = restart("--port", str(one.port), "--json")
        assert json.loads(done.stdout) == {"replicas": 1}
        assert "is ready after" not in other.output


def test_a_folder_that_others_can_enter_is_not_used(model, tmp_path):
    (tmp_path / "paceline").mkdir(mode=0o755)
    os.chmod(tmp_path / "paceline", 0o755)
    failed = restart()
    assert failed.returncode == 1
    assert "yours alone" in failed.stderr
    with run_server(model, ["--replicas", "1"]) as server:
        assert "`paceline restart` will not find this server" in server.output
        assert ask(server, post(ROW)).status == 200
