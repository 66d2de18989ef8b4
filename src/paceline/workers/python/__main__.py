"""The worker process for Python code: `python -m paceline.workers.python ARGUMENTS`."""

from __future__ import annotations

import ctypes
import io
import os
import signal
import sys

import msgspec

from paceline.workers.arena import Arena
from paceline.workers.channel import Channel, Closed
from paceline.workers.frames import BadFrame
from paceline.workers.python import descriptors
from paceline.workers.python.arguments import Arguments
from paceline.workers.python.health import Unwell
from paceline.workers.python.host import CannotServe, Host


def main() -> int:
    """Serve until the channel closes; the exit code."""
    # 1 is PR_SET_PDEATHSIG: end with the server, however it ends.
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    arguments = msgspec.json.decode(sys.argv[1], type=Arguments)
    sys.argv[1:] = []
    for stream in (sys.stdout, sys.stderr):
        # What is printed belongs to the log, and a log is read while it grows.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True, errors="backslashreplace")
    reads = _moved(arguments.reads)
    writes = reads if arguments.writes == arguments.reads else _moved(arguments.writes)
    incoming, outgoing = (Arena(_moved(descriptor)) for descriptor in arguments.arenas)
    try:
        Host(arguments, Channel(reads, writes), (incoming, outgoing)).run()
    except Closed:
        return 0
    except (CannotServe, Unwell):
        return 1
    except BadFrame as error:
        sys.stderr.write(f"paceline: {arguments.model}: the worker ends: {error}\n")
        return 1
    return 0


def _moved(descriptor: int) -> int:
    moved = descriptors.copy(descriptor)
    os.close(descriptor)
    return moved


if __name__ == "__main__":
    sys.exit(main())
