"""Where do the packages of a service lie, and who installs them?

Rules:
- In `.paceline/` beside the service; where that cannot be written, in the user's cache.
- They are installed once: by whoever comes first, while the others wait. Later starts find them.
"""

from __future__ import annotations

import fcntl
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Final, Protocol

from paceline.core.errors import RuntimeUnavailable

_FOLDER: Final = ".paceline"
_POLL_S: Final = 0.05
_SAID_AFTER_S: Final = 1.0

Say = Callable[[str], None]


class Place(Protocol):
    """A folder for the packages of one service.

    Attributes:
        file: what says which they are.
        is_made: they are installed.
    """

    @property
    def file(self) -> Path: ...
    @property
    def folder(self) -> Path: ...
    @property
    def is_made(self) -> bool: ...

    def fill(self, until: float, say: Say, lock: int) -> None:
        """Install them. Blocks.

        Args:
            until: on the monotonic clock.
            lock: a descriptor that whatever installs them keeps open.
        """


def candidates(beside: Path, name: str) -> Iterator[Path]:
    """Where a folder of this name may be, the best place first."""
    yield beside / _FOLDER / name
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if os.path.isabs(cache):
        # What is asked for may name files by their place beside the service.
        place = sha256(os.fsencode(beside)).hexdigest()[:12]
        yield Path(cache) / "paceline" / f"{name}-{place}"


def filled(places: Sequence[Place], timeout_s: float, say: Say | None = None) -> Path:
    """The folder of a place that is made, made first in the best one that can be written to, if need be.

    Args:
        say: told what goes on, line by line; by default written to stderr.

    Raises:
        RuntimeUnavailable: it cannot be made.
    """
    for place in places:
        if place.is_made:
            return place.folder
    say, until, problems = say or _to_stderr, time.monotonic() + timeout_s, []
    for place in places:
        try:
            with _locked(place.folder, until, say) as lock:
                if not place.is_made:  # nobody else has made it meanwhile
                    place.fill(until, say, lock)
                return place.folder
        except OSError as error:
            problems.append(f"{error.filename or place.folder}: {error.strerror or error}")
    raise RuntimeUnavailable(
        f"{places[0].file}: there is no place for an environment: {'; '.join(problems)}",
        hint="make one where the folder can be written, with `paceline setup`; or set XDG_CACHE_HOME to such a folder",
    )


@contextmanager
def _locked(folder: Path, until: float, say: Say) -> Iterator[int]:
    """Hold the right to fill a folder; it ends with this process and what it has started to do so."""
    _ensure(folder.parent)
    lock = os.open(folder.with_name(f"{folder.name}.lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o666)
    try:
        say_at = time.monotonic() + _SAID_AFTER_S
        while not _take(lock):
            if time.monotonic() > until:
                raise RuntimeUnavailable(f"{folder}: another process has been making this environment for too long")
            if time.monotonic() > say_at:
                say(f"another process makes the environment {folder}; waiting for it")
                say_at = until + 1
            time.sleep(_POLL_S)
        yield lock
    finally:
        os.close(lock)


def _ensure(folder: Path) -> None:
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".gitignore").write_text("*\n")


def _take(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _to_stderr(line: str) -> None:
    sys.stderr.write(f"paceline: {line}\n")
    sys.stderr.flush()
