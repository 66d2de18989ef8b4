"""Where do the models of a repository lie?

Rules:
- In one folder, whose subfolders are models, or which is a model itself; or each where the settings say; or, since a
  reload, each where the reload said. Which of the two a folder is, its first look decides: a subfolder that comes
  later and is called like a version must not turn a folder of models into one model.
- A client must not make the server read what lies elsewhere than what the operator has named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from paceline.config.settings import ServeSettings
from paceline.core.errors import ConfigError, InvalidRequest
from paceline.core.paths import is_inside
from paceline.engine import layout
from paceline.engine.layout import ModelFiles


class Source(NamedTuple):
    """A model of its own: the folder that holds its versions, which of them to serve, and their labels.

    Attributes:
        version_policy: as the setting of that name; None leaves it to the settings.
        labels: label -> version; None leaves them to the settings.
    """

    name: str
    base_path: str
    version_policy: str | None = None
    labels: Mapping[str, str] | None = None


class Sources:
    """The places of a repository's models.

    Args:
        root: the folder that the operator has named.
    """

    def __init__(self, root: Path, settings: ServeSettings) -> None:
        self._root = root
        self._settings = settings
        self._one_model: bool | None = None
        self._allowed = {root}
        self._asked: dict[str, Source] | None = None

    def look(self) -> dict[str, ModelFiles]:
        """What there is of each model now. Blocks.

        Raises:
            ModelLoadError: the folder cannot be read.
        """
        return layout.look(self._folders())

    def settle(self, found: Mapping[str, ModelFiles]) -> dict[str, Path]:
        """Fix, after the first look, where models may come from; the folders that are missing.

        Raises:
            ConfigError: several models cannot have one name.
        """
        named = self._settings.base_paths
        if self._settings.name is not None and not named and not self._one_model:
            origin = self._settings.origin("name")
            raise ConfigError(
                f"name ({origin}): {self._root} is not the folder of one model: its subfolders are not versions, "
                "which are numbers such as 1"
            )
        if named:
            self._allowed = {folder.parent for folder in named.values()}
        elif self._one_model:
            self._allowed = {self._root.absolute().parent}
        return {name: folder for name, folder in named.items() if name not in found}

    def check(self, sources: Sequence[Source]) -> dict[str, Path]:
        """The folders of models that a client asks for.

        Raises:
            InvalidRequest: they may not be asked for.
        """
        folders = {source.name: Path(source.base_path) for source in sources}
        if len(folders) != len(sources):
            raise InvalidRequest("a model is named twice")
        for name, path in folders.items():
            if layout.NAME.fullmatch(name) is None:
                raise InvalidRequest(f"{name!r} is no name for a model")
            if not any(is_inside(path, folder) for folder in self._allowed):
                raise InvalidRequest(f"model {name}: base_path is not within the repository", model=name)
        return folders

    def replace(self, sources: Sequence[Source]) -> None:
        """From now on there are these models, and no others."""
        self._asked = {source.name: source for source in sources}

    def asked(self) -> list[Source] | None:
        """What the last reload said; None before the first."""
        return None if self._asked is None else list(self._asked.values())

    def get(self, name: str) -> Source | None:
        """What a reload said of a model."""
        return (self._asked or {}).get(name)

    def _folders(self) -> Mapping[str, Path]:
        if self._asked is not None:
            return {name: Path(source.base_path) for name, source in self._asked.items()}
        if self._settings.base_paths:
            return self._settings.base_paths
        if self._one_model is None:
            self._one_model = layout.is_one_model(self._root)
        if self._one_model:
            return {self._settings.name or self._root.resolve().name: self._root}
        return layout.models_in(self._root)
