"""Which files is a model made of? To hash, to weigh and to copy it.

Rules:
- Weights that lie beside a file belong to it: ONNX's external data, OpenVINO's `.bin`; so do TorchScript's examples.
- Hashes are kept while a file keeps its size and its time: models are large, and steps ask for them often.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from paceline.core.errors import ModelLoadError
from paceline.runtimes.onnx_file import check
from paceline.runtimes.torch_script import examples_beside


def files_of(model: Path) -> list[Path]:
    """The files of a model, in order; none where there is no such file.

    Raises:
        ModelLoadError: it refers to what is not in its folder.
    """
    if model.is_dir():
        return sorted(each for each in model.rglob("*") if each.is_file())
    return [model, *beside(model)] if model.is_file() else []


def digest(model: Path) -> str:
    """A SHA-256 over a model: of a single file, that of its bytes; of several, over names and bytes.

    What is no file, such as `module:factory`, counts as its text.

    Raises:
        ModelLoadError: a file cannot be read, or refers to what is not in its folder.
    """
    files = files_of(model)
    if files == [model]:
        return sha256(model)
    home = model if model.is_dir() else model.parent
    told = [f"{each.relative_to(home)}\0{sha256(each)}" for each in files] or [str(model)]
    return hashlib.sha256("\n".join(told).encode()).hexdigest()


def size_bytes(model: Path) -> int:
    """Of all its files."""
    return sum(each.stat().st_size for each in files_of(model))


def copy(model: Path, folder: Path) -> Path:
    """Copy a model into a folder, which is made; its new path."""
    home = model if model.is_dir() else model.parent
    target = folder / model.name
    for each in files_of(model):
        to = (target if model.is_dir() else folder) / each.relative_to(home)
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(each, to)
    return target


def beside(model: Path) -> Iterator[Path]:
    """The files that belong to a file.

    Raises:
        ModelLoadError: it refers to what is not in its folder.
    """
    suffix = model.suffix.lower()
    if suffix == ".onnx":
        yield from check(model)
    elif suffix == ".xml" and model.with_suffix(".bin").is_file():
        yield model.with_suffix(".bin")
    elif examples_beside(model).is_file():
        yield examples_beside(model)


def sha256(path: Path) -> str:
    """Of a file's bytes, as hexadecimal digits.

    Raises:
        ModelLoadError: it cannot be read.
    """
    try:
        state = path.stat()
        return _sha256_of(path, state.st_size, state.st_mtime_ns)
    except OSError as error:
        raise ModelLoadError(f"{path}: {(error.strerror or 'cannot be read').lower()}") from error


@lru_cache(maxsize=4096)
def _sha256_of(path: Path, size: int, time_ns: int) -> str:  # noqa: ARG001  # they tell the contents' age
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
