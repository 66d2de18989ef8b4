"""`paceline restart`: do clients notice, and does a bad start change anything?"""

import json
import os
import re
import resource
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
from support.wire import Wire, ask, get, metric, post, until

ROW = b"[1,2,3]"
HAPROXY = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def runtime_folder(tmp_path, monkeypatch):
    """Places of its own for the sockets on which supervisors are asked."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))


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


def test_a_process_that_is_not_ready_in_time_is_given_up_and_the_old_one_stays(model):
    with run_server(model, ["--replicas", "1"]) as server:
        before = replicas(server)
        models.slow(model, loops=4_000_000)
        failed = restart("--timeout", "3")
        assert failed.returncode == 1
        assert "it was not ready after 3 s; the old one serves on" in failed.stderr
        assert replicas(server) == before
        assert ask(server, post(ROW)).status == 200
        models.identity(model)
        assert restart().returncode == 0


def test_what_is_no_request_for_a_restart_changes_nothing(model, tmp_path):
    with run_server(model, ["--replicas", "1"]) as server:
        for said in (b"hello\n", b"[]\n", b'{"do": "something"}\n', b'{"do": "restart", "timeout_s": '):
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(tmp_path / "paceline" / f"{server.port}.sock"))
                client.sendall(said)
        assert restart().returncode == 0
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
    (tmp_path / "paceline").mkdir()
    (tmp_path / "paceline").chmod(0o755)
    with run_server(model, ["--replicas", "1"]):
        assert list((tmp_path / "paceline").iterdir()) == []
        assert restart().returncode == 0  # there is a second place
    (tmp_path / f"paceline-{os.getuid()}").chmod(0o755)
    with run_server(model, ["--replicas", "1"]) as server:
        assert "`paceline restart` will not find this server, SIGHUP will" in server.output
        assert "yours alone" in server.output
        assert ask(server, post(ROW)).status == 200


@pytest.mark.parametrize("place", ["/nowhere", "/proc/1", "x" * 120])
def test_where_there_is_no_place_another_is_taken(model, tmp_path, monkeypatch, place):
    if not place.startswith("/"):
        (tmp_path / place).mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / place))
    with run_server(model, ["--replicas", "1"]):
        assert restart().returncode == 0


def test_one_that_ends_leaves_the_name_to_the_next_on_its_port(model, tmp_path):
    with run_server(model, ["--replicas", "1", "--lame-duck-ms", "0"]) as old, Wire(old) as wire:
        wire.send(post(ROW), post(ROW)[:-3]).response()  # it does not end before the second one is answered
        old.process.terminate()
        until(lambda: _refuses(old))
        with run_server(None, ["--replicas", "1", str(model), "--port", str(old.port)]):
            wire.send(b",3]")
            assert wire.response().status == 200
            assert old.process.wait(10) == 0
            assert restart().returncode == 0


def _refuses(server: RunningServer) -> bool:
    try:
        socket.create_connection((server.host, server.port), 1).close()
    except ConnectionRefusedError:
        return True
    return False


def test_counters_do_not_go_back(model):
    with run_server(model, ["--replicas", "2"]) as server, Wire(server) as silent, load(*_address(server), ROW):
        silent.send(post(ROW)).response()
        seen = [0.0]
        for what in ("restart", "kill", "restart"):
            if what == "kill":
                os.kill(min(replicas(server)), signal.SIGKILL)
            else:
                server.process.send_signal(signal.SIGHUP)
            until_s = time.monotonic() + 4  # longer than a silent connection keeps the old process
            while time.monotonic() < until_s:
                seen.append(metric(server, "paceline_requests_total"))
        assert seen == sorted(seen)
        assert seen[-1] > 1000


def _address(server: RunningServer) -> tuple[str, int]:
    return server.host, server.port


def test_a_restart_that_cannot_start_a_process_changes_nothing(model):
    with run_server(model, ["--replicas", "1"]) as server:
        before, pid = replicas(server), server.process.pid
        soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (4, hard))
        server.process.send_signal(signal.SIGHUP)
        until(lambda: "cannot start a process: Too many open files; the old one serves on" in _flat(server))
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))
        assert replicas(server) == before
        assert restart().returncode == 0


def _flat(server: RunningServer) -> str:
    return re.sub(r"\[Errno \d+\] ", "", server.output)


def test_restarts_leave_nothing_behind(model):
    with run_server(model, ["--replicas", "1", "--grace-ms", "1000"]) as server:
        restart()
        files = _files(server.process.pid)
        for _ in range(4):
            assert restart().returncode == 0
        until(lambda: len(_files(server.process.pid)) <= len(files))


def _files(process: int) -> list[str]:
    folder = Path(f"/proc/{process}/fd")
    return [os.readlink(each) for each in folder.iterdir() if each.is_symlink()]
