"""The README and the guides, run as a reader would.

Rules, for whoever writes a page:
- A ```console block runs. A line that starts with `$ ` is a command, which goes on after a backslash, inside quotes
  and to the end of a here-document. What follows is its output: compared if there is any, with `...` for anything.
- `$ paceline serve ...` starts a server, which serves the rest of the page or until the next one;
  with a `;` behind it, it is a command like any other, which has to end.
- Where R is not installed, a page ends, skipped, at its first script in R. A page whose Python imports a library that
  is not installed is skipped.
- Ports 8080 and 8500 stand for free ports. `build/digits.onnx` and its example are there, as after `make demo`.
- A ```python block runs, too; one with TensorFlow Serving's client in the environment of `make tfs-client`, where that
  was made (`tests/contract/test_tfs_stubs.py` has the same calls). A ```sh block does not: it needs what a test has
  not, such as a network.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/**/*.md")])
ALL_PAGES = sorted([*PAGES, *ROOT.glob("*.md")])
BLOCK = re.compile(r"^```(console|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PORTS = ("8080", "8500")
TFS_PYTHON = ROOT / ".venv-tfs" / "bin" / "python"
SERVES_R = re.compile(r"paceline serve \S+\.R\b")
LIBRARIES = re.compile(r"^(?:import|from) (catboost|keras|lightgbm|openvino|tensorflow|torch|xgboost)\b", re.MULTILINE)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)#:]+)(?:#([^)]*))?\)")

RUNNABLE = [page for page in PAGES if BLOCK.search(page.read_text())]


class Command(NamedTuple):
    language: str
    text: str
    output: str


def commands(page: Path) -> Iterator[Command]:
    for language, block in BLOCK.findall(page.read_text()):
        if language == "python":
            yield Command(language, block, "")
            continue
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            lines = part.splitlines()
            used = 1
            if "<<'EOF'" in lines[0]:
                used = lines.index("EOF") + 1
            while lines[used - 1].endswith("\\") or "\n".join(lines[:used]).count("'") % 2:
                used += 1
            yield Command(language, "\n".join(lines[:used]), "\n".join(lines[used:]).strip())


class Reader:
    """Somebody who types what a page says."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
        self._server: subprocess.Popen[bytes] | None = None
        self._log = folder / "server.log"
        self._env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("PACELINE_")},
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PACELINE_PORT": self._ports["8080"],
            "XDG_RUNTIME_DIR": str(folder),  # `paceline restart` finds the servers of this page alone
        }

    def type(self, command: Command) -> str:
        """Run a command; what it wrote."""
        text = command.text
        for port, free in self._ports.items():
            text = text.replace(port, free)
        if command.language == "python":
            return self._run_python(text)
        if text.startswith("paceline serve ") and ";" not in text:
            return self._serve(text)
        return self._run(["bash", "-c", text])

    def stop(self) -> None:
        """Stop the server, as Ctrl-C does."""
        if self._server is not None:
            self._server.send_signal(signal.SIGINT)
            server, self._server = self._server, None
            assert server.wait(20) == 0, self._log.read_text()

    def _run_python(self, text: str) -> str:
        if "tensorflow_serving" not in text:
            return self._run([sys.executable, "-c", text])
        return self._run([str(TFS_PYTHON), "-c", text]) if TFS_PYTHON.exists() else ""

    def _run(self, command: list[str]) -> str:
        done = subprocess.run(
            command,
            cwd=self._folder,
            env=self._env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=200,
        )
        assert done.returncode == 0, f"exit code {done.returncode}: {command[-1]}\n{done.stdout}"
        return self._as_written(done.stdout)

    def _serve(self, text: str) -> str:
        self.stop()
        with self._log.open("wb") as log:
            self._server = subprocess.Popen(["bash", "-c", f"exec {text}"], cwd=self._folder, env=self._env, stderr=log)
        until = time.monotonic() + 60
        while "/metrics" not in self._log.read_text():
            assert self._server.poll() is None, self._log.read_text()
            assert time.monotonic() < until, self._log.read_text()
            time.sleep(0.02)
        return self._as_written(self._log.read_text())

    def _as_written(self, text: str) -> str:
        for port, free in self._ports.items():
            text = text.replace(free, port)
        return text


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the demo's model and example."""
    built = ROOT / "build"
    if not (built / "digits.onnx").exists():
        folder = tmp_path_factory.mktemp("demo")
        subprocess.run([sys.executable, ROOT / "examples/digits/train.py"], cwd=folder, check=True, timeout=100)
        built = folder / "build"
    return built


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("page", RUNNABLE, ids=lambda page: page.stem)
def test_the_page_does_what_it_says(page: Path, digits: Path, tmp_path: Path):
    missing = [name for name in LIBRARIES.findall(page.read_text()) if find_spec(name) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)}: not installed")
    (tmp_path / "build").mkdir()
    for name in ("digits.onnx", "digits_example.json"):
        shutil.copy(digits / name, tmp_path / "build")
    reader = Reader(tmp_path)
    try:
        for command in commands(page):
            if SERVES_R.match(command.text) and shutil.which("Rscript") is None:
                pytest.skip("R is not installed: from here on, the page was not run")
            wrote = reader.type(command)
            assert same(command.output, wrote), f"$ {command.text}\nexpected:\n{command.output}\ngot:\n{wrote}"
    finally:
        reader.stop()


@pytest.mark.parametrize("page", ALL_PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path):
    for target, anchor in LINK.findall(page.read_text()):
        linked = page.parent / target
        assert linked.exists(), f"{page.name}: {target}"
        if anchor:
            assert anchor in anchors(linked), f"{page.name}: {target}#{anchor}"


def anchors(page: Path) -> set[str]:
    """What GitHub calls the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def same(expected: str, wrote: str) -> bool:
    """True when `wrote` is `expected`, where `...` is anything and white space counts once."""
    if not expected:
        return True
    pieces = [re.escape(" ".join(piece.split())) for piece in expected.split("...")]
    return re.fullmatch(r"\s?.*\s?".join(pieces), " ".join(wrote.split()), re.DOTALL) is not None


def free_ports(count: int) -> list[str]:
    """Ports that were free a moment ago, all different."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [str(probe.getsockname()[1]) for probe in probes]
