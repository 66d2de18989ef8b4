"""Which set-ups are compared, and how is each started?

Rules:
- All answer the same request on the same path with the same `predict.py`.
- Threads of a process are cores / processes, as a good operator would have it; Paceline decides for itself.
- A command is noted with its environment, so that it can be typed again.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.article.request import PATH, WIDTH
from benchmarks.bench import BenchError, Run
from benchmarks.processes import Server, answers, free_port, paceline_command, started
from paceline.config.machine import usable_cores

SERVED: Final = Path(__file__).with_name("served")
MODEL: Final = "service"

Arguments = Callable[[Path, int], list[str]]


@dataclass(frozen=True)
class SetUp:
    """A way to serve the model.

    Attributes:
        command: from the folder with the code and a port, what to type.
        processes: those that load the model; 0: Paceline decides, and says itself when it is ready.
    """

    key: str
    title: str
    command: Arguments
    processes: int = 0

    @property
    def label(self) -> str:
        """For tables and charts."""
        return f"({self.key}) {self.title}"


def _gunicorn(app: str, *flags: str) -> Arguments:
    def command(code: Path, port: int) -> list[str]:
        bind = ["--chdir", str(code), "--bind", f"127.0.0.1:{port}"]
        return [sys.executable, "-m", "gunicorn", f"{app}:app", *bind, *flags]

    return command


def _paceline(*flags: str) -> Arguments:
    def command(code: Path, port: int) -> list[str]:
        where = ["--host", "127.0.0.1", "--port", str(port)]
        return [*paceline_command(), "serve", str(code / "service.py"), *where, *flags]

    return command


def _tf_serving_line(code: Path, port: int) -> list[str]:
    """The article's command line and file for TensorFlow Serving, read by Paceline."""
    base = code / "models" / MODEL
    (base / "1").mkdir(parents=True, exist_ok=True)
    for name in ("service.py", "predict.py"):
        shutil.copy(code / name, base / "1" / name)
    flags = [f"--model_name={MODEL}", f"--model_base_path={base}", f"--rest_api_port={port}", f"--port={free_port()}"]
    batching = ["--enable_batching", f"--batching_parameters_file={code / 'batching.cfg'}"]
    return [*paceline_command(), "serve", *flags, *batching]


SET_UPS: Final = {
    each.key: each
    for each in (
        SetUp("a", "Flask, gunicorn, 1 worker", _gunicorn("plain"), 1),
        SetUp("b", "Flask, gunicorn, 5 workers", _gunicorn("plain", "--workers=5"), 5),
        # Idle connections live longer than a user thinks.
        SetUp("c", "Flask, queue, 500 ms", _gunicorn("queued", "--threads=20", "--keep-alive=10"), 1),
        SetUp("d", "TF Serving's file, 500 ms", _tf_serving_line),
        SetUp("e", "Paceline as it comes", _paceline()),
        SetUp("e1", "Paceline, --instances 1", _paceline("--instances", "1")),
    )
}
COMPARED: Final = ("a", "b", "c", "d", "e")
"""What the experiment is about; the others are measured when asked for."""


@dataclass(frozen=True)
class Served:
    """A model to measure the set-ups with.

    Attributes:
        model: what `predict.py` is told.
        waits: it takes no processor time, so set-ups do not disturb each other.
        judged: the targets are meant for it.
    """

    key: str
    title: str
    model: Mapping[str, Any]
    waits: bool = True
    judged: bool = True

    def environment(self, run: Run, processes: int, lock: str) -> dict[str, str]:
        """What `predict.py` reads, in a set-up with so many processes."""
        model = dict(self.model)
        if model.get("lock"):
            locks = (run.folder / "devices").resolve()
            locks.mkdir(parents=True, exist_ok=True)
            model["lock"] = str(locks / f"{lock}.lock")
        found = {"ARTICLE_MODEL": json.dumps(model)}
        if processes:
            found["OMP_NUM_THREADS"] = str(max(1, cores() // processes))
        return found


def devices() -> list[Served]:
    """The readings of "300 ms on a GPU that all processes share", the one that fits the article first."""
    return [
        _device("device", "300 ms: 100 on the host, 200 on the device", 0.1, 0.2),
        _device("exclusive", "300 ms, one call at a time", 0.0, 0.3),
        _device("concurrent", "300 ms, any number of calls at once", 0.0, 0.3, shared=False),
    ]


def _device(key: str, title: str, host_s: float, device_s: float, *, shared: bool = True) -> Served:
    lock = "a file of its own for each server" if shared else None
    return Served(key, title, {"kind": "device", "host_s": host_s, "device_s": device_s, "lock": lock})


def cores() -> int:
    """Whole cores that the servers may use."""
    return max(1, int(usable_cores().value))


@contextmanager
def serving(run: Run, set_up: SetUp, served: Served) -> Iterator[Server]:
    """A server with all its processes ready, until the block ends.

    Raises:
        BenchError: it did not become ready.
    """
    port = free_port()
    # Each server has a folder with the code, and a device, of its own.
    code = (run.folder / "code" / str(port)).resolve()
    shutil.rmtree(code, ignore_errors=True)
    shutil.copytree(SERVED, code, ignore=shutil.ignore_patterns("__pycache__"))
    environment = served.environment(run, set_up.processes, str(port))
    command = ["env", *(f"{name}={value}" for name, value in environment.items()), *set_up.command(code, port)]
    with started(run, command, port, ready=_all_loaded(run, set_up)) as server:
        check(server)
        yield server
    shutil.rmtree(code, ignore_errors=True)


def check(server: Server) -> None:
    """Ask for a prediction, as its users will.

    Raises:
        BenchError: it is not one.
    """
    row = [0.0] * WIDTH
    answer, _ = server.post(PATH, json.dumps({"instances": [row]}).encode(), {"content-type": "application/json"})
    if len(json.loads(answer)["predictions"]) != 1:
        raise BenchError(f"expected one prediction, got {answer[:200]!r}")


def _all_loaded(run: Run, set_up: SetUp) -> Callable[[int], bool]:
    """A worker that answers says nothing about the other four: each says on stderr when it has the model."""

    def ready(port: int) -> bool:
        if not set_up.processes:
            return answers("/readyz")(port)
        log = (run.folder / "logs" / f"{port}.log").read_text(errors="replace")
        return log.split().count("loaded") == set_up.processes and answers("/healthz")(port)

    return ready


def instances(server: Server) -> str:
    """What a Paceline says of its instances when it is ready; "" for another server."""
    lines = [line.split(None, 1) for line in server.panel]
    said = {words[0]: " ".join(words[1].split()) for words in lines if len(words) == 2}
    return f"{said['instances']}; threads {said['threads']}" if "instances" in said else ""


def chosen(keys: Sequence[str]) -> list[SetUp]:
    """The set-ups of these letters.

    Raises:
        BenchError: one is unknown.
    """
    unknown = [key for key in keys if key not in SET_UPS]
    if unknown:
        raise BenchError(f"unknown set-up {unknown[0]!r}; there are {', '.join(SET_UPS)}")
    return [SET_UPS[key] for key in keys]
