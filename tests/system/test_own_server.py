"""How does a load test start a server of its own, and what is left of it afterwards?"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from textwrap import dedent

import pytest

from paceline.core.errors import AddressUnavailable, ConfigError, ModelLoadError, UnsafeModel
from paceline.loadtest.own_server import started
from support import models
from support.services import write
from support.wire import until

pytestmark = pytest.mark.slow

SERVICE = "import os\ndef predict(batch): return [os.getpid() for _ in batch]\ndef example(): return {'x': 1}"


def pid_of_worker(url: str) -> int:
    request = urllib.request.Request(f"{url}/predict", b"1", {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as response:
        return int(response.read())


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def test_it_serves_while_the_block_lasts_and_leaves_nothing(tmp_path: Path):
    path, said = write(tmp_path, service_py=SERVICE) / "service.py", []
    with started(path, ["--instances", "1"], say=said.append) as url:
        worker = pid_of_worker(url)
        assert is_there(worker)
    assert said[0] == f"starting paceline serve {path} --instances 1"
    assert said[1].startswith("ready after ")
    assert len(said) == 2
    until(lambda: not is_there(worker))


def test_a_class_of_a_file_and_a_repository_are_served_too(tmp_path: Path):
    code = "class Two:\n    def predict(self, batch): return [2] * len(batch)\n    def example(self): return 1"
    write(tmp_path / "code", service_py=code)
    (tmp_path / "repository" / "m" / "1").mkdir(parents=True)
    models.identity(tmp_path / "repository" / "m" / "1" / "model.onnx")
    for served in (f"{tmp_path / 'code' / 'service.py'}:Two", tmp_path / "repository"):
        with started(served) as url, urllib.request.urlopen(f"{url}/readyz", timeout=10) as response:
            assert response.status == 200


@pytest.mark.parametrize("how", ["nothing", "code", "flag", "port", "pickle"])
def test_what_serve_says_is_the_error(tmp_path: Path, how: str):
    service = write(tmp_path, service_py=SERVICE, broken_py="import no_such_module\ndef predict(batch): pass")
    (tmp_path / "model.pkl").write_bytes(b"\x80\x04N.")
    kind, arguments, message = {
        "nothing": (ModelLoadError, ("none.py",), "none.py: no such model file"),
        "code": (ModelLoadError, ("broken.py",), "no_such_module"),
        "flag": (ConfigError, ("service.py", "--no-such-flag"), "No such option"),
        "port": (AddressUnavailable, ("service.py", "--host", "192.0.2.1"), "cannot listen on 192.0.2.1"),
        "pickle": (UnsafeModel, ("model.pkl",), "model.pkl"),
    }[how]
    with pytest.raises(kind) as error, started(service / arguments[0], arguments[1:]):
        raise AssertionError("it was started")
    assert message in error.value.message
    assert "/paceline/" not in error.value.message, "a traceback shows their code, and not ours"


def test_where_the_code_is_wrong_is_in_the_error(tmp_path: Path):
    service = write(tmp_path, service_py="def setup(): pass\ndef predict(batch)\n    return batch") / "service.py"
    with pytest.raises(ModelLoadError, match="SyntaxError") as error, started(service):
        raise AssertionError("it was started")
    assert f'File "{service}", line 2' in error.value.message


def test_a_model_that_never_becomes_ready_is_an_error(tmp_path: Path):
    path = models.never_warm(tmp_path / "never.onnx")
    with pytest.raises(ModelLoadError, match=r"'never' is not ready: warm-up failed"), started(path):
        raise AssertionError("it was started")


def test_readiness_has_a_deadline(tmp_path: Path):
    path = write(tmp_path, service_py="import time\ntime.sleep(60)\n" + SERVICE) / "service.py"
    with pytest.raises(ModelLoadError, match="is not ready in time"), started(path, ready_s=0.2):
        raise AssertionError("it was started")


def test_a_server_that_does_not_live_to_the_end_is_told(tmp_path: Path):
    path, said = write(tmp_path, service_py=SERVICE) / "service.py", []
    with started(path, say=said.append) as url:
        server = _parent_of(pid_of_worker(url))
        os.kill(server, signal.SIGKILL)
        until(lambda: not is_there(server))
    assert said[-1].startswith(f"paceline serve {path} ended with exit code -9")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_it_ends_with_whoever_started_it(tmp_path: Path, number: signal.Signals):
    service = write(tmp_path, service_py=SERVICE) / "service.py"
    code = f"""
        import signal
        from paceline.loadtest.own_server import started
        with started({str(service)!r}) as url:
            print(url, flush=True)
            signal.pause()
    """
    process = subprocess.Popen(
        [sys.executable, "-c", dedent(code)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    with process:
        assert process.stdout is not None
        worker = pid_of_worker(process.stdout.readline().strip())
        server = _parent_of(worker)
        process.send_signal(number)
        process.wait(30)
    until(lambda: not is_there(worker) and not is_there(server))


def _parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
