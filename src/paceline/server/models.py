"""What does this server serve: one model file, or the models of a folder? And what does the operator see of it?

Rules:
- `read` comes before the port is opened: what cannot work at all ends the process there.
- `load` warms up while the server is live; `watch` goes on until the end.
"""

from __future__ import annotations

import asyncio
import gc
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from paceline.config.machine import Cores
from paceline.config.settings import ServeSettings
from paceline.core.errors import ConfigError, ModelLoadError, PacelineError, first_line
from paceline.engine import policy
from paceline.engine.engine import Engine, Entry
from paceline.engine.loading import Loader, Read, read
from paceline.engine.repository import Repository
from paceline.engine.warmup import Prepared
from paceline.runtimes import bundle
from paceline.runtimes.formats import is_model_folder
from paceline.server.panel import show_failed, show_models_ready, show_ready, write_models_ready, write_ready
from paceline.workers.service import Source

# Requests leave no cycles behind: collecting a hundred times less often than by default costs no memory.
_GC_THRESHOLD: Final = 70_000
# A thread whose batch is done waits for the interpreter at most this long; by default its core would idle for 5 ms.
_SWITCH_INTERVAL_S: Final = 2e-4
_MOST_NAME: Final = 128


class Models(Protocol):
    """Where the models of a server come from.

    Attributes:
        repository: None where models do not come and go.
    """

    repository: Repository | None

    async def read(self) -> list[str]:
        """Read what can be read before the port is opened; the names of the models.

        Raises:
            ModelLoadError, RuntimeUnavailable, ConfigError: the server cannot start.
        """

    async def load(self) -> None:
        """Bring the models into service.

        Raises:
            ModelLoadError: there is none.
        """

    def show(self, address: str, ready_s: float, as_json: bool) -> None:
        """Show the operator what has been loaded, and with which settings."""

    async def watch(self) -> None:
        """Look after the models until cancelled."""


def models_at(
    path: Path, settings: ServeSettings, engine: Engine, loader: Loader, cores: Cores, say: Callable[[str], None]
) -> Models:
    """The models at a path: one model, or the folder of a repository.

    Args:
        say: told what changes, line by line.
    """
    if not settings.base_paths and not Source.parse(path).path.exists():
        raise ModelLoadError(f"{path}: no such {'model file' if path.suffix else 'file or folder'}")
    # A folder that is named like a model file is for the runtime to refuse.
    is_one = not path.is_dir() or bundle.is_bundle(path) or is_model_folder(path) or path.suffix.lower() == ".onnx"
    if settings.base_paths or not is_one:
        return _Folder(path, settings, engine, loader, cores, say)
    return _File(path, settings, engine, loader, cores)


class _File:
    repository: Repository | None = None

    def __init__(self, path: Path, settings: ServeSettings, engine: Engine, loader: Loader, cores: Cores) -> None:
        self._path = path
        self._name = settings.name or _own_name(path)
        self._settings = settings.for_model(self._name)
        self._engine = engine
        self._loader = loader
        self._cores = cores
        self._read: Read | None = None
        self._prepared: Prepared | None = None
        self._problem: PacelineError | None = None
        settings.check_models([self._name])
        for setting in ("model_control_mode", "load_model"):
            if settings.origin(setting).startswith("flag "):
                raise ConfigError(f"{setting} ({settings.origin(setting)}): {path} is a model file, not a repository")

    async def read(self) -> list[str]:
        self._read = what = await asyncio.to_thread(read, self._path, self._settings, None, self._name)
        self._settings = what.settings
        self._entry = Entry(self._name, "1", what.loaded.platform, what.loaded.signature)
        self._engine.add(self._entry)
        self._engine.label(self._name, policy.labels(self._settings.labels))
        return [self._name]

    async def load(self) -> None:
        what, self._read = self._read, None
        assert what is not None
        try:
            self._prepared = await self._loader.open(self._entry, what)
        except PacelineError as error:
            # Clients may read it: no traceback.
            self._engine.failed(self._entry, first_line(error))
            self._problem = error
            return
        _settle_in()

    def show(self, address: str, ready_s: float, as_json: bool) -> None:
        prepared = self._prepared
        if prepared is None:
            assert self._problem is not None
            show_failed(self._name, self._problem)
            return
        if as_json:
            write_ready(self._entry, prepared, self._cores, address, ready_s, self._settings)
        show_ready(self._entry, prepared, self._cores, address, ready_s, self._settings)

    async def watch(self) -> None:
        """Nothing changes."""


class _Folder:
    def __init__(
        self,
        path: Path,
        settings: ServeSettings,
        engine: Engine,
        loader: Loader,
        cores: Cores,
        say: Callable[[str], None],
    ) -> None:
        self.repository: Repository | None
        self.repository = self._repository = Repository(path, settings, engine, loader, say)
        self._settings = settings
        self._engine = engine
        self._cores = cores

    async def read(self) -> list[str]:
        names = await self._repository.begin()
        self._settings.check_models(names)
        return names

    async def load(self) -> None:
        await self._repository.start()
        _settle_in()

    def show(self, address: str, ready_s: float, as_json: bool) -> None:
        entries = self._engine.entries()
        if as_json:
            write_models_ready(entries, self._cores, address, ready_s, self._settings)
        show_models_ready(entries, self._cores, address, ready_s, self._settings)

    async def watch(self) -> None:
        await self._repository.watch()


def _settle_in() -> None:
    """What lives now lives to the end: keep the collector from walking it again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GC_THRESHOLD)
    sys.setswitchinterval(_SWITCH_INTERVAL_S)


def _own_name(path: Path) -> str:
    return bundle.read(path).name if bundle.is_bundle(path) else name_of(Source.parse(path).path)


def name_of(path: Path) -> str:
    """A model name from a file name: what may not stand in a URL or a metric label becomes a hyphen."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("-._")[:_MOST_NAME] or "model"
