"""How does a server start, fail to start, and stop?"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
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
NOBODY = 65534


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return models.identity(tmp_path_factory.mktemp("models") / "echo.onnx")


@pytest.fixture(scope="module")
def server(model) -> Iterator[RunningServer]:
    with run_server(model, ["--access-log", "--warmup-s", "0"]) as running:
        yield running


@contextmanager
def patient_server(folder: Path, *flags: str) -> Iterator[RunningServer]:
    """A server whose requests take as long as the client says: about 10 us for every unit."""
    (folder / "examples.json").write_text("3000")
    fixed = ["--instances", "1", "--threads", "1", "--max-batch-size", "1", "--warmup-s", "0"]
    fixed += ["--examples", str(folder / "examples.json")]
    with run_server(models.patient(folder / "patient.onnx"), [*fixed, *flags]) as running:
        yield running


def refuse_to_start(*arguments: str | Path, **variables: str) -> tuple[int, str]:
    """Exit code and stderr of a `paceline serve` that must end by itself, without ever opening its port."""
    command = [sys.executable, "-m", "paceline", "serve", *map(str, arguments)]
    result = subprocess.run(
        command, capture_output=True, text=True, timeout=30, env={**os.environ, **variables}, check=False
    )
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert "live on" not in result.stderr
    return result.returncode, result.stderr


# -- starting -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_fault_001_missing_model(tmp_path):
    code, said = refuse_to_start(tmp_path / "none.onnx", "--port", "0")
    assert (code, said) == (4, f"error: {tmp_path}/none.onnx: no such model file\n")


@pytest.mark.slow
@pytest.mark.parametrize("spoil", ["empty", "truncated", "text", "flipped", "folder"])
def test_fault_002_corrupt_model(model, tmp_path, spoil):
    good, path = model.read_bytes(), tmp_path / "bad.onnx"
    if spoil == "folder":
        path.mkdir()
    else:
        path.write_bytes(
            {
                "empty": b"",
                "truncated": good[: len(good) // 2],
                "text": b"not a model\n" * 100,
                "flipped": bytes(byte ^ 0x55 for byte in good),
            }[spoil]
        )
    code, said = refuse_to_start(path, "--port", "0")
    assert code == 4
    assert said.startswith(f"error: {path}: ")
    assert len(said.splitlines()) <= 2


@pytest.mark.slow
def test_fault_003_port_in_use_names_the_owner(model):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, said = refuse_to_start(model, "--host", "127.0.0.1", "--port", str(port))
    assert code == 5
    assert f"127.0.0.1:{port}: the port is already in use by process {os.getpid()} (" in said
    assert "\nhint: " in said


@pytest.mark.slow
def test_fault_003_address_of_another_machine(model):
    code, said = refuse_to_start(model, "--port", "0", "--host", "192.0.2.1")
    assert code == 5
    assert "this machine has no such address" in said


@pytest.mark.slow
def test_fault_005_port_that_is_no_number(model):
    assert refuse_to_start(model, PORT="abc")[0] == 3


@pytest.mark.slow
@pytest.mark.parametrize("flag", ["--max-batch-size", "--instances", "--max-body-mb", "--max-connections"])
@pytest.mark.parametrize("value", ["0", "-1", str(10**15)])
def test_fault_006_absurd_counts(model, flag, value):
    code, said = refuse_to_start(model, flag, value)
    assert code == 2
    assert flag in said


@pytest.mark.slow
def test_fault_007_a_python_file_is_not_a_model(tmp_path):
    path = tmp_path / "service.py"
    path.write_text("raise SystemExit(77)\n")
    code, said = refuse_to_start(path, "--port", "0")
    assert code == 4
    assert said.startswith(f"error: {path}: no runtime reads '.py' files\nhint: ")


@pytest.mark.slow
def test_fault_008_live_at_once_ready_when_warm(tmp_path):
    slow = models.slow(tmp_path / "slow.onnx", loops=60_000)
    with run_server(slow, ["--threads", "1", "--warmup-s", "0"], ready=False) as server:
        assert ask(server, get("/livez")).status == 200
        loading = ask(server, get("/readyz"))
        assert (loading.status, loading.body) == (503, b"loading\n")
        assert ask(server, post(b"[" + b"0," * 255 + b"0]")).status == 503
        server.wait_ready()
        assert ask(server, get("/readyz")).status == 200


@pytest.mark.slow
def test_fault_009_a_failed_warm_up_is_never_ready(tmp_path):
    with run_server(models.never_warm(tmp_path / "cold.onnx"), ready=False) as server:
        until(lambda: "is not ready" in server.output)
        assert ask(server, get("/livez")).status == 200
        answer = ask(server, get("/readyz"))
        assert answer.status == 503
        assert b"warm-up failed" in answer.body
        assert ask(server, post(ROW)).status == 503
        assert "hint: " in server.output
        assert server.terminate() == 0


@pytest.mark.slow
def test_fault_010_nobody_without_home_in_a_read_only_folder(model):
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = Path(shutil.copy(model, folder / "echo.onnx"))
        folder.chmod(0o555)
        before = set(os.listdir("/dev/shm")) if Path("/dev/shm").is_dir() else set()
        with _server_of_nobody(path) as server:
            assert ask(server, post(ROW)).body == b"[1.0,2.0,3.0]"
            assert os.stat(f"/proc/{server.process.pid}").st_uid == NOBODY
            assert before == (set(os.listdir("/dev/shm")) if before else set())
            assert server.terminate() == 0
        assert os.listdir(folder) == ["echo.onnx"]


@contextmanager
def _server_of_nobody(path: Path) -> Iterator[RunningServer]:
    # The interpreter may lie where only root can read; reading is all that this capability allows.
    capability = "+dac_read_search"
    become = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--no-new-privs"]
    become += [f"--inh-caps={capability}", f"--ambient-caps={capability}"]
    if shutil.which("setpriv") is None or subprocess.run([*become, "true"], check=False).returncode:
        pytest.skip("setpriv cannot become another user here")
    serve = [sys.executable, "-m", "paceline", "serve", str(path), "--port", "0", "--warmup-s", "0"]
    process = subprocess.Popen(
        [*become, *serve], env=_bare(path.parent), cwd=path.parent, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    try:
        said = iter(process.stderr.readline, "")
        match = next((found for line in said if (found := re.search(r"live on http://(\S+):(\d+)", line))), None)
        assert match is not None
        server = RunningServer(process, match[1], int(match[2]), Path(os.devnull))
        server.wait_ready()
        yield server
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def _bare(folder: Path) -> dict[str, str]:
    kept = {key: os.environ[key] for key in ("PYTHONPATH", "LD_LIBRARY_PATH") if key in os.environ}
    return {"PATH": os.defpath, "TMPDIR": str(folder), **kept}


# -- while it runs --------------------------------------------------------------------------------------------

HOSTILE = [
    "/a%0a{}",
    "/%0d%0aforged",
    "/%1b[31m",
    '/"quoted\\"',
    "/{\xe9}",
    "/\xff\xfe",
    "/%00",
    "/a%e2%80%a8b",
]


@pytest.mark.parametrize("target", HOSTILE)
def test_fault_107_one_request_is_one_line_of_the_access_log(server, target):
    before = len(server.output)
    response = ask(server, get(target, "X-Request-Id: a\tb", "traceparent: \xe9\x9f"))
    ending = f'"status":{response.status}'
    until(lambda: ending in server.output[before:] and server.output.endswith("\n"))
    # The line of an earlier request may come after its answer.
    new = [line for line in server.output[before:].splitlines() if '"/readyz"' not in line]
    line = json.loads(new[0])
    assert len(new) == 1
    assert line["status"] == response.status
    assert line["request_id"] == response.headers["x-request-id"] != "a\tb"
    assert new[0].isascii()
    assert new[0].isprintable()


def test_fault_107_names_in_errors_are_escaped(server):
    response = ask(server, post(ROW, target="/models/a%0ab%22%1b/predict"))
    assert response.status == 404
    json.loads(response.body)
    assert all(byte >= 0x20 for byte in response.body)


@pytest.mark.parametrize(
    "path", ["/debug", "/debug/pprof", "/_debug", "/admin", "/config", "/env", "/trace", "/console", "/server-status"]
)
def test_fault_115_no_debug_endpoints(server, path):
    for method in ("GET", "POST"):
        assert ask(server, get(path, "Content-Length: 0", method=method)).status == 404


@pytest.mark.slow
def test_fault_115_the_models_own_words_only_with_debug(tmp_path):
    model = models.gather(tmp_path / "table.onnx")
    flags = ["--warmup-s", "0"]
    with run_server(model, flags) as quiet, run_server(model, [*flags, "--debug"]) as talkative:
        hidden, shown = ask(quiet, post(b"99")), ask(talkative, post(b"99"))
    assert hidden.status == shown.status == 500
    assert b"Gather" not in hidden.body
    assert b"Gather" in shown.body


# -- stopping -------------------------------------------------------------------------------------------------


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
        assert 0.9 < time.monotonic() - started < 1.5
        assert server.process.wait(2) == 0
        assert time.monotonic() - started < 2


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
        assert time.monotonic() - started < 2


@pytest.mark.slow
@pytest.mark.parametrize("delay_s", [0.0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5])
def test_fault_088_sigterm_at_any_moment_of_the_start(model, delay_s):
    with _process([sys.executable, "-m", "paceline", "serve", str(model), "--port", "0"]) as process:
        until(lambda: process.poll() is not None or _handles_sigterm(process.pid))
        time.sleep(delay_s)  # nothing outside shows how far a start has got
        started = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 0
        assert time.monotonic() - started < 2


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
        assert time.monotonic() - started < 1.5
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
                return answers  # it still stood in the queue of connections to be accepted
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
    flags = ["--warmup-s", "0", "--access-log", "--keep-alive-ms", "600", "--header-timeout-ms", "600"]
    with run_server(model, flags, env=fake) as server, Wire(server) as idle, Wire(server) as half:
        assert idle.send(post(ROW)).response().status == 200
        half.send(b"GET /li")
        clock.write_text(day)
        started = time.monotonic()
        assert ask(server, post(ROW, "X-Request-Timeout-Ms: 500")).status == 200
        assert idle.is_quiet()
        assert half.is_quiet()
        assert half.response().status == 408
        assert idle.rest() == b""
        assert 0.4 < time.monotonic() - started < 2
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
