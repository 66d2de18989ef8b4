"""Which servers are there, and what does a name on the command line mean?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.peers import bentoml, fastapi, flask, litserve, mlserver, mosec, paceline, plumber, ray, triton
from benchmarks.peers.paceline import OURS
from benchmarks.peers.peer import Setup

_PEERS = (paceline, flask, fastapi, mosec, litserve, bentoml, ray, mlserver, triton, plumber)

SETUPS: Mapping[str, Setup] = {setup.name: setup for peer in _PEERS for setup in peer.SETUPS}
"""Every way to run a server, by name, in the order of the tables."""


def chosen(names: Sequence[str]) -> list[Setup]:
    """The setups of these names, and ours; a peer's name stands for all of its setups, no name for all peers.

    Raises:
        KeyError: there is none of this name.
    """
    known = {setup.peer for setup in SETUPS.values()} | set(SETUPS)
    for name in names:
        if name not in known:
            raise KeyError(f"unknown peer {name!r}; there are {', '.join(sorted(known))}")
    usual = [setup for setup in SETUPS.values() if not setup.by_name_only]
    wanted = {setup.name for setup in usual if not names or setup.peer in names} | set(names)
    return [setup for setup in SETUPS.values() if setup is OURS or setup.name in wanted]
