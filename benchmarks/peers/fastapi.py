"""FastAPI on uvicorn.

https://fastapi.tiangolo.com/deployment/server-workers/: `--workers`, one for each core. https://fastapi.tiangolo.com/async/:
`def` for what blocks, which gets a thread; `async def` for what does not, as a model of microseconds. uvicorn's own
documentation (https://www.uvicorn.org/settings/) has uvloop and httptools for speed; the access log is off.
"""

from __future__ import annotations

from benchmarks.peers.model import SERVICES
from benchmarks.peers.peer import Command, Environment, Launch, Setup
from benchmarks.peers.wires import PlainJson

_PINNED = ("fastapi==0.165.0", "uvicorn==0.54.0", "uvloop==0.23.0", "httptools==0.9.0")
_ENVIRONMENT = Environment("fastapi", _PINNED)


def _command(launch: Launch) -> Command:
    flags = ["--app-dir", str(SERVICES), "--port", str(launch.port), "--workers", str(launch.workers)]
    flags += ["--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"]
    env = {**launch.env, "ITEM": launch.model.item_type, "SHORT": str(int(launch.model.short))}
    return Command([str(launch.python), "-m", "uvicorn", "on_fastapi:app", *flags], env)


def _setup(name: str, workers: str, *, one_worker: bool) -> Setup:
    return Setup(
        name=name,
        title=f"FastAPI + uvicorn, {workers}",
        note=f"{', '.join(_PINNED)}; bodies and answers typed, no access log",
        environment=_ENVIRONMENT,
        dialects={"json": PlainJson("/predict")},
        command=_command,
        one_worker=one_worker,
    )


SETUPS = [
    _setup("fastapi-one", "1 worker", one_worker=True),
    _setup("fastapi-all", "a worker for each core", one_worker=False),
]
