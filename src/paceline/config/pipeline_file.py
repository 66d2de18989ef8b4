"""What does `pipeline.toml` say?

    share_globals = false

    [[modules]]
    name = "clean"            # the script's name without its suffix, where it is left out
    script = "clean.py"
    bundle = "helpers.zip"    # optional

Rules:
- Paths are relative to the file. A script and a bundle that are not there are found at start.
- An unknown key is an error, with a suggestion.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from paceline.config.setting import shown
from paceline.config.toml_file import KeyPath, TomlFile, read_toml
from paceline.core.errors import ConfigError

_TOP: Final = ("share_globals", "modules")
_MODULE: Final = ("name", "script", "bundle")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
_SUFFIXES: Final = (".py", ".r")
_MOST_MODULES: Final = 32


@dataclass(frozen=True)
class ModuleEntry:
    """One module.

    Attributes:
        place: where the file speaks of it.
    """

    name: str
    script: Path
    bundle: Path | None
    place: str

    @property
    def is_r(self) -> bool:
        """True for R, False for Python."""
        return self.script.suffix.lower() == ".r"


@dataclass(frozen=True)
class PipelineFile:
    """The modules, in the order in which data passes through them."""

    path: Path
    modules: tuple[ModuleEntry, ...]
    share_globals: bool = False

    def only(self, name: str | None) -> PipelineFile:
        """The pipeline, or one module of it.

        Raises:
            ConfigError: it has no such module.
        """
        if name is None:
            return self
        chosen = tuple(module for module in self.modules if module.name == name)
        if not chosen:
            raise ConfigError(
                f"{self.path}: there is no module {name!r}", hint=_closest(name, [each.name for each in self.modules])
            )
        return PipelineFile(self.path, chosen, self.share_globals)


def read_pipeline(path: Path) -> PipelineFile:
    """Read and check a file.

    Raises:
        ConfigError: it cannot be read, or says what it must not.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: no such file")
    toml = read_toml(path)
    _check_keys(toml, toml.data, _TOP, ())
    share = toml.data.get("share_globals", False)
    if not isinstance(share, bool):
        raise ConfigError(
            f"share_globals: must be true or false, got {shown(share)} ({toml.place(('share_globals',))})"
        )
    entries = toml.data.get("modules")
    if not isinstance(entries, list) or not entries:
        raise ConfigError(
            f"{path}: a pipeline needs [[modules]], at least one", hint='[[modules]]\nscript = "clean.py"'
        )
    if len(entries) > _MOST_MODULES:
        raise ConfigError(f"{path}: {len(entries)} modules: at most {_MOST_MODULES}")
    modules = tuple(_module(toml, entry, index) for index, entry in enumerate(entries))
    _check_names(modules)
    return PipelineFile(path, modules, share)


def _module(toml: TomlFile, entry: Any, index: int) -> ModuleEntry:
    place = _place(toml, index)
    if not isinstance(entry, dict):
        raise ConfigError(f"modules[{index}]: must be a table, got {shown(entry)} ({place})")
    _check_keys(toml, entry, _MODULE, ("modules", str(index)), place)
    script = _text(entry, "script", index, place)
    if script is None:
        raise ConfigError(f"modules[{index}].script: is missing ({place})")
    path = toml.path.parent / script
    if path.suffix.lower() not in _SUFFIXES:
        raise ConfigError(f"modules[{index}].script: must be a file .py or .R, got {script!r} ({place})")
    if not path.is_file():
        raise ConfigError(f"modules[{index}].script: {path}: no such file ({place})")
    name = _text(entry, "name", index, place) or path.stem
    if not _NAME.fullmatch(name):
        raise ConfigError(f"modules[{index}].name: must be letters, digits, '_', '-' and '.', got {name!r} ({place})")
    bundle = _text(entry, "bundle", index, place)
    if bundle is not None and not (toml.path.parent / bundle).is_file():
        raise ConfigError(f"modules[{index}].bundle: {toml.path.parent / bundle}: no such file ({place})")
    return ModuleEntry(name, path, None if bundle is None else toml.path.parent / bundle, place)


def _text(entry: Mapping[str, Any], key: str, index: int, place: str) -> str | None:
    value = entry.get(key)
    if value is not None and (not isinstance(value, str) or not value):
        raise ConfigError(f"modules[{index}].{key}: must be a string, got {shown(value)} ({place})")
    return value


def _check_names(modules: Iterable[ModuleEntry]) -> None:
    first: dict[str, str] = {}
    for module in modules:
        if module.name in first:
            raise ConfigError(
                f"modules: two are called {module.name!r} ({first[module.name]} and {module.place})",
                hint="give one of them another `name`",
            )
        first[module.name] = module.place


def _check_keys(
    toml: TomlFile, table: Mapping[str, Any], known: Iterable[str], path: KeyPath, place: str | None = None
) -> None:
    for key in table:
        if key not in known:
            label = f"modules[{path[1]}].{key}" if path else key
            where = place or toml.place((key,))
            raise ConfigError(f"{label}: unknown key ({where})", hint=_closest(key, known))


def _closest(name: str, known: Iterable[str]) -> str:
    names = list(known)
    close = get_close_matches(name, names, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names)}"


def _place(toml: TomlFile, index: int) -> str:
    """The line of the header of a module: `TomlFile` knows the first one of each name only."""
    try:
        lines = toml.path.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        lines = []
    headers = [number for number, line in enumerate(lines, 1) if re.match(r"\s*\[\[\s*modules\s*\]\]", line)]
    return f"{toml.path} line {headers[index]}" if index < len(headers) else str(toml.path)
