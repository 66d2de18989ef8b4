"""What does a peer declare? Where it lives, how it is started, what it can be asked."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from benchmarks.bench import Run
from benchmarks.environments import environment
from benchmarks.peers.model import SERVICES, Model
from benchmarks.peers.wires import Dialect


@dataclass(frozen=True)
class Environment:
    """A virtual environment, with versions pinned; what runs the models has the versions that are here.

    Attributes:
        alone: what is installed without its dependencies.
        shared: packages that run the models.
        here: there is none: the peer runs where this harness runs.
    """

    name: str
    pinned: Sequence[str] = ()
    alone: Sequence[str] = ()
    shared: Sequence[str] = ("numpy", "onnxruntime", "scikit-learn")
    here: bool = False

    def python(self, run: Run, *, here: bool = False) -> Path:
        """Its interpreter; the environment is made when it is not there.

        Raises:
            BenchError: it could not be made.
        """
        if self.here or here:
            return Path(sys.executable)
        shared = [f"{name}=={metadata.version(name)}" for name in self.shared]
        return environment(run, f"venv-{self.name}", [*self.pinned, *shared], alone=self.alone)


@dataclass(frozen=True)
class Launch:
    """One start of a server.

    Attributes:
        python: of the peer's environment.
        workers: processes that run the model.
        threads: that each of them may use.
        folder: for what the peer wants in files.
    """

    run: Run
    python: Path
    model: Model
    wire: str
    port: int
    workers: int
    threads: int
    folder: Path

    @property
    def env(self) -> dict[str, str]:
        """What `services/predictor.py` reads."""
        threads = str(self.threads)
        return {
            "PYTHONPATH": str(SERVICES),
            "MODEL": self.model.source,
            "WORKERS": str(self.workers),
            "THREADS": threads,
            "OMP_NUM_THREADS": threads,
            "OPENBLAS_NUM_THREADS": threads,
        }

    def beside(self, script: str) -> str:
        """A console script of the environment."""
        return str(self.python.parent / script)


@dataclass(frozen=True)
class Command:
    """What is executed, and what is added to the environment."""

    arguments: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Setup:
    """One way to run one server.

    Attributes:
        name: for the command line; the peer's, and what is special.
        title: for the tables.
        note: the versions, and what the documentation advises.
        one_worker: one process even where there are more cores.
        by_name_only: measured when it is asked for by this name, not with its peer.
    """

    name: str
    title: str
    note: str
    environment: Environment
    dialects: Mapping[str, Dialect]
    command: Callable[[Launch], Command]
    languages: Sequence[str] = ("python",)
    one_worker: bool = False
    by_name_only: bool = False

    @property
    def peer(self) -> str:
        """Whose setup it is."""
        return self.name.partition("-")[0]
