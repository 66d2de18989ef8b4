"""Where do the servers live that Paceline is compared with? Each kind in an environment of its own, versions pinned."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.bench import BenchError, Run, say


def environment(run: Run, name: str, pinned: Sequence[str], *, alone: Sequence[str] = ()) -> Path:
    """The Python of an environment; it is made on the first call, and again when a version changes.

    Args:
        alone: what is installed without its dependencies.
    Raises:
        BenchError: it could not be made.
    """
    folder = (run.folder / name).resolve()
    stamp = folder / "installed.txt"
    python = folder / "bin" / "python"
    wanted = "\n".join([*pinned, *alone])
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    say(f"  making {folder}")
    pip = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    finished([sys.executable, "-m", "venv", "--clear", str(folder)])
    finished([*pip, *pinned])
    if alone:
        finished([*pip, "--no-deps", *alone])
    stamp.write_text(wanted)
    return python


def packages(python: Path) -> dict[str, str]:
    """What is installed beside a Python, with versions."""
    command = [str(python), "-m", "pip", "list", "--format=json", "--disable-pip-version-check"]
    return {each["name"]: each["version"] for each in json.loads(finished(command))}


def finished(command: Sequence[str], env: Mapping[str, str] | None = None) -> str:
    """What a command writes.

    Raises:
        BenchError: it failed; the message ends with what it said.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **(env or {})})
    if done.returncode:
        raise BenchError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return done.stdout
