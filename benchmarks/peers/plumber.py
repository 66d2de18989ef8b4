"""plumber, for R: one process, which is how it runs (https://www.rplumber.io/articles/execution-model.html)."""

from __future__ import annotations

import subprocess

from benchmarks.bench import BenchError
from benchmarks.peers.model import SERVICES
from benchmarks.peers.peer import Command, Environment, Launch, Setup
from benchmarks.peers.wires import PlainJson


def _command(launch: Launch) -> Command:
    require_plumber()
    script = str(SERVICES / "mileage_plumber.R")
    return Command(["Rscript", "--vanilla", script, str(SERVICES), str(launch.port)])


def require_plumber() -> None:
    """Raise BenchError where R's library has no plumber."""
    found = subprocess.run(["Rscript", "--vanilla", "-e", "library(plumber)"], capture_output=True, check=False)
    if found.returncode:
        raise BenchError("plumber is not installed (Debian and Ubuntu: apt-get install r-cran-plumber)")


SETUPS = [
    Setup(
        name="plumber",
        title="plumber",
        note="one process, which is how it runs",
        environment=Environment("plumber", here=True),
        dialects={"json": PlainJson("/predict")},
        command=_command,
        languages=("r",),
        one_worker=True,
    )
]
