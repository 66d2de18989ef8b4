"""Are the requirements of a service there, once, its own, and never installed while somebody waits for an answer?"""

import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from paceline.testing import run_server
from support import packages
from support.wire import until

pytestmark = pytest.mark.slow

CODE = """\
import os
import sys

import greeting


def predict(batch):
    return [{"says": greeting.TEXT, "python": sys.executable, "pid": os.getpid()} for _ in batch]
"""


@pytest.fixture
def service(tmp_path) -> Path:
    """A service that needs a package which nobody has."""
    packages.wheel(tmp_path / "wheels", "greeting", "1.0", "TEXT = 'hello'\n")
    packages.wheel(tmp_path / "wheels", "greeting", "2.0", "TEXT = 'good day'\n")
    folder = tmp_path / "service"
    folder.mkdir()
    (folder / "service.py").write_text(CODE)
    require(folder, "greeting==1.0")
    return folder / "service.py"


def require(folder: Path, *lines: str, source: str = "--no-index\n--find-links ../wheels") -> None:
    (folder / "requirements.txt").write_text("\n".join([source, *lines]) + "\n")


def ask(server) -> dict:
    request = urllib.request.Request(server.url + "/predict", b"1", {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as response:
        return json.load(response)


def answered(server) -> dict:
    """What it answers, or nothing while the only worker is away."""
    try:
        return ask(server)
    except urllib.error.HTTPError:
        return {}


def start(*arguments: object, **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "paceline", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **variables},
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=60)
    assert "Traceback" not in err
    return process.returncode, out, err


def set_up(path: Path, *flags: str, **variables: str) -> tuple[int, str, str]:
    return finish(start("setup", path, *flags, **variables))


def environments(folder: Path) -> list[Path]:
    return [path for path in folder.glob(".paceline/env-*") if path.is_dir()]


def test_requirements_are_installed_once_beside_the_service(service):
    with run_server(service) as server:
        first = ask(server)
        assert first["says"] == "hello"
        said = server.output
        assert said.index("installing what") < said.index("installed in") < said.index("live on")
    (made,) = environments(service.parent)
    assert Path(first["python"]).is_relative_to(made)
    written = (made / "installed.txt").stat()
    with run_server(service) as server:
        assert ask(server)["says"] == "hello"
        assert "install" not in server.output
    assert environments(service.parent) == [made]
    assert (made / "installed.txt").stat() == written


def test_other_requirements_are_another_environment(service):
    set_up(service)
    require(service.parent, "# a comment asks for nothing", "greeting==1.0  # the first")
    assert "installing" not in set_up(service)[2]
    (service.parent / "more.txt").write_text("greeting==2.0\n")
    require(service.parent, "-r more.txt")
    with run_server(service) as server:
        assert ask(server)["says"] == "good day"
    (service.parent / "more.txt").write_text("greeting<2\n")
    with run_server(service) as server:
        assert ask(server)["says"] == "hello"
    assert len(environments(service.parent)) == 3


def test_without_requirements_there_is_no_environment(service):
    service.write_text("def predict(batch):\n    return batch\n")
    (service.parent / "requirements.txt").write_text("# nothing yet\n")
    code, out, _ = set_up(service, "--json")
    assert (code, json.loads(out)["python"]) == (0, sys.executable)
    assert not (service.parent / ".paceline").exists()


def test_the_packages_of_a_service_win_over_ours_and_ours_are_there(service):
    import msgspec

    packages.wheel(service.parents[1] / "wheels", "flatbuffers", "99.0", "")  # we have another one
    require(service.parent, "flatbuffers")
    service.write_text(
        "import importlib.metadata, flatbuffers, msgspec, paceline\n"
        "def predict(batch):\n"
        "    version = importlib.metadata.version('flatbuffers')\n"
        "    return [[version, flatbuffers.__file__, msgspec.__file__] for _ in batch]\n"
    )
    with run_server(service) as server:
        version, theirs, ours = ask(server)
    assert version == "99.0"
    assert Path(theirs).is_relative_to(service.parent)
    assert ours == msgspec.__file__


def test_a_service_may_require_paceline_which_is_the_one_that_runs(service):
    import paceline

    require(service.parent, f"paceline=={paceline.__version__}", "greeting==1.0")
    with run_server(service) as server:
        assert ask(server)["says"] == "hello"
    packages.wheel(service.parents[1] / "wheels", "paceline", "99.0", "")
    require(service.parent, "paceline>=99")
    code, _, err = set_up(service)
    assert code == 4
    assert "pip cannot install what it asks for" in err


def test_what_pip_cannot_install_ends_the_start_with_its_last_words(service):
    require(service.parent, "greeting==3.0")
    code, out, err = finish(start("serve", service, "--port", "0"))
    assert (code, out) == (4, "")
    assert "live on" not in err
    assert f"error: {service.parent}/requirements.txt: pip cannot install what it asks for:" in err
    assert "No matching distribution found for greeting==3.0" in err
    assert "\nhint: correct requirements.txt" in err
    assert environments(service.parent) == []
    require(service.parent, "greeting==2.0")
    assert set_up(service)[0] == 0


def test_an_installation_takes_too_long(service):
    with packages.index(service.parents[1] / "wheels") as index:
        index.opened.clear()
        require(service.parent, "greeting", source=f"--index-url {index.url}")
        code, _, err = set_up(service, PACELINE_SETUP_TIMEOUT_S="2")
    assert code == 4
    assert "pip has not installed what it asks for in time" in err
    assert "hint: give it longer with setup_timeout_s" in err
    assert environments(service.parent) == []


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_set_up_that_is_killed_leaves_nothing_half_made(service, how):
    with packages.index(service.parents[1] / "wheels") as index:
        require(service.parent, "greeting==2.0", source=f"--index-url {index.url}")
        index.opened.clear()
        killed = start("serve", service, "--port", "0")
        assert index.waiting.wait(20)
        killed.send_signal(how)
        killed.communicate(timeout=20)
        assert index.left.wait(20), "pip outlives whoever asked for it"
        index.opened.set()
        with run_server(service) as server:
            assert ask(server)["says"] == "good day"
            assert "installed in" in server.output


def test_of_several_that_start_at_once_one_installs(service):
    with packages.index(service.parents[1] / "wheels") as index:
        require(service.parent, "greeting==2.0", source=f"--index-url {index.url}")
        index.opened.clear()
        starting = [start("setup", service) for _ in range(3)]
        assert index.waiting.wait(20)
        waiting = [process for process in starting if "waiting for it" in process.stderr.readline()]
        index.opened.set()
        assert len(waiting) == 2
        assert [finish(process)[0] for process in starting] == [0, 0, 0]
        assert index.asked == ["/simple/greeting/", "/files/greeting-2.0-py3-none-any.whl"]


def test_where_the_folder_cannot_be_written_the_cache_has_it(service, tmp_path):
    (service.parent / ".paceline").write_text("no folder, so that not even root can write there\n")
    with run_server(service, env={"XDG_CACHE_HOME": str(tmp_path / "cache")}) as server:
        assert Path(ask(server)["python"]).is_relative_to(tmp_path / "cache" / "paceline")
    code, _, err = set_up(service, XDG_CACHE_HOME=str(service / "impossible"))
    assert code == 4
    assert "there is no place for an environment" in err
    assert "hint: make one where the folder can be written" in err


def test_a_worker_that_is_replaced_installs_nothing(service):
    with run_server(service, ["--instances", "1"]) as server:
        first = ask(server)
        require(service.parent, "greeting==2.0")
        os.kill(first["pid"], signal.SIGKILL)
        until(lambda: answered(server).get("pid") not in (None, first["pid"]))
        assert ask(server)["says"] == "hello"
        assert server.output.count("installing what") == 1


def test_a_new_version_is_set_up_while_the_old_one_serves(service, tmp_path):
    first = tmp_path / "models" / "greeter" / "1"
    second = first.with_name("2")
    shutil.copytree(service.parent, first)
    wheels = f"--no-index\n--find-links {tmp_path}/wheels"
    require(first, "greeting==1.0", source=wheels)
    with packages.index(tmp_path / "wheels") as index, run_server(tmp_path / "models") as server:
        assert ask(server)["says"] == "hello"
        shutil.copytree(service.parent, tmp_path / "next")
        require(tmp_path / "next", "greeting==2.0", source=f"--index-url {index.url}")
        index.opened.clear()
        (tmp_path / "next").rename(second)
        assert index.waiting.wait(20)
        assert ask(server)["says"] == "hello"
        index.opened.set()
        until(lambda: ask(server)["says"] == "good day", 20)
        assert server.output.count("installing what") == 2  # what is installed is no change of a version


def test_an_environment_whose_interpreter_is_gone_is_made_anew(service):
    set_up(service)
    (made,) = environments(service.parent)
    (made / "bin" / "python").unlink()
    assert "installed in" in set_up(service)[2]
    assert environments(service.parent) == [made]


def test_setup_takes_services_alone(tmp_path):
    code, out, err = set_up(tmp_path / "model.onnx")
    assert (code, out) == (3, "")
    assert (
        err == f"error: {tmp_path}/model.onnx: not a service\nhint: a service is service.py, model.R or pipeline.toml\n"
    )
