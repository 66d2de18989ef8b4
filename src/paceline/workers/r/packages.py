"""Which packages does a script in R need? Those that `packages.txt` beside it names, one a line.

Rules:
- Missing ones are installed once, before the port opens, into a library of the service's own; it is on R's search path
  before all others. What is installed already is left as it is.
- They come from where R's option `repos` says, which an .Rprofile beside the script may set.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from paceline.core.errors import ModelLoadError, RuntimeUnavailable
from paceline.workers import folders, installer

FILE: Final = "packages.txt"
LAUNCH: Final = Path(__file__).with_name("launch.py")
_INSTALL: Final = Path(__file__).with_name("host") / "install.R"
_MADE: Final = "installed.txt"
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9.]*[A-Za-z0-9]")
_TOLD: Final = ("* installing", "trying URL", "installing ", "* DONE")


@dataclass(frozen=True)
class Library:
    """A folder of R packages for one service.

    Attributes:
        file: what names them.
        names: of the packages.
        command: of R, with its flags.
    """

    file: Path
    names: list[str]
    command: Sequence[str]
    folder: Path

    @property
    def is_made(self) -> bool:
        """True when whatever was missing is there."""
        return (self.folder / _MADE).exists()

    def fill(self, until: float, say: folders.Say, lock: int) -> None:
        """Install what is missing. A package that a kill left half-installed is installed anew."""
        begun = time.monotonic()
        say(f"installing the packages of {self.file} into {self.folder}, once")
        self.folder.mkdir(exist_ok=True)
        command = [*launched(self.file.parent), *self.command]
        command += [f"--file={_INSTALL}", "--args", str(self.folder), *self.names]
        code, last = installer.run(command, until, say, lock, told=_TOLD)
        if code:
            if time.monotonic() >= until:
                last.append("it took too long: setup_timeout_s is over")
            raise RuntimeUnavailable(
                "\n  ".join([f"{self.file}: R cannot install what it asks for:", *last]),
                hint=f"correct {FILE}, or set options(repos = ...) in an .Rprofile beside it",
            )
        (self.folder / _MADE).write_text("\n".join(self.names) + "\n")
        say(f"installed in {time.monotonic() - begun:.1f} s")


def library_for(file: Path, command: Sequence[str], timeout_s: float, say: folders.Say | None = None) -> str | None:
    """The library of a service with this list of packages; None: it has none. Blocks while they are installed.

    Args:
        command: of R, with its flags.

    Raises:
        RuntimeUnavailable: they cannot be installed.
        ModelLoadError: the list cannot be read.
    """
    names = _read(file) if file.exists() else []
    if not names:
        return None
    key = sha256("\n".join([_version(command[0]), *names]).encode()).hexdigest()[:12]
    places = [Library(file, names, command, folder) for folder in folders.candidates(file.parent, f"r-{key}")]
    return str(folders.filled(places, timeout_s, say))


def launched(folder: Path) -> list[str]:
    """What to put before a command that is to run in a folder and to end with this process."""
    return [sys.executable, "-I", "-S", str(LAUNCH), str(folder)]


def _read(file: Path) -> list[str]:
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise ModelLoadError(f"{file}: cannot be read: {why}") from error
    named = [(number, line.partition("#")[0].strip()) for number, line in enumerate(lines, 1)]
    for number, name in named:
        if name and _NAME.fullmatch(name) is None:
            raise ModelLoadError(
                f"{file}:{number}: expected the name of an R package, got {name[:60]!r}",
                hint="one name a line, without a version",
            )
    return list(dict.fromkeys(name for _, name in named if name))


def _version(program: str) -> str:
    """Packages are built for one version of R."""
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False, timeout=30)
    return done.stdout.partition("\n")[0]
