"""Which versions of which models are served, and when do they change?

- poll: the folder is looked at again and again; what is new is loaded, what has gone is unloaded.
- explicit: models come and go by request, `load`, `unload` and `reload`.
- none: as it was at the start.

Rules:
- One change at a time. What is on the disk, and what follows from it, is decided in `layout` and `policy`.
- A new version serves before the old one goes, and a bad one changes nothing: it is reported, in one line.
- Half a copy is not loaded: files must have been the same in two looks. A request to load is taken at its word.
- A look that fails says nothing about the models, and changes nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from paceline.config.settings import ServeSettings
from paceline.core.errors import (
    ConfigError,
    InvalidRequest,
    ModelLoadError,
    ModelNotFound,
    ModelNotReady,
    PacelineError,
)
from paceline.engine import layout, policy
from paceline.engine.beside import model_settings, read_version
from paceline.engine.engine import Engine, Entry, Phase
from paceline.engine.layout import ModelFiles
from paceline.engine.loading import Loader, free_memory
from paceline.engine.policy import Tried
from paceline.engine.sources import Source, Sources
from paceline.engine.warmup import Prepared

_NOTHING = ModelFiles(Path())


class IndexRow(NamedTuple):
    """One version in the repository; a model that was never loaded has no version and no state."""

    name: str
    version: str = ""
    state: Phase | None = None
    reason: str = ""


class Asked(NamedTuple):
    """What has been asked for by request: which models to serve, and where they lie if a reload said so."""

    names: Sequence[str]
    sources: Sequence[Source] | None = None


class Repository:
    """The models of a folder.

    Args:
        say: told what has changed, in one line.

    Attributes:
        mode: `poll`, `explicit` or `none`.
        inherit: explicit mode: asks for what another replica was asked for, in place of what the settings say.
    """

    inherit: Callable[[], Awaitable[Asked | None]] | None = None

    def __init__(
        self, root: Path, settings: ServeSettings, engine: Engine, loader: Loader, say: Callable[[str], None]
    ) -> None:
        self.mode = settings.model_control_mode
        self._root = root
        self._settings = settings
        self._engine = engine
        self._loader = loader
        self._say = say
        self._sources = Sources(root, settings)
        self._disk: dict[str, ModelFiles] = {}
        self._asked: set[str] | None = None  # None: all that there are
        self._entries: dict[str, dict[str, Entry]] = {}
        self._tried: dict[str, dict[str, Tried]] = {}
        self._brought: dict[str, ModelFiles] = {}  # what needs no second thought
        self._unloaded: set[tuple[str, str]] = set()  # on request
        self._problems: dict[str, str] = {}
        self._noted: set[tuple[str, str]] = set()
        self._changing = asyncio.Lock()
        self._started = False

    # -- the start --------------------------------------------------------------------------------------------

    async def begin(self) -> list[str]:
        """Look for the first time, and register what will be loaded; the names of all models.

        Raises:
            ModelLoadError: there is nothing to serve.
            ConfigError: several models cannot have one name; models to load are named, and the mode is not explicit.
        """
        if self._settings.load_model is not None and self.mode != "explicit":
            origin = self._settings.origin("load_model")
            raise ConfigError(f"load_model ({origin}): needs model_control_mode explicit, which is {self.mode}")
        self._disk = await asyncio.to_thread(self._sources.look)
        for name, folder in self._sources.settle(self._disk).items():
            self._report(name, f"'{name}': no such folder: {folder}")
        if self.mode == "explicit":
            self._engine.may_be_empty = True
            asked = None if self.inherit is None else await self.inherit()
            if asked is not None and asked.sources is not None:
                self._sources.replace(asked.sources)
                self._disk = await asyncio.to_thread(self._sources.look)
            self._asked = self._to_load_at_start() if asked is None else set(asked.names) & set(self._disk)
        elif not self._disk:
            raise ModelLoadError(f"{self._root}: no model in this folder", hint=self._hint())
        for name in self._to_serve():
            files = self._disk[name]
            settings, _ = await asyncio.to_thread(self._settings_of, name, files)
            for version in policy.wanted(files.versions, settings.version_policy):
                self._entry(name, version)
        return list(self._disk)

    async def start(self) -> None:
        """Load the models of the start, one after the other.

        Raises:
            ModelLoadError: not one could be loaded.
        """
        names = self._to_serve()
        async with self._changing:
            for name in names:
                await self._bring(name, self._disk[name], self._disk[name])
        self._started = True
        if names and all(entry.served is None for entry in self._engine.entries()):
            first = next(iter(self._problems.values()), "") or self._none_wanted()
            raise ModelLoadError(first if len(names) == 1 else f"{self._root}: no model can be loaded: {first}")

    def _hint(self) -> str:
        file = next(iter(sorted(self._root.glob("*.onnx"))), None)
        return "expected NAME/VERSION/model.onnx" if file is None else f"did you mean {file}?"

    def _none_wanted(self) -> str:
        there = [f"{name} {', '.join(sorted(files.versions, key=int))}" for name, files in sorted(self._disk.items())]
        origin = self._settings.origin("version_policy")
        wanted = f"version_policy {self._settings.version_policy} ({origin})"
        return f"{self._root}: {wanted} wants no version that is there: {'; '.join(there)}"

    async def watch(self) -> None:
        """Look again and again, until cancelled."""
        while self.mode != "none":
            await asyncio.sleep(self._settings.repository_poll_s)
            try:
                async with self._changing:
                    await self._look_again()
            except Exception as error:  # of whatever kind: the models serve on, and the next look may be better
                self._report("", f"the repository cannot be read: {error}")
            else:
                self._problems.pop("", None)

    # -- on request -------------------------------------------------------------------------------------------

    def asked(self) -> Asked | None:
        """What has been asked for so far; None where the folder alone decides."""
        return None if self._asked is None else Asked(sorted(self._asked), self._sources.asked())

    def index(self) -> list[IndexRow]:
        """Every version that is there, also those that were never loaded; as of the last look."""
        rows = [IndexRow(e.name, e.version, e.phase, e.reason) for e in self._engine.entries()]
        known = {(row.name, row.version) for row in rows}
        on_disk = {(name, version) for name, files in self._disk.items() for version in files.versions}
        unloaded = (self._unloaded & on_disk) - known
        rows += [IndexRow(name, version, None, "unloaded") for name, version in unloaded]
        known |= unloaded
        for name, files in self._disk.items():
            if not any(name == each for each, _ in known):
                rows.append(IndexRow(name, reason=files.problem))
        return sorted(rows, key=lambda row: (row.name, int(row.version or 0)))

    async def load(self, name: str) -> None:
        """Load a model, or load again what has changed of it; returns when its versions are available.

        Raises:
            ModelNotReady: the mode is not explicit.
            InvalidRequest: there is no such model, or it cannot be loaded.
        """
        asked = self._explicitly()
        async with self._changing:
            self._disk = await asyncio.to_thread(self._sources.look)
            files = self._disk.get(name)
            if files is None:
                raise InvalidRequest(f"failed to load '{name}', failed to poll from model repository")
            asked.add(name)
            problems = await self._bring_again(name, files)
        if problems:
            raise InvalidRequest(f"failed to load '{name}', {'; '.join(problems)}", model=name)

    async def unload(self, name: str) -> None:
        """Take a model out of service; returns at once, while what it began is still finished.

        Raises:
            ModelNotReady: the mode is not explicit.
            ModelNotFound: there is no such model.
        """
        asked = self._explicitly()
        async with self._changing:
            if name not in self._disk and name not in self._entries:
                raise ModelNotFound(f"Request for unknown model: '{name}' is not found", model=name)
            asked.discard(name)
            self._unload(name, list(self._entries.get(name, ())))

    async def reload(self, sources: Sequence[Source]) -> None:
        """Serve these models and no others, as TensorFlow Serving's HandleReloadConfigRequest.

        Raises:
            ModelNotReady: the mode is not explicit.
            InvalidRequest: the list is wrong, and nothing has changed; or a model cannot be loaded, and the others are.
        """
        asked = self._explicitly()
        folders = await asyncio.to_thread(self._sources.check, sources)
        problems = []
        async with self._changing:
            disk = await asyncio.to_thread(layout.look, folders)
            missing = next((name for name in folders if name not in disk), None)
            if missing is not None:
                raise InvalidRequest(f"model {missing}: no such folder: {folders[missing]}", model=missing)
            self._sources.replace(sources)
            self._disk = disk
            asked.clear()
            asked.update(folders)
            for name, files in disk.items():
                problems += await self._bring_again(name, files)
            for name in [name for name in self._entries if name not in folders]:
                self._unload(name, list(self._entries[name]))
        if problems:
            raise InvalidRequest("; ".join(problems))

    def _explicitly(self) -> set[str]:
        if self._asked is None:
            # Triton's words; its clients look for them.
            raise ModelNotReady("explicit model load / unload is not allowed if polling is enabled")
        return self._asked

    # -- looking ----------------------------------------------------------------------------------------------

    async def _look_again(self) -> None:
        before, self._disk = self._disk, await asyncio.to_thread(self._sources.look)
        if self.mode != "poll":
            return
        for name in sorted({*self._disk, *self._entries}):
            now, then = self._disk.get(name, _NOTHING), before.get(name, _NOTHING)
            if now != self._brought.get(name):
                await self._bring(name, now, then)

    def _to_serve(self) -> list[str]:
        return [name for name in self._disk if self._asked is None or name in self._asked]

    def _to_load_at_start(self) -> set[str]:
        asked = self._settings.load_model
        names = set(self._disk) if asked == "*" else set(filter(None, (asked or "").split(",")))
        unknown = sorted(names - set(self._disk))
        if unknown:
            hint = f"there are: {', '.join(sorted(self._disk)) or 'none'}"
            raise ModelLoadError(f"load_model: no model '{unknown[0]}' in {self._root}", hint=hint)
        return names

    # -- changing ---------------------------------------------------------------------------------------------

    async def _bring_again(self, name: str, files: ModelFiles) -> list[str]:
        """`_bring`, on request: without waiting for a second look, and also what has failed before."""
        tried = self._tried.get(name, {})
        served = {version for version, entry in self._entries.get(name, {}).items() if not entry.reason}
        self._tried[name] = {version: each for version, each in tried.items() if version in served}
        return await self._bring(name, files, files)

    async def _bring(self, name: str, now: ModelFiles, then: ModelFiles) -> list[str]:
        """Make what is served of a model what its files and its policy ask for; what went wrong.

        Args:
            now, then: its files in the last two looks.
        """
        if now.unreadable or then.unreadable or (now.problem and not now.versions and name not in self._entries):
            self._brought[name] = now
            return self._report(name, now.problem)
        settings, problem = await asyncio.to_thread(self._settings_of, name, now)
        wanted = policy.wanted(now.versions, settings.version_policy)
        tried = self._tried.setdefault(name, {})
        waiting = policy.to_load(now.versions, wanted, tried)
        ready = [version for version in waiting if policy.settled(then, now, [version])]
        problems = [await self._load(name, version, now, problem) for version in ready]
        if waiting == ready:
            self._label(name, settings)
            # What was there a look ago may be on its way back: a folder is replaced in two steps.
            there = now.versions.keys() | then.versions.keys()
            self._unload(name, policy.to_unload(there, wanted, tried))
            if now.versions.keys() == there:
                self._brought[name] = now
        return [each for each in problems if each]

    async def _load(self, name: str, version: str, files: ModelFiles, problem: str) -> str:
        """Load one version; why it failed, or nothing."""
        entry, started = self._entry(name, version), time.monotonic()
        running = self._running(name, version)
        try:
            if problem:
                raise ModelLoadError(problem)
            notes = await self._open(entry, files, running.served.prepared if running and running.served else None)
        except Exception as error:
            why = _in_one_line(error)
            self._engine.failed(entry, why)
            serves_on = f"; version {running.version} serves on" if running else ""
            self._report(name, f"'{name}' version {version} is not loaded: {why}{serves_on}")
        else:
            why = ""
            self._problems.pop(name, None)
            self._note(name, notes)
            if self._started:  # at the start there is a panel
                again = " again" if running is entry else ""
                self._say(f"'{name}' version {version} is loaded{again}, after {time.monotonic() - started:.2f} s")
        self._tried[name][version] = Tried(files.versions[version].fingerprint, entry.served is not None)
        if why:
            # What failed leaves cycles of errors and frames behind, and the model in them.
            await free_memory()
        return why

    async def _open(self, entry: Entry, files: ModelFiles, like: Prepared | None) -> tuple[str, ...]:
        what, notes = await asyncio.to_thread(read_version, self._settings, entry.name, files, entry.version)
        await self._loader.open(entry, what, like)
        return notes

    def _running(self, name: str, version: str) -> Entry | None:
        """What serves in place of this version now."""
        serving = [entry for entry in self._entries[name].values() if entry.served is not None]
        return max(serving, key=lambda entry: (entry.version == version, int(entry.version)), default=None)

    def _unload(self, name: str, versions: Iterable[str]) -> None:
        entries = self._entries.get(name, {})
        for version in versions:
            entry = entries.pop(version)
            self._tried.get(name, {}).pop(version, None)
            if entry.served is not None:
                self._say(f"'{name}' version {version} is unloaded")
            if self._disk.get(name, _NOTHING).versions.get(version) is not None and self._asked is not None:
                self._unloaded.add((name, version))
            self._loader.unload(entry)
        if not entries:
            self._entries.pop(name, None)
            self._tried.pop(name, None)
            self._brought.pop(name, None)
            self._problems.pop(name, None)

    def _entry(self, name: str, version: str) -> Entry:
        entries = self._entries.setdefault(name, {})
        if version not in entries:
            entry = entries[version] = Entry(name, version)
            self._unloaded.discard((name, version))
            self._engine.add(entry)
        return entries[version]

    def _label(self, name: str, settings: ServeSettings) -> None:
        source = self._sources.get(name)
        given = source.labels if source is not None else None
        self._engine.label(name, policy.labels(settings.labels) if given is None else given)

    # -- reading, on a thread ---------------------------------------------------------------------------------

    def _settings_of(self, name: str, files: ModelFiles) -> tuple[ServeSettings, str]:
        """The settings of a model; without the files beside it, and why, when one of them is wrong."""
        problem = ""
        try:
            settings = model_settings(self._settings, name, files.folder)
        except PacelineError as error:
            settings, problem = self._settings.for_model(name), _in_one_line(error)
        source = self._sources.get(name)
        if source is not None and source.version_policy is not None:
            settings = replace(settings, version_policy=source.version_policy)
        return settings, problem

    def _note(self, name: str, notes: Iterable[str]) -> None:
        """Say what has no effect, once."""
        fresh = [note for note in notes if (name, note) not in self._noted]
        for note in fresh:
            self._noted.add((name, note))
            self._say(f"'{name}': {note}")

    def _report(self, name: str, problem: str) -> list[str]:
        """Say what is wrong, once."""
        if problem and self._problems.get(name) != problem:
            self._problems[name] = problem
            self._say(problem)
        return [problem] if problem else []


def _in_one_line(error: Exception) -> str:
    said = str(error) if isinstance(error, PacelineError) else f"{type(error).__name__}: {error}"
    hint = getattr(error, "hint", None)
    return " ".join(f"{said} (hint: {hint})".split() if hint else said.split())
