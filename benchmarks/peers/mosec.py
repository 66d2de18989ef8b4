"""mosec: a Rust server in front of Python workers.

https://mosecorg.github.io/mosec/ advises a worker for each device, `max_batch_size`, and a `max_wait_time` to be tuned:
here the shortest that it takes, 1 ms, for with these models the longer ones only cost. That bodies can be read by
msgspec or as MessagePack is its documentation's, too.
"""

from __future__ import annotations

from functools import partial

from benchmarks.peers.model import SERVICES
from benchmarks.peers.peer import Command, Environment, Launch, Setup
from benchmarks.peers.wires import Dialect, MsgpackTensors, PlainJson

_PINNED = ("mosec==0.9.8", "msgspec==0.22.0", "msgpack==1.1.2")
_ENVIRONMENT = Environment("mosec", _PINNED)
_PATH = "/inference"


def _command(launch: Launch, codec: str, wait_ms: int) -> Command:
    flags = ["--address", "127.0.0.1", "--port", str(launch.port), "--log-level", "warning", "--timeout", "60000"]
    env = {**launch.env, "CODEC": codec, "WAIT_MS": str(wait_ms)}
    return Command([str(launch.python), str(SERVICES / "on_mosec.py"), *flags], env)


def _setup(name: str, title: str, codec: str, *, wait_ms: int = 1, by_name_only: bool = False) -> Setup:
    dialect: tuple[str, Dialect] = ("json", PlainJson(_PATH))
    if codec == "msgpack":
        dialect = ("binary", MsgpackTensors(_PATH))
    return Setup(
        name=name,
        title=title,
        note=f"{_PINNED[0]}; a worker for each core, batches up to 128, longest wait {wait_ms} ms",
        environment=_ENVIRONMENT,
        dialects=dict([dialect]),
        command=partial(_command, codec=codec, wait_ms=wait_ms),
        by_name_only=by_name_only,
    )


SETUPS = [
    _setup("mosec", "mosec", "json"),
    _setup("mosec-msgspec", "mosec with msgspec", "msgspec", by_name_only=True),
    _setup("mosec-10ms", "mosec, longest wait 10 ms", "json", wait_ms=10, by_name_only=True),
    _setup("mosec-msgpack", "mosec with MessagePack", "msgpack", by_name_only=True),
]
