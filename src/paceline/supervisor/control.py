"""Where does `paceline restart` find the supervisor, and what does it say to it?

A supervisor listens on a Unix socket named after its port, in a folder that only its user can enter. The client sends
`{"do": "restart", "timeout_s": 300}` and gets documents with a `text` until one has `ok`.
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
from typing import Final

from paceline.core.errors import PacelineError
from paceline.supervisor.lines import Document, Lines

# Once the new processes are ready, the old ones may take some time to leave.
_DRAIN_S: Final = 30.0
_CONNECT_S: Final = 5.0


class RestartFailed(PacelineError):
    """There is no supervisor to ask, or it could not do as asked."""

    code = "restart_failed"


def folders() -> list[Path]:
    """Where a control socket may be, the best place first; a client looks at all of them.

    A server that systemd or cron has started does not have the environment of the user who logs in.
    """
    of_session = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    return [Path(of_session, "paceline"), Path(tempfile.gettempdir(), f"paceline-{os.getuid()}")]


def _is_ours(folder: Path) -> bool:
    """True when nobody else could have put a socket there, who could read and answer what is said."""
    try:
        found = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077


def listen(port: int) -> tuple[socket.socket, Path]:
    """The socket on which the supervisor of `port` is asked.

    Raises:
        RestartFailed: there is no place for it.
    """
    reasons = []
    for folder in folders():
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            if _is_ours(folder):
                return _listening(folder / f"{port}.sock")
            reasons.append(f"{folder}: expected a folder that is yours alone")
        except OSError as error:
            reasons.append(f"{folder}: {error.strerror or error}")
    raise RestartFailed("; ".join(reasons))


def _listening(path: Path) -> tuple[socket.socket, Path]:
    # Under another name until it listens: one that refuses is taken for left behind, and removed.
    new = path.with_suffix(".new")
    new.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(str(new))
        sock.listen(8)
        new.replace(path)  # in the place of one that was killed: the port is ours now
    except OSError:
        sock.close()
        raise
    return sock, path


def restart(port: int | None, timeout_s: float, say: Callable[[str], None]) -> Document:
    """Ask for a restart and wait for its end; the supervisor's last word.

    Args:
        port: of the server; None when there is one only.
        timeout_s: until all new processes must be ready; one that is not is ended, and the old ones stay.
        say: told what happens, line by line.

    Raises:
        RestartFailed: no supervisor, or it could not start the new processes.
    """
    lines = Lines(_connected(port))
    until = time.monotonic() + timeout_s + _DRAIN_S
    lines.send({"do": "restart", "timeout_s": timeout_s})
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
            f"the old processes have not left after {timeout_s:g} s; the restart goes on",
            hint="wait longer with --timeout",
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
    found: dict[int, socket.socket] = {}
    for path in (path for folder in folders() if _is_ours(folder) for path in sorted(folder.glob("*.sock"))):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(_CONNECT_S)
        try:
            sock.connect(str(path))
            if found.setdefault(int(path.stem), sock) is not sock:
                sock.close()
        except ConnectionRefusedError:
            sock.close()
            with suppress(OSError):
                path.unlink()  # left behind by one that was killed
        except (OSError, ValueError):
            sock.close()
    return list(found.items())
