"""Where does `paceline restart` find the supervisor, and what does it say to it?

A supervisor listens on a Unix socket named after its port, in a folder that only its user can enter. The client sends
`{"do": "restart"}` and gets documents with a `text` until one has `ok`.
"""

from __future__ import annotations

import os
import socket
import stat
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from paceline.core.errors import PacelineError
from paceline.supervisor.lines import Document, Lines


class RestartFailed(PacelineError):
    """There is no supervisor to ask, or it could not do as asked."""

    code = "restart_failed"


def folder() -> Path:
    """The folder of the control sockets; made when it is not there.

    Raises:
        RestartFailed: it belongs to somebody else, who could read and answer what is said there.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    path = Path(runtime, "paceline") if runtime else Path(tempfile.gettempdir(), f"paceline-{os.getuid()}")
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise RestartFailed(f"{path}: expected a folder that is yours alone", hint="remove it")
    return path


def listen(port: int) -> tuple[socket.socket, Path]:
    """The socket on which the supervisor of `port` is asked."""
    path = folder() / f"{port}.sock"
    path.unlink(missing_ok=True)  # of one that was killed: the port is ours now
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.bind(str(path))
    sock.listen(8)
    return sock, path


def restart(port: int | None, timeout_s: float, say: Callable[[str], None]) -> Document:
    """Ask for a restart and wait for its end; the supervisor's last word.

    Args:
        port: of the server; None when there is one only.
        say: told what happens, line by line.

    Raises:
        RestartFailed: no supervisor, or it could not start the new processes.
    """
    lines = Lines(_connected(port))
    until = time.monotonic() + timeout_s
    lines.send({"do": "restart"})
    try:
        while True:
            lines.wait(max(0.01, until - time.monotonic()))
            documents = lines.receive()
            if documents is None:
                raise RestartFailed("the supervisor ended before the restart did")
            for document in documents:
                if document.get("ok"):
                    return document
                if "ok" in document:
                    raise RestartFailed(document["text"], hint=document.get("hint"))
                say(document["text"])
    except TimeoutError:
        raise RestartFailed(
            f"the restart has not ended after {timeout_s:g} s; it goes on", hint="wait longer with --timeout"
        ) from None
    finally:
        lines.close()


def _connected(port: int | None) -> socket.socket:
    alive = dict(_alive())
    try:
        if not alive:
            raise RestartFailed(
                "no server with a supervisor runs here under this user",
                hint="a server can be restarted when it was started with --replicas (1 or more)",
            )
        if port is None and len(alive) > 1:
            ports = ", ".join(str(each) for each in sorted(alive))
            raise RestartFailed(f"several servers run here, on ports {ports}", hint="name one with --port")
        wanted = next(iter(alive)) if port is None else port
        if wanted not in alive:
            ports = ", ".join(str(each) for each in sorted(alive))
            raise RestartFailed(
                f"no server with a supervisor on port {port}; there are: {ports}",
                hint="a server can be restarted when it was started with --replicas (1 or more)",
            )
        return alive.pop(wanted)
    finally:
        for other in alive.values():
            other.close()


def _alive() -> list[tuple[int, socket.socket]]:
    found = []
    for path in folder().glob("*.sock"):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.connect(str(path))
            found.append((int(path.stem), sock))
        except (OSError, ValueError):
            sock.close()
            with suppress(OSError):
                path.unlink()  # left behind by one that was killed
    return found
