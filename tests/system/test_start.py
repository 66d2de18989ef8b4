"""How does a server start, or fail to start? And what does it say while it runs?"""

import json
import os
import re
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from paceline.testing import RunningServer, run_server
from support import models
from support.wire import ask, get, post, until

ROW = b"[1,2,3]"
NOBODY = 65534


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return models.identity(tmp_path_factory.mktemp("models") / "echo.onnx")


@pytest.fixture(scope="module")
def server(model) -> Iterator[RunningServer]:
    with run_server(model, ["--access-log", "--warmup-s", "0"]) as running:
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
    code, said = refuse_to_start(tmp_path / "none", "--port", "0")
    assert (code, said) == (4, f"error: {tmp_path}/none: no such file or folder\n")


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
def test_fault_005_settings_for_a_model_that_is_not_served(model, tmp_path):
    path = tmp_path / "p.toml"
    path.write_text("[models.ehco]\nthreads = 1\n")
    code, said = refuse_to_start(model, "--port", "0", "--config", path)
    assert code == 3
    assert said == f"error: models.ehco: no model of this name is served ({path}:2)\nhint: did you mean 'echo'?\n"


@pytest.mark.slow
def test_examples_that_cannot_be_used_end_the_start(model, tmp_path):
    bad = tmp_path / "bad.json"
    code, said = refuse_to_start(model, "--port", "0", "--examples", bad)
    assert (code, said.splitlines()[0]) == (3, f"error: examples: {bad}: no such file or directory")
    bad.write_text('{"other": 1}')
    code, said = refuse_to_start(model, "--port", "0", "--examples", bad)
    assert code == 3
    assert "model" not in said


@pytest.mark.slow
def test_fault_007_code_that_cannot_be_imported_shows_the_users_frames_only(tmp_path):
    path = tmp_path / "service.py"
    path.write_text("import missing_library\n")
    command = [sys.executable, "-m", "paceline", "serve", str(path), "--port", "0"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 4
    assert ended.stderr.startswith("error: service.py: ModuleNotFoundError: No module named 'missing_library'\n")
    assert re.findall(r'File "([^"]+)", line (\d+)', ended.stderr) == [(str(path), "1")]
    assert "live on" not in ended.stderr


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


@pytest.mark.slow
def test_json_is_one_document_on_stdout(model):
    command = [sys.executable, "-m", "paceline", "serve", str(model), "--port", "0", "--warmup-s", "0", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    document = json.loads(process.stdout.readline())
    process.terminate()
    rest, said = process.communicate(timeout=10)
    assert rest == ""
    assert f":{document['url'].rpartition(':')[2]} (host: " in said
    assert document["model"] == "echo"
    assert document["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}]
    assert [output["name"] for output in document["outputs"]] == ["y"]
    assert {"url", "version", "platform", "ready_s"} < set(document)
    assert {"max_batch_size", "instances", "threads"} < set(document["settings"])
    assert all(set(chosen) == {"value", "reason"} for chosen in document["settings"].values())


# -- open files -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_soft_limit_of_open_files_is_raised(model):
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    try:
        with run_server(model, ["--warmup-s", "0", "--max-connections", "400"]) as server:
            assert resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)[0] >= 400
            assert "open files" not in server.output
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.slow
def test_a_hard_limit_of_open_files_below_the_connections_is_said(model):
    serve = [sys.executable, "-m", "paceline", "serve", str(model), "--port", "0", "--warmup-s", "0"]
    process = subprocess.Popen(["sh", "-c", 'ulimit -n 300; exec "$@"', "-", *serve], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    said = [process.stderr.readline() for _ in range(3)]
    process.terminate()
    process.communicate(timeout=10)
    assert "at most 200 connections" in said[1]
    assert "max_connections is 10000 (default)" in said[1]
    assert said[2].startswith("hint: ")


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
    response = ask(server, get(target, "X-Request-Id: a\tb", "traceparent: \xe9\x9f"))
    identity = response.headers["x-request-id"]
    # The line is written behind the answer; those of other requests may stand around it.
    until(lambda: identity in server.output and server.output.endswith("\n"))
    lines = [line for line in server.output.splitlines() if line.startswith("{")]
    (mine,) = [line for line in lines if json.loads(line)["request_id"] == identity]
    assert json.loads(mine)["status"] == response.status
    assert identity != "a\tb"
    assert mine.isascii()
    assert mine.isprintable()
    assert not [line for line in server.output.splitlines() if line.startswith("forged")]


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
