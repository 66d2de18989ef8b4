"""The command that starts an R worker.

Rules:
- R is that of R_HOME, or the first on PATH. No package of R is needed.
- It runs in the folder of the script. An .Rprofile there is read, as `renv` wants it; nobody's own one is.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from paceline.core.errors import ModelLoadError, RuntimeUnavailable
from paceline.workers.frames import About
from paceline.workers.python import bundles
from paceline.workers.r import packages
from paceline.workers.r.codec import FunctionCodec, StudioCodec
from paceline.workers.service import Options, Source
from paceline.workers.worker import Worker

_HOST: Final = Path(__file__).with_name("host")
_FUNCTION: Final = "predict_fn"
_STUDIO: Final = b"maml.map"
# Room for objects before R collects garbage; its own 350k make it stop every hundred calls or so. 20 MB.
_ROOM: Final = {"R_NSIZE": os.environ.get("R_NSIZE", "1M")}


class RWorker(Worker):
    """A worker that runs R."""

    def hello(self, timeout_s: float) -> About:
        about = super().hello(timeout_s)
        if "execute" in about.routes:
            self.codec = StudioCodec()
        return about


def start(source: Source, model: str, threads: int, options: Options, bundle: Path | None = None) -> Worker:
    """Start a worker; it says HELLO once it has evaluated the script.

    Args:
        bundle: the zip of a Studio script, where it is not one that lies beside it.

    Raises:
        RuntimeUnavailable: R is not installed, or a package that the script needs.
        ModelLoadError: the script's bundle cannot be extracted.
    """
    script = source.path.resolve()
    program = [executable(script), *_flags(script)]
    folder = _bundle_folder(script, bundle)
    library = packages.library_for(script.with_name(packages.FILE), program, options.setup_timeout_s)

    def command(reads: int, writes: int) -> Sequence[str]:
        told = [_HOST, reads, writes, script, source.name or _FUNCTION, folder]
        return [
            *packages.launched(script.parent),
            *(*program, f"--file={_HOST / 'host.R'}", "--args", *map(str, told)),
        ]

    env = {**_ROOM, **_utf8(), **_with_library(library), **options.env}
    return RWorker(command, FunctionCodec(options.nonfinite), model=model, threads=threads, env=env, pipes=True)


def executable(script: Path) -> str:
    """The command `R`.

    Raises:
        RuntimeUnavailable: there is none.
    """
    home = os.environ.get("R_HOME")
    found = shutil.which("R", path=f"{home}/bin") if home else shutil.which("R")
    if found is None:
        where = f"in R_HOME ({home})" if home else "on PATH"
        raise RuntimeUnavailable(
            f"{script.name}: there is no R {where}", hint="install it: apt-get install r-base-core (Debian, Ubuntu)"
        )
    return found


def _flags(script: Path) -> list[str]:
    flags = ["--no-echo", "--no-save", "--no-restore"]
    return flags if (script.parent / ".Rprofile").is_file() else [*flags, "--no-init-file"]


def _bundle_folder(script: Path, given: Path | None) -> str:
    """The folder that holds `src`, for a Studio script that has a bundle."""
    try:
        is_studio = _STUDIO in script.read_bytes()
    except OSError as error:
        raise ModelLoadError(f"{script}: cannot be read: {error.strerror}") from None
    archive = bundles.beside(script, given) if is_studio else None
    return "" if archive is None else str(bundles.extract(archive, "src"))


def _with_library(library: str | None) -> dict[str, str]:
    return {} if library is None else {"R_LIBS": os.pathsep.join(filter(None, [library, os.environ.get("R_LIBS")]))}


def _utf8() -> dict[str, str]:
    """R reads and prints text as its locale says; in the C locale everything but ASCII is escaped."""
    chosen = next((os.environ[name] for name in ("LC_ALL", "LC_CTYPE", "LANG") if os.environ.get(name)), "C")
    return {} if "utf" in chosen.lower() else {"LC_ALL": "C.UTF-8"}
