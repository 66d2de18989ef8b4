"""What lies in a folder of models? NAME/VERSION/model.onnx, as TensorFlow Serving and Triton have it; or user code.

Of what a version's folder holds, this is served, the first that is there: a bundle; ONNX; code; a SavedModel, in the
folder itself or in `model.savedmodel`; a file of another format, called `model.*` or the only one.

Rules:
- A look reads names, sizes and times, and opens no file but a `bundle.json`, to see whether it is one. What it found is
  compared and decided on elsewhere.
- What is hidden is not there: editors, version control and copying tools leave such files behind. So does Python
  beside the code that it has imported.
- Code is served before the models beside it, but for ONNX, for it is there to load them. Names that much else has,
  such as `labels.txt` and `config.json`, are models only when they are called `model.*`.
- A version whose file cannot be made out is in the answer, with the reason, for somebody meant it to be served.
- The fingerprint of a version changes when any of its files does, or the configuration beside the versions. What
  else lies there, such as a log, is none of ours; nor is what a study writes beside the bundle that is served.
- A link that leads nowhere is a file that is not there, and keeps nothing else from being found.
- Names come from the disk alone. A client's name is looked up among them, and never becomes part of a path.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from paceline.config.model_files import FILE_NAMES
from paceline.core.errors import ModelLoadError
from paceline.runtimes import bundle
from paceline.runtimes.formats import BUNDLE, FORMATS

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
"""What a model may be called: it stands in addresses and in the labels of metrics."""

_VERSION: Final = re.compile(r"[0-9]{1,19}")
_LARGEST_VERSION: Final = 2**63 - 1  # an INT64 on the wire; nanoseconds since 1970 have 19 digits
_USUAL_FILE: Final = "model.onnx"
_SERVICES: Final = ("pipeline.toml", "service.py", "score.py", "model.R")
_SAVED_MODEL: Final = next(each.mark for each in FORMATS if each.name == "savedmodel")
_SAVED_AS_TEXT: Final = "saved_model.pbtxt"
_FOLDER: Final = "model.savedmodel"  # as Triton has it
_ENDINGS: Final = tuple(ending for each in FORMATS for ending in each.endings)
_COMMON_ENDINGS: Final = (".json", ".txt", ".xml", ".ts")
# Nothing that is served has as many files; a link that leads upwards would have no end of them.
_MOST_FILES: Final = 10_000
_DEEPEST: Final = 8
_LEADS_NOWHERE: Final = (errno.ENOENT, errno.ELOOP)

Fingerprint = tuple[tuple[str, int, int], ...]
"""Name, size in bytes and time of change in nanoseconds of every file; -1 where a link leads nowhere."""


@dataclass(frozen=True)
class VersionFiles:
    """One version.

    Attributes:
        folder: what it consists of.
        file: what a runtime loads; None when that cannot be told.
        problem: why it cannot.
    """

    folder: Path
    fingerprint: Fingerprint
    file: Path | None = None
    problem: str = ""


@dataclass(frozen=True)
class ModelFiles:
    """One model.

    Attributes:
        versions: by number, written without leading zeros; lowest first.
        problem: why it cannot be served at all; empty if it can.
        unreadable: whether it has versions is not known.
    """

    folder: Path
    versions: Mapping[str, VersionFiles] = field(default_factory=dict)
    problem: str = ""
    unreadable: bool = False


def is_one_model(root: Path) -> bool:
    """True when a folder is a model: its subfolders are versions. False when they are models, or there are none.

    Raises:
        ModelLoadError: it cannot be read.
    """
    return any(_is_version(folder.name) and not _holds_versions(folder) for folder in _subfolders(root))


def models_in(root: Path) -> dict[str, Path]:
    """The models of a folder: name -> the folder that holds its versions.

    Raises:
        ModelLoadError: it cannot be read.
    """
    return {folder.name: folder for folder in _subfolders(root)}


def look(base_paths: Mapping[str, Path]) -> dict[str, ModelFiles]:
    """What there is of each model now; a folder that is gone has no entry."""
    found = {}
    for name, folder in base_paths.items():
        try:
            found[name] = _model(name, folder)
        except FileNotFoundError:
            continue
        except (OSError, ModelLoadError) as error:
            found[name] = ModelFiles(folder, problem=_why(error), unreadable=True)
    return found


def _model(name: str, folder: Path) -> ModelFiles:
    if NAME.fullmatch(name) is None:
        shown = name.encode("unicode_escape").decode()
        return ModelFiles(
            folder, problem=f"'{shown}' is no name for a model: letters, digits, '.', '_' and '-', at most 128"
        )
    children = sorted(_children(folder), key=lambda child: child.name)
    beside = _fingerprint(folder, (child for child in children if child.name in FILE_NAMES))
    versions: dict[str, VersionFiles] = {}
    for child in children:
        if _is_version(child.name) and _is_folder(child):
            # Of 1 and 01, the plain one: it sorts last.
            versions[str(int(child.name))] = _version(Path(child.path), beside)
    if not versions:
        return ModelFiles(folder, problem=f"{folder}: no version: expected folders that are numbers, such as 1")
    return ModelFiles(folder, dict(sorted(versions.items(), key=lambda each: int(each[0]))))


def _version(folder: Path, beside: Fingerprint) -> VersionFiles:
    try:
        # The folder too, for a model may be told to move.
        files = _fingerprint(folder, _walk(folder, _DEEPEST, only=bundle.parts(folder)))
        fingerprint = ((str(folder), 0, 0), *beside, *files)
    except (OSError, ModelLoadError) as error:
        return VersionFiles(folder, (), problem=_why(error))
    try:
        file = _chosen(folder, [name for name, *_ in fingerprint[1 + len(beside) :]])
    except ModelLoadError as error:
        return VersionFiles(folder, fingerprint, problem=_why(error))
    return VersionFiles(folder, fingerprint, file)


def _chosen(folder: Path, below: list[str]) -> Path:
    """What to load of a version, whose files these are."""
    names = [name for name in below if "/" not in name]
    if BUNDLE in names and bundle.is_bundle(folder):
        return folder
    onnx = [name for name in names if name.lower().endswith(".onnx")]
    if onnx:
        return folder / _one_of(folder, onnx)
    service = next((name for name in _SERVICES if name in names), None)
    if service is not None:
        return folder / service
    for inner in ("", f"{_FOLDER}/"):
        if f"{inner}{_SAVED_MODEL}" in below:
            return folder / inner
    others = [name for name in names if _is_model(name.lower())]
    if others:
        return folder / _one_of(folder, others)
    raise ModelLoadError(f"{folder}: {_missing(names)}")


def _is_model(name: str) -> bool:
    return name.endswith(_ENDINGS) and (name.startswith("model.") or not name.endswith(_COMMON_ENDINGS))


def _one_of(folder: Path, models: list[str]) -> str:
    usual = [name for name in models if name.lower().startswith("model.")]
    # In the order of the formats: of model.onnx and model.keras, the first.
    usual.sort(key=lambda name: next(place for place, end in enumerate(_ENDINGS) if name.lower().endswith(end)))
    if usual or len(models) == 1:
        return (usual or models)[0]
    expected = _USUAL_FILE if models[0].lower().endswith(".onnx") else "model.*"
    raise ModelLoadError(f"{folder}: several models, and none is called {expected}: {', '.join(models[:5])}")


def _missing(names: list[str]) -> str:
    if _SAVED_AS_TEXT in names:
        return f"a TensorFlow SavedModel as text, which is not read; expected {_SAVED_MODEL}"
    endings = ", ".join(f"*{ending}" for ending in _ENDINGS if ending not in _COMMON_ENDINGS)
    return (
        f"no model: expected {BUNDLE}, {_SAVED_MODEL}, a file of a model ({endings}), or one of {', '.join(_SERVICES)}"
    )


def _fingerprint(folder: Path, files: Iterable[os.DirEntry[str]]) -> Fingerprint:
    marks = []
    own = len(str(folder)) + 1
    for file in files:
        size, changed_ns = _size_and_time(file)
        marks.append((file.path[own:], size, changed_ns))
        if len(marks) > _MOST_FILES:
            raise ModelLoadError(f"{file.path}: more than {_MOST_FILES} files in a model")
    return tuple(sorted(marks))


def _size_and_time(file: os.DirEntry[str]) -> tuple[int, int]:
    try:
        status = file.stat()
    except OSError as error:
        if error.errno in _LEADS_NOWHERE:
            return -1, -1
        raise
    return status.st_size, status.st_mtime_ns


def _walk(folder: Path, deepest: int, only: Container[str] | None = None) -> Iterator[os.DirEntry[str]]:
    for child in _children(folder):
        if only is not None and child.name not in only:
            continue
        if not _is_folder(child):
            yield child
        elif deepest:
            yield from _walk(Path(child.path), deepest - 1)


def _subfolders(folder: Path) -> list[Path]:
    try:
        return sorted(Path(child.path) for child in _children(folder) if _is_folder(child))
    except OSError as error:
        raise ModelLoadError(f"{folder}: {_why(error)}") from error


def _holds_versions(folder: Path) -> bool:
    return any(_is_version(child.name) for child in _subfolders(folder))


def _is_version(name: str) -> bool:
    return _VERSION.fullmatch(name) is not None and int(name) <= _LARGEST_VERSION


def _is_folder(child: os.DirEntry[str]) -> bool:
    try:
        return child.is_dir()
    except OSError as error:
        if error.errno in _LEADS_NOWHERE:
            return False
        raise


def _children(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return [entry for entry in entries if not entry.name.startswith(".") and entry.name != "__pycache__"]


def _why(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{error.filename}: {(error.strerror or 'cannot be read').lower()}"
    return str(error)
