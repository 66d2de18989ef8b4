"""Which Python runs a service? Ours, or that of an environment with what its requirements ask for.

Rules:
- An environment is made once, before the port opens: by whoever comes first, while the others wait. Later starts find
  it, and a worker that is replaced gets the one that its server has started with, whatever the file says by then.
- One counts as made when its last file is written. What a kill left half-made is made anew.
- Its packages are chosen without a look at Paceline's, and win over them. Paceline's are there as well, for the worker
  needs them; `paceline` itself is always the one that runs.
- pip gets the environment variables of this process: the package index and its secrets are the operator's business.
"""

from __future__ import annotations

import json
import shutil
import sys
import sysconfig
import time
import venv
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from paceline import __version__
from paceline.workers import folders, pip, requirements
from paceline.workers.folders import Say

_MADE: Final = "installed.txt"
_OURS: Final = Path(__file__).parents[1]


@dataclass(frozen=True)
class Environment:
    """A place for the packages of one service.

    Attributes:
        file: its requirements.
        lines: what is asked for.
        folder: of the environment.
    """

    file: Path
    lines: list[str]
    folder: Path

    @property
    def python(self) -> Path:
        """The interpreter."""
        return _python(self.folder)

    @property
    def is_made(self) -> bool:
        """True when it can be used. The interpreter is a link to one that may have gone."""
        return (self.folder / _MADE).exists() and self.python.exists()

    def fill(self, until: float, say: Say, lock: int) -> None:
        """Make it."""
        begun = time.monotonic()
        say(f"installing what {self.file} asks for into {self.folder}, once")
        try:
            # Not made elsewhere and renamed: the first line of a package's script is the path of its interpreter.
            venv.EnvBuilder(clear=True, symlinks=True).create(self.folder)
            packages = _packages(self.folder)
            _link_ours(packages)
            pip.install(self.python, self.file, until, say, lock)
            _show_ours(packages)
            (self.folder / _MADE).write_text("\n".join(self.lines) + "\n")
        except BaseException:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise
        say(f"installed in {time.monotonic() - begun:.1f} s")


def python_for(file: Path, timeout_s: float, say: Say | None = None) -> str | None:
    """The interpreter for a service with these requirements; None: ours will do. Blocks while one is made.

    Args:
        say: told what goes on, line by line; by default written to stderr.

    Raises:
        RuntimeUnavailable: the environment cannot be made.
        ModelLoadError: the requirements cannot be read.
    """
    file = file.resolve()
    lines = requirements.read(file)
    if not lines:
        return None
    places = [Environment(file, lines, folder) for folder in folders.candidates(file.parent, f"env-{_key(lines)}")]
    return str(_python(folders.filled(places, timeout_s, say)))


def _key(lines: list[str]) -> str:
    """Changes with what is asked for, with the interpreter, and with the place of Paceline, which is linked to."""
    return sha256(json.dumps([lines, sys.version, sys.base_prefix, str(_OURS)]).encode()).hexdigest()[:12]


def _python(folder: Path) -> Path:
    return folder / "bin" / "python"


def _packages(folder: Path) -> Path:
    return Path(sysconfig.get_path("purelib", "venv", {"base": str(folder), "platbase": str(folder)}))


def _link_ours(packages: Path) -> None:
    """Let requirements ask for Paceline: it is installed. Without a RECORD pip does not replace it."""
    (packages / "paceline").symlink_to(_OURS)
    facts = packages / f"paceline-{__version__}.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: paceline\nVersion: {__version__}\n")
    (facts / "INSTALLER").write_text("paceline\n")


def _show_ours(packages: Path) -> None:
    """Let the interpreter see our packages, behind its own: also those that are installed by way of a .pth file."""
    ours = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    lines = [f"import site; site.addsitedir({path!r})" for path in ours]
    (packages / "zz_paceline.pth").write_text("\n".join(lines) + "\n")
