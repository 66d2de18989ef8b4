"""Is this PyTorch file one that may be opened? Looked at before PyTorch runs anything of it.

PyTorch's own readers trust a file: they unpickle what lies in it, load libraries that it brings, evaluate the sizes of
its tensors as Python, and call whatever functions of `torch` it names.

Rules:
- A program may name the operators of PyTorch and arithmetic on sizes, and nothing else. Every text in it that is none
  of those is a plain word, so that no code can be made of it.
- A pickle inside must be one that PyTorch's restricted reader takes: tensors, and containers of them.
- A program that reads or writes files by itself is refused.
- What `torch.save` wrote holds no program, but a pickle: it is refused by name.
- Files are read with PyTorch's own reader of archives: another one might see other contents.
"""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any, Final, Literal

from paceline.core.errors import ModelLoadError, UnsafeModel
from paceline.runtimes import torch_rules
from paceline.runtimes.torch_library import library

_MOST_PROGRAM_BYTES: Final = 256 << 20
_EXPORT: Final = "torch.export.save(torch.export.export(model.eval(), (example,)), 'model.pt2')"


def check(path: Path) -> Literal["exported", "script"]:
    """Check a file, and say what it holds.

    Raises:
        UnsafeModel: opening or running it could run any code, or touch files.
        ModelLoadError: it is no such file, or a part of one.
    """
    archive = _Archive(path)
    if "archive_format" in archive.names or "serialized_exported_program.json" in archive.names:
        _check_exported(path, archive)
        return "exported"
    if any(name.startswith("code/") for name in archive.names) or "constants.pkl" in archive.names:
        _refuse(path, next(torch_rules.wrong_in_script(archive.names, archive.read), None))
        return "script"
    if "data.pkl" in archive.names:
        raise _pickled(path)
    raise ModelLoadError(f"{path}: cannot be loaded: an archive, but none of PyTorch's programs", hint=_EXPORT)


class _Archive:
    """A file as PyTorch reads it; all records, by name."""

    def __init__(self, path: Path) -> None:
        try:
            with path.open("rb") as file:
                head = file.read(2)
        except OSError as error:
            raise ModelLoadError(f"{path}: {(error.strerror or 'cannot be read').lower()}") from error
        if head != b"PK" and head[:1] == b"\x80":
            raise _pickled(path)
        self._path = path
        try:
            self._reader = library()._C.PyTorchFileReader(str(path))
            self.names = frozenset(self._reader.get_all_records())
        except RuntimeError as error:
            raise self.broken("it is no file of PyTorch's, or a part of one") from error

    def read(self, name: str) -> bytes:
        try:
            if self._reader.get_record_size(name) > _MOST_PROGRAM_BYTES:
                raise self.broken(f"{name} is larger than {_MOST_PROGRAM_BYTES >> 20} MiB")
            held: bytes = self._reader.get_record(name)
            return held
        except RuntimeError as error:
            raise self.broken(f"{name} cannot be read") from error

    def document(self, name: str) -> Any:
        try:
            return json.loads(self.read(name))
        except (ValueError, RecursionError) as error:
            raise self.broken(f"{name} is no JSON") from error

    def broken(self, why: str) -> ModelLoadError:
        return ModelLoadError(f"{self._path}: cannot be loaded: {why}", hint=f"export it again: {_EXPORT}")


def _check_exported(path: Path, archive: _Archive) -> None:
    if "archive_format" not in archive.names:
        raise archive.broken("it is in the format of PyTorch 2.7 and older")
    for name in sorted(archive.names):
        _refuse(path, torch_rules.wrong_record(name))
        if torch_rules.is_pickled(name):
            _check_pickle(path, archive, name)
        elif name.startswith("models/"):
            _refuse(path, torch_rules.wrong_program(archive.document(name)))
        elif name.startswith("data/") and name.endswith("_config.json"):
            _check_payloads(path, archive, name)


def _check_payloads(path: Path, archive: _Archive, name: str) -> None:
    """The table of weights: which record holds which, and how."""
    try:
        payloads = torch_rules.payloads(archive.document(name))
    except ValueError as error:
        raise archive.broken(f"{name} is {error}") from error
    for place, is_pickled in payloads:
        _refuse(path, torch_rules.wrong_place(place))
        if is_pickled:
            _check_pickle(path, archive, f"{name.rpartition('/')[0]}/{place}")


def _check_pickle(path: Path, archive: _Archive, name: str) -> None:
    """PyTorch reads these with its restricted reader first, and if that refuses, without restrictions."""
    data = archive.read(name)
    try:
        library().load(BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # whatever it is, PyTorch would go on without restrictions
        raise _unsafe(path, f"{name} is a pickle that holds more than tensors") from error


def _refuse(path: Path, why: str | None) -> None:
    if why is not None:
        raise _unsafe(path, why)


def _unsafe(path: Path, why: str) -> UnsafeModel:
    return UnsafeModel(f"{path}: {why}", hint="export a model of PyTorch's own operators; or let a service load it")


def _pickled(path: Path) -> UnsafeModel:
    return UnsafeModel(
        f"{path}: a pickle of torch.save: weights, or a module, and no program; it is not unpickled, for that runs "
        "whatever code it holds",
        hint=f"export the model: {_EXPORT}; or let a service in Python load it",
    )
