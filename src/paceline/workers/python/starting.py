"""The command that starts a Python worker."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from paceline.workers.python.arguments import Arguments
from paceline.workers.service import Options, Source
from paceline.workers.worker import PythonCodec, Worker


def start(source: Source, model: str, threads: int, options: Options) -> Worker:
    """Start a worker; it says HELLO once it has imported the code."""
    codec = PythonCodec()
    arenas = [arena.descriptor for arena in codec.arenas]

    def command(reads: int, writes: int) -> Sequence[str]:
        arguments = Arguments(
            path=str(Path(source.path).resolve()),
            name=source.name,
            model=model,
            reads=reads,
            writes=writes,
            arenas=(arenas[0], arenas[1]),
            allow_pickle=options.allow_pickle,
        )
        # -P: what happens to lie in the server's working directory is no library.
        return [options.python, "-P", "-m", "paceline.workers.python", msgspec.json.encode(arguments).decode()]

    return Worker(command, codec, model=model, threads=threads, descriptors=arenas, env=options.env)
