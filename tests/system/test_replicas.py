"""Several processes on one port: what do clients see when one dies, and what does the operator?"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

import pytest
import tritonclient.grpc as triton

from paceline.testing import RunningServer, run_server
from support import models
from support.load import load
from support.wire import Wire, ask, get, metric, post, until

ROW = b"[1,2,3]"
TWO = ["--replicas", "2"]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return models.identity(tmp_path_factory.mktemp("models") / "echo.onnx")


def replicas(server: RunningServer) -> list[int]:
    """Process numbers of the replicas."""
    children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(server.process.pid)], capture_output=True, check=False)
    return [int(number) for number in children.stdout.split()]


def predict(server: RunningServer) -> bytes:
    return ask(server, post(ROW)).body


def gone(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    return False


def test_one_port_one_readiness_one_panel(model):
    with run_server(model, TWO) as server:
        assert len(replicas(server)) == 2
        assert {predict(server) for _ in range(16)} == {b"[1.0,2.0,3.0]"}
        assert server.output.count("try it") == 1
        assert "a share of" in server.output


def test_the_metrics_are_those_of_all(model):
    with run_server(model, TWO) as server:
        for _ in range(40):  # each on a connection of its own: the kernel gives some to either process
            predict(server)
        page = ask(server, get("/metrics")).body.decode()
        assert 'paceline_requests_total{model="echo",version="1",protocol="plain",outcome="ok"} 40' in page
        assert page.count("process_resident_memory_bytes{replica=") == 2
        assert metric(server, "paceline_replica_up") == 2
        assert page.count("# TYPE paceline_requests_total counter") == 1


def test_one_that_is_killed_costs_what_it_was_doing_and_is_replaced(model):
    with run_server(model, TWO) as server:
        before = replicas(server)
        with load(server.host, server.port, ROW) as running:
            until(lambda: running.answered > 200)
            os.kill(before[0], signal.SIGKILL)
            killed = time.monotonic()
            until(lambda: metric(server, "paceline_replica_restarts_total") == 1)
            until(lambda: len(replicas(server)) == 2 and ask(server, get("/readyz")).status == 200)
            seen = running.answered
            until(lambda: running.answered > seen + 200)
        # Those whose request it held, at once; nobody later.
        assert len(running.failed) <= 8
        assert all(moment - killed < 2 for moment, _ in running.failed), running.failed
        assert before[1] in replicas(server)
        assert "died: signal SIGKILL; a new one starts now" in server.output


def test_what_a_dead_process_counted_last_is_missing_and_what_an_ended_one_counted_is_not(model):
    with run_server(model, ["--replicas", "1"]) as server:
        for _ in range(10):
            predict(server)
        os.kill(replicas(server)[0], signal.SIGTERM)  # it drains, and says what it has counted
        until(lambda: metric(server, "paceline_replica_restarts_total") == 1)
        assert metric(server, "paceline_requests_total") == 10


def test_one_that_keeps_dying_is_started_ever_later(model):
    with run_server(model, ["--replicas", "1"]) as server:
        for _ in range(3):
            until(lambda: len(replicas(server)) == 1)
            (process,) = replicas(server)
            os.kill(process, signal.SIGKILL)
            until(lambda dead=process: gone(dead))
        until(lambda: "starts in 1 s" in server.output)
        assert "starts now" in server.output
        assert "starts in 0.5 s" in server.output


def test_requests_wait_for_the_next_process_when_there_is_no_other(model):
    with run_server(model, ["--replicas", "1"]) as server:
        os.kill(replicas(server)[0], signal.SIGKILL)
        assert predict(server) == b"[1.0,2.0,3.0]"


def test_no_process_outlives_its_supervisor(model):
    with run_server(model, TWO) as server:
        orphans = replicas(server)
        server.process.kill()
        until(lambda: all(gone(process) for process in orphans))


def test_a_stop_drains_all(model):
    with run_server(model, TWO) as server:
        children = replicas(server)
        assert server.terminate() == 0
        assert all(gone(process) for process in children)


def test_a_stop_closes_the_port_though_something_is_still_answered(model):
    with run_server(model, [*TWO, "--lame-duck-ms", "0"]) as server, Wire(server) as wire:
        wire.send(post(ROW), post(ROW)[:-1])
        wire.response()
        server.process.terminate()
        until(lambda: _is_refused(server))
        assert wire.send(b"]").response().closes
        assert server.process.wait(10) == 0


def _is_refused(server: RunningServer) -> bool:
    try:
        socket.create_connection((server.host, server.port), 1).close()
    except ConnectionRefusedError:
        return True
    return False


def _holder(server: RunningServer, wire: Wire) -> int:
    """The replica that has a connection."""
    port = wire.socket.getsockname()[1]
    fields = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    inode = next(
        each[9] for each in fields if each[1].endswith(f":{server.port:04X}") and each[2].endswith(f":{port:04X}")
    )
    for replica in replicas(server):
        with suppress(OSError):
            links = [os.readlink(link) for link in Path(f"/proc/{replica}/fd").iterdir()]
            if f"socket:[{inode}]" in links:
                return replica
    raise AssertionError("nobody has it")


def test_one_that_is_told_to_stop_is_stood_in_for_while_it_drains(model):
    with run_server(model, [*TWO, "--lame-duck-ms", "0"]) as server, Wire(server) as wire:
        wire.send(post(ROW), post(ROW)[:-1])
        wire.response()
        os.kill(_holder(server, wire), signal.SIGTERM)  # it drains until that request is answered
        assert {predict(server) for _ in range(16)} == {b"[1.0,2.0,3.0]"}
        assert wire.send(b"]").response().status == 200


def test_when_all_die_the_first_to_come_back_answers_for_all(model):
    with run_server(model, TWO) as server:
        for _ in range(5):
            first = replicas(server)[0]
            os.kill(first, signal.SIGKILL)
            until(lambda dead=first: gone(dead))
            until(lambda: len(replicas(server)) == 2 or "starts in 4 s" in server.output, 15)
        for process in replicas(server):
            os.kill(process, signal.SIGKILL)
        asked = time.monotonic()
        assert {predict(server) for _ in range(16)} == {b"[1.0,2.0,3.0]"}
        assert time.monotonic() - asked < 10


def test_an_interrupt_while_it_starts_is_quiet(model):
    with run_server(model, TWO, ready=False) as server:
        server.process.send_signal(signal.SIGHUP)
        for process in (*replicas(server), server.process.pid):
            os.kill(process, signal.SIGINT)
        assert server.process.wait(10) == 0
        assert "Traceback" not in server.output
        assert "Aborted" not in server.output


def test_an_interrupt_of_the_whole_group_is_one_interrupt(model):
    with run_server(model, TWO) as server:
        for process in (server.process.pid, *replicas(server)):
            os.kill(process, signal.SIGINT)
        assert server.process.wait(10) == 0


def test_a_port_that_somebody_has_is_refused(model):
    with socket.create_server(("127.0.0.1", 0)) as owner:
        port = str(owner.getsockname()[1])
        command = [sys.executable, "-m", "paceline", "serve", str(model), "--host", "127.0.0.1", "--port", port, *TWO]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert ended.returncode == 5
    assert f"cannot listen on 127.0.0.1:{port}: the port is already in use" in ended.stderr


def test_two_servers_do_not_share_a_port(model):
    with run_server(model, TWO) as server:
        flags = ["--host", "127.0.0.1", "--port", str(server.port), *TWO]
        command = [sys.executable, "-m", "paceline", "serve", str(model), *flags]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
        assert ended.returncode == 5


def test_of_two_servers_that_start_at_once_one_gets_the_port(model):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", "paceline", "serve", str(model), "--host", "127.0.0.1", "--port", port, *TWO]
    both = [subprocess.Popen(command, stderr=subprocess.DEVNULL) for _ in range(2)]
    try:
        until(lambda: any(server.poll() is not None for server in both), 15)
        until(lambda: _ready(int(port)), 15)
        assert sorted(str(server.poll()) for server in both) == ["5", "None"]
    finally:
        for server in both:
            server.kill()
            server.wait()


def _ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def test_one_that_cannot_come_back_is_stood_in_for_and_comes_back_when_it_can(tmp_path):
    model = models.identity(tmp_path / "echo.onnx")
    with run_server(model, TWO) as server:
        before = replicas(server)
        model.rename(tmp_path / "away.onnx")
        os.kill(before[0], signal.SIGKILL)
        until(lambda: "starts in 1 s" in server.output, 15)  # it has died at its start twice
        assert {predict(server) for _ in range(16)} == {b"[1.0,2.0,3.0]"}
        (tmp_path / "away.onnx").rename(model)
        until(lambda: metric(server, "paceline_replica_up") == 2, 15)
        until(lambda: _watched_listeners(before[1]) == 1)
        assert {predict(server) for _ in range(16)} == {b"[1.0,2.0,3.0]"}


def _watched_listeners(process: int) -> int:
    """How many listening sockets the event loop of a process waits on."""
    of_process = Path(f"/proc/{process}")
    listening = {line.split()[9] for line in Path("/proc/net/tcp").read_text().splitlines() if " 0A " in line}
    watched = [
        line.split()[1]
        for path in (of_process / "fdinfo").iterdir()
        for line in path.read_text().splitlines()
        if line.startswith("tfd:")
    ]
    return sum(os.readlink(of_process / "fd" / number)[len("socket:[") : -1] in listening for number in watched)


def test_a_model_that_cannot_be_loaded_is_said_once(tmp_path):
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    command = [sys.executable, "-m", "paceline", "serve", str(tmp_path / "bad.onnx"), "--port", "0", *TWO]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert ended.returncode == 4
    assert ended.stderr.count("error:") == 1
    assert "cannot be loaded" in ended.stderr


def test_the_second_port_is_shared_too(model):
    with run_server(model, [*TWO, "--grpc-port", "0"]) as server:
        until(lambda: "too (grpc_port" in server.output)
        second = int(server.output.split("live on 127.0.0.1:")[1].split(",")[0])
        on_second = RunningServer(server.process, server.host, second, server.log)
        assert {predict(on_second) for _ in range(16)} == {b"[1.0,2.0,3.0]"}


def test_the_statistics_are_those_of_all(model):
    with run_server(model, TWO) as server:
        for _ in range(40):
            predict(server)
        stats = json.loads(ask(server, get("/v2/models/echo/stats")).body)["model_stats"][0]
        assert stats["inference_count"] == stats["inference_stats"]["success"]["count"] == 40
        assert sum(each["compute_infer"]["count"] for each in stats["batch_stats"]) == stats["execution_count"]
        over_grpc = triton.InferenceServerClient(f"{server.host}:{server.port}").get_inference_statistics("echo")
        assert over_grpc.model_stats[0].inference_count == 40


def test_what_one_is_asked_to_load_all_load(model, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name / "1").mkdir(parents=True)
        shutil.copy(model, tmp_path / name / "1" / "model.onnx")
    with run_server(tmp_path, [*TWO, "--model-control-mode", "explicit", "--load-model", "one"]) as server:
        asked = post(b"", target="/v2/repository/models/two/load")
        assert ask(server, asked).status == 200
        assert {ask(server, get("/v2/models/two/ready")).status for _ in range(16)} == {200}
        assert ask(server, post(b"", target="/v2/repository/models/two/unload")).status == 200
        assert {ask(server, get("/v2/models/two/ready")).status for _ in range(16)} == {404}
        (tmp_path / "bad" / "1").mkdir(parents=True)
        (tmp_path / "bad" / "1" / "model.onnx").write_bytes(b"no model")
        assert ask(server, post(b"", target="/v2/repository/models/bad/load")).status == 400


def test_a_new_process_serves_what_the_others_were_asked_to_load(model, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name / "1").mkdir(parents=True)
        shutil.copy(model, tmp_path / name / "1" / "model.onnx")
    with run_server(tmp_path, [*TWO, "--model-control-mode", "explicit", "--load-model", "one"]) as server:
        assert ask(server, post(b"", target="/v2/repository/models/two/load")).status == 200
        assert ask(server, post(b"", target="/v2/repository/models/one/unload")).status == 200
        os.kill(replicas(server)[0], signal.SIGKILL)
        until(lambda: metric(server, "paceline_replica_restarts_total") == 1)
        until(lambda: metric(server, "paceline_replica_up") == 2)
        assert {ask(server, get("/v2/models/two/ready")).status for _ in range(16)} == {200}
        assert {ask(server, get("/v2/models/one/ready")).status for _ in range(16)} == {404}


def test_a_model_that_is_bad_from_the_start_does_not_make_the_others_less_safe(model, tmp_path):
    (tmp_path / "good" / "1").mkdir(parents=True)
    shutil.copy(model, tmp_path / "good" / "1" / "model.onnx")
    (tmp_path / "bad" / "1").mkdir(parents=True)
    (tmp_path / "bad" / "1" / "model.onnx").write_bytes(b"no model")
    predicted = post(ROW, target="/models/good/predict")
    with run_server(tmp_path, TWO, ready=False) as server:
        until(lambda: "1 of 2 versions ready" in server.output)
        assert ask(server, get("/readyz")).status == 503
        for victim in replicas(server):
            os.kill(victim, signal.SIGKILL)
            until(lambda dead=victim: gone(dead))
            assert {ask(server, predicted).status for _ in range(16)} == {200}
