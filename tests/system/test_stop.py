"""How does a server stop? And what does a long or a repeated life leave behind?"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from paceline.testing import RunningServer, run_server
from support import models
from support.wire import NotHttp, Wire, ask, connections, get, metric, post, until

ROW = b"[1,2,3]"


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return models.identity(tmp_path_factory.mktemp("models") / "echo.onnx")


@contextmanager
def patient_server(folder: Path, *flags: str) -> Iterator[RunningServer]:
    """A server whose requests take as long as the client says: about 10 us for every unit."""
    (folder / "examples.json").write_text("3000")
    fixed = ["--instances", "1", "--threads", "1", "--max-batch-size", "1", "--warmup-s", "0"]
    fixed += ["--examples", str(folder / "examples.json")]
    with run_server(models.patient(folder / "patient.onnx"), [*fixed, *flags]) as running:
        yield running


@pytest.mark.slow
def test_fault_082_a_request_under_way_is_served(tmp_path):
    with patient_server(tmp_path, "--grace-ms", "10000") as server, Wire(server) as wire:
        wire.send(post(b"400000"))
        until(lambda: metric(server, "paceline_running_batches") == 1)
        server.process.send_signal(signal.SIGTERM)
        response = wire.response()
        assert (response.status, response.body, response.closes) == (200, b"400000", True)
        assert server.process.wait(2) == 0


@pytest.mark.slow
def test_fault_083_a_request_longer_than_the_grace_time_is_cut_off(tmp_path):
    with patient_server(tmp_path, "--grace-ms", "1000") as server, Wire(server) as wire:
        wire.send(post(b"100000000"))
        until(lambda: metric(server, "paceline_running_batches") == 1)
        started = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert wire.rest() == b""
        assert 0.9 < time.monotonic() - started < 5
        assert server.process.wait(10) == 0
        assert time.monotonic() - started < 10


@pytest.mark.slow
def test_fault_087_two_sigterm_are_still_graceful(tmp_path):
    with patient_server(tmp_path) as server, Wire(server) as wire:
        wire.send(post(b"50000"))
        until(lambda: metric(server, "paceline_running_batches") == 1)
        for _ in range(5):
            server.process.send_signal(signal.SIGTERM)
        assert wire.response().status == 200
        assert server.process.wait(2) == 0


@pytest.mark.slow
def test_fault_087_two_sigint_end_it_at_once(tmp_path):
    with patient_server(tmp_path) as server, Wire(server) as wire:
        wire.send(post(b"100000000"))
        until(lambda: metric(server, "paceline_running_batches") == 1)
        server.process.send_signal(signal.SIGINT)
        until(lambda: not _accepts(server))
        assert server.process.poll() is None
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(1) == 130


@pytest.mark.slow
def test_fault_087_one_sigint_is_graceful(model):
    with run_server(model, ["--warmup-s", "0"]) as server:
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(2) == 0


def _accepts(server: RunningServer) -> bool:
    try:
        Wire(server).socket.close()
    except ConnectionError:
        return False
    return True


@pytest.mark.slow
def test_fault_088_sigterm_while_warming_up(tmp_path):
    slow = models.slow(tmp_path / "slow.onnx", loops=400_000)
    with run_server(slow, ["--threads", "1"], ready=False) as server:
        started = time.monotonic()
        assert server.terminate() == 0
        assert time.monotonic() - started < 5


@pytest.mark.slow
@pytest.mark.parametrize("delay_s", [0.0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5])
def test_fault_088_sigterm_at_any_moment_of_the_start(model, delay_s):
    with _process([sys.executable, "-m", "paceline", "serve", str(model), "--port", "0"]) as process:
        until(lambda: process.poll() is not None or _handles_sigterm(process.pid))
        time.sleep(delay_s)  # nothing outside shows how far a start has got
        started = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert time.monotonic() - started < 5


@contextmanager
def _process(command: Sequence[str], **options) -> Iterator[subprocess.Popen]:
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, **options)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _handles_sigterm(pid: int) -> bool:
    caught = Path(f"/proc/{pid}/status").read_text().partition("SigCgt:")[2].split()[0]
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)


STATES = {
    "idle": b"",
    "idle after an answer": get(),
    "half a head": b"GET /livez HT",
    "half a body": post(ROW)[:-2],
    "half a large body": post(b" " * 100_000)[:-2],
    "unread answers": get("/metrics") * 2000,
    "refused": b"BAD\r\n\r\n",
}


@pytest.mark.slow
@pytest.mark.parametrize("state", STATES)
def test_sigterm_with_connections_in_every_state(model, state):
    with (
        run_server(model, ["--warmup-s", "0", "--grace-ms", "300"]) as server,
        connections(server, 3) as wires,
    ):
        for wire in wires:
            wire.send(STATES[state])
        started = time.monotonic()
        assert server.terminate() == 0
        assert time.monotonic() - started < 5
        assert "Traceback" not in server.output


@pytest.mark.slow
def test_the_lame_duck_is_not_ready_and_serves(model):
    with run_server(model, ["--warmup-s", "0", "--lame-duck-ms", "700"]) as server, Wire(server) as kept:
        assert kept.send(get()).response().status == 200
        server.process.send_signal(signal.SIGTERM)
        until(lambda: ask(server, get("/readyz")).status == 503)
        assert ask(server, get("/readyz")).body == b"draining\n"
        assert ask(server, get("/livez")).status == 200
        answer = kept.send(post(ROW)).response()
        assert (answer.status, answer.closes) == (200, True)
        assert server.process.wait(3) == 0


@pytest.mark.slow
def test_no_request_is_lost_by_a_stop_under_load(model):
    """A connection is told before it is closed; only one that has never been served may be turned away."""
    flags = ["--warmup-s", "0", "--lame-duck-ms", "200"]
    with run_server(model, flags) as server, ThreadPoolExecutor(8) as pool:
        clients = [pool.submit(_ask_until_refused, server) for _ in range(8)]
        until(lambda: metric(server, "paceline_rows_total") > 200)
        assert server.terminate() == 0
        assert sum(client.result() for client in clients) > 200


def _ask_until_refused(server: RunningServer) -> int:
    answers = 0
    while True:
        try:
            wire = Wire(server)
        except ConnectionError:
            return answers
        with wire:
            try:
                answer = wire.send(post(ROW)).response()
            except (ConnectionError, NotHttp):
                # It still stood in the queue of connections to be accepted, which went with the listener.
                assert not _accepts(server), "a new connection was turned away by a server that accepts others"
                return answers
            while not answer.closes:
                answer = wire.send(post(ROW)).response()
                assert answer.body == b"[1.0,2.0,3.0]"
                answers += 1


# -- time, and many lives -------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("day", ["+86400", "-86400"])
def test_fault_126_a_wall_clock_that_jumps_a_day(model, tmp_path, day):
    """Timeouts are measured on the monotonic clock: neither do they fire early nor do they stop."""
    library = next(Path("/usr/lib").glob("**/faketime/libfaketime.so.1"), None)
    if library is None:
        pytest.skip("libfaketime is not installed (apt-get install faketime)")
    clock = tmp_path / "clock"
    clock.write_text("+0")
    fake = {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }
    flags = ["--warmup-s", "0", "--access-log", "--keep-alive-ms", "3000", "--header-timeout-ms", "3000"]
    with run_server(model, flags, env=fake) as server, Wire(server) as idle, Wire(server) as half:
        assert idle.send(post(ROW)).response().status == 200
        half.send(b"GET /li")
        clock.write_text(day)
        started = time.monotonic()
        assert ask(server, post(ROW, "X-Request-Timeout-Ms: 5000")).status == 200
        assert idle.is_quiet()
        assert half.is_quiet()
        assert half.response().status == 408
        assert idle.rest() == b""
        assert 2 < time.monotonic() - started < 20
        times = [json.loads(line)["time"] for line in server.output.splitlines() if line.startswith("{")]
        assert max(times) - min(times) > 80_000, "the clock was not moved"
        assert server.terminate() == 0


@pytest.mark.parametrize("cycles", [5, pytest.param(100, marks=[pytest.mark.slow, pytest.mark.timeout(600)])])
def test_fault_128_starts_and_stops_leave_nothing_behind(model, tmp_path, cycles):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "paceline", "serve", str(model), "--port", str(port), "--warmup-s", "0"]
    shared = _names("/dev/shm")
    for _ in range(cycles):
        options = {"env": {**os.environ, "TMPDIR": str(tmp_path)}, "cwd": tmp_path, "start_new_session": True}
        with _process(command, **options) as process:
            server = RunningServer(process, "127.0.0.1", port, Path(os.devnull))
            until(lambda server=server: _is_live(server))
            process.send_signal(signal.SIGTERM)
            assert process.wait(5) == 0
            with pytest.raises(ProcessLookupError):
                os.killpg(process.pid, 0)
    assert _names(tmp_path) == set()
    assert _names("/dev/shm") == shared


def _is_live(server: RunningServer) -> bool:
    try:
        return ask(server, get("/livez")).status == 200
    except ConnectionError:
        return False


def _names(folder: Path | str) -> set[str]:
    return set(os.listdir(folder)) if os.path.isdir(folder) else set()
