"""Flask behind gunicorn.

Gunicorn's documentation (https://docs.gunicorn.org/en/stable/design.html) starts with the synchronous worker, which
closes the connection after each answer, and names `gthread` where clients keep theirs. It advises two workers for each
core and one more, because a worker may wait for something; ours only compute, so there is one for each core.
"""

from __future__ import annotations

from benchmarks.peers.model import SERVICES
from benchmarks.peers.peer import Command, Environment, Launch, Setup
from benchmarks.peers.wires import PlainJson

_PINNED = ("flask==3.1.3", "gunicorn==27.0.1")
_ENVIRONMENT = Environment("flask", _PINNED)


def _command(launch: Launch) -> Command:
    flags = ["--bind", f"127.0.0.1:{launch.port}", "--workers", str(launch.workers), "--log-level", "warning"]
    flags += ["--worker-class", "gthread", "--threads", "4", "--chdir", str(SERVICES)]
    return Command([str(launch.python), "-m", "gunicorn", *flags, "on_flask:app"], launch.env)


def _setup(name: str, workers: str, *, one_worker: bool) -> Setup:
    return Setup(
        name=name,
        title=f"Flask + gunicorn, {workers}",
        note=f"{', '.join(_PINNED)}; worker class gthread with 4 threads, for connections that are kept",
        environment=_ENVIRONMENT,
        dialects={"json": PlainJson("/predict")},
        command=_command,
        one_worker=one_worker,
    )


SETUPS = [
    _setup("flask-one", "1 worker", one_worker=True),
    _setup("flask-all", "a worker for each core", one_worker=False),
]
