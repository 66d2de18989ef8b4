"""How are packages installed into an environment? By the pip that belongs to our Python, run in its Python.

Rules:
- pip sees the packages of the environment alone, and ends when this process does.
- It inherits the lock of the environment: while it lives, nobody else makes that one.
- What it says is passed on in short; when it fails, its last words are the error.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from paceline.core.errors import RuntimeUnavailable
from paceline.workers import installer

# 1 is PR_SET_PDEATHSIG. Once pip is imported, its submodules are found without the path: its packages are not ours.
_BOOT: Final = """\
import ctypes, runpy, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
sys.path.insert(0, sys.argv.pop(1))
import pip
del sys.path[0]
runpy.run_module("pip", run_name="__main__", alter_sys=True)
"""
_FLAGS: Final = ("--disable-pip-version-check", "--no-input", "--progress-bar", "off")
_TOLD: Final = ("Collecting ", "Downloading ", "Processing ", "Building wheel", "Installing collected packages")
_NOISE: Final = ("[notice]", "WARNING: Running pip as")


def install(python: Path, requirements: Path, until: float, say: Callable[[str], None], lock: int) -> None:
    """Install what a file asks for. Blocks.

    Args:
        python: of the environment.
        until: on the monotonic clock; then pip is killed.
        lock: a descriptor that pip keeps open.

    Raises:
        RuntimeUnavailable: it cannot be installed.
    """
    command = [str(python), "-I", "-c", _BOOT, str(_home()), "install", *_FLAGS, "-r", str(requirements)]
    code, last = installer.run(command, until, say, lock, told=_TOLD, noise=_NOISE, folder=requirements.parent)
    if code == -signal.SIGKILL and time.monotonic() >= until:
        raise RuntimeUnavailable(
            f"{requirements}: pip has not installed what it asks for in time; its last words: {''.join(last[-1:])}",
            hint="give it longer with setup_timeout_s",
        )
    if code:
        raise _failed(requirements, last)


def _home() -> Path:
    """The folder, or the wheel, that holds pip. Some environments have none; then Python brings one."""
    spec = find_spec("pip")
    if spec is not None and spec.origin is not None:
        return Path(spec.origin).parents[1]
    for wheel in _bundled():
        return wheel
    raise RuntimeUnavailable(
        "there is no pip to install requirements with",
        hint="python -m ensurepip; on Debian and Ubuntu: apt-get install python3-venv python3-pip",
    )


def _bundled() -> Iterator[Path]:
    spec = find_spec("ensurepip")
    if spec is not None and spec.origin is not None:
        yield from (Path(spec.origin).parent / "_bundled").glob("pip-*.whl")


def _failed(requirements: Path, last: list[str]) -> RuntimeUnavailable:
    # What pip is certain of, if it said so; a build that broke is told of in the lines before.
    said = [line for line in last if line.startswith("ERROR:")] or last
    return RuntimeUnavailable(
        "\n  ".join([f"{requirements}: pip cannot install what it asks for:", *said]),
        hint=f"correct {requirements.name}; if pip cannot reach a package index, configure it as for any pip install",
    )
