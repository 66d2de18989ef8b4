"""What a Python worker is told on its command line."""

from __future__ import annotations

import msgspec


class Arguments(msgspec.Struct):
    """One JSON document.

    Attributes:
        path, name: the code, and which of the things in it.
        model: what the service is called.
        reads, writes: descriptors of the channel.
        arenas: descriptors of the shared memory from the server, and to it.
    """

    path: str
    name: str | None
    model: str
    reads: int
    writes: int
    arenas: tuple[int, int]
    allow_pickle: bool = False
