"""Where do the servers live that Paceline is compared with? Each kind in an environment of its own, versions pinned."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
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
    _done([sys.executable, "-m", "venv", "--clear", str(folder)])
    _done([*pip, *pinned])
    if alone:
        _done([*pip, "--no-deps", *alone])
    stamp.write_text(wanted)
    return python


def _done(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(f"{' '.join(command)} failed:\n{done.stderr}")
