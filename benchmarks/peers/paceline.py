"""Paceline, as it comes: no flags, and whatever it finds out about the machine and the model."""

from __future__ import annotations

from benchmarks.peers.peer import Command, Environment, Launch, Setup
from benchmarks.peers.wires import OipBinary, OipGrpc, OipJson, PlainJson
from benchmarks.processes import paceline_command


def _command(launch: Launch) -> Command:
    model = launch.model
    source = model.ours if launch.wire == "json" else model.our_tensors or model.ours
    address = ["--host", "127.0.0.1", "--port", str(launch.port)]
    return Command([*paceline_command(), "serve", str(source), *address])


OURS = Setup(
    name="paceline",
    title="Paceline",
    note="no flags",
    environment=Environment("paceline", here=True),
    dialects={"json": PlainJson("/predict"), "oip": OipJson(), "binary": OipBinary(), "grpc": OipGrpc()},
    command=_command,
    languages=("python", "r"),
)
SETUPS = [OURS]
