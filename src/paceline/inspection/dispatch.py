"""Which reader does a file get, and how would it be served and optimized?"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Final

from paceline.core.errors import ModelLoadError, RuntimeUnavailable
from paceline.inspection.report import Report
from paceline.runtimes.bundle import is_bundle
from paceline.runtimes.formats import Format, identify, is_hdf5, is_model_folder
from paceline.workers.service import Source

_READERS: Final[Mapping[str, tuple[str, str]]] = {
    "onnx": ("onnx", "read"),
    "openvino": ("openvino", "read"),
    "savedmodel": ("tensorflow", "read"),
    "keras": ("keras", "read"),
    "pt2": ("torch", "read_exported"),
    "torchscript": ("torch", "read"),
    "xgboost": ("boosters", "read_xgboost"),
    "lightgbm": ("boosters", "read_lightgbm"),
    "catboost": ("boosters", "read_catboost"),
    "pickle": ("pickles", "read"),
    "skops": ("skops", "read"),
}
"""By format: the module, imported when it is wanted, and its function."""

_CHECKS: Final = {"onnx": "onnx_file", "keras": "keras_file"}
"""By format: the module of `paceline.runtimes` that looks at a file before it is served, and needs no framework."""

_CODE: Final[Mapping[str, tuple[str, str, str]]] = {
    ".py": ("python", "Python code", "read_python"),
    ".r": ("r", "R code", "read_r"),
    ".toml": ("pipeline", "pipeline of Studio modules", "read_pipeline_file"),
}
_TORCH: Final = (".ckpt", ".bin")
_MOST_FILES: Final = 100_000
_LEAVE: Final = " --allow-pickle"
_DATA: Final = "--data rows.npz --labels labels.npy --metric accuracy"


def inspect(path: Path) -> Report:
    """Say what is in a model file, a folder, or code, as `service.py:Name`. Nothing of it is executed.

    Raises:
        ModelLoadError: it is missing, damaged, or absurd.
        RuntimeUnavailable: it is in none of the formats.
    """
    source = Source.parse(path)
    if not source.path.exists():
        raise ModelLoadError(f"{path}: no such file or folder")
    report = _code(source) or _folder(path) or _file(path)
    report.size_bytes = _size_bytes(source.path)
    report.settle()
    return report


def _code(source: Source) -> Report | None:
    found = _CODE.get(source.path.suffix.lower())
    if found is None or not source.path.is_file():
        return None
    from paceline.inspection import code

    name, title, reader = found
    report = Report(path=_shown(source), format=name, title=title, serve=f"paceline serve {_quoted(_shown(source))}")
    arguments = (source.name,) if name == "python" else ()
    getattr(code, reader)(source.path, report, *arguments)
    return report


def _folder(path: Path) -> Report | None:
    if not path.is_dir():
        return None
    from paceline.inspection import folders

    if is_bundle(path):  # first, as when it is served: a bundle's folder may hold more
        report = Report(path=str(path), format="bundle", title="bundle of the optimizer")
        folders.read_bundle(path, report, inspect)
    elif is_model_folder(path):
        return None
    else:
        report = Report(path=str(path), format="repository", title="models and their versions")
        folders.read_repository(path, report, inspect)
    leave = _LEAVE if any((each.serve or "").endswith(_LEAVE) for each in report.contains) else ""
    report.serve = f"paceline serve {_quoted(str(path))}{leave}"
    return report


def _file(path: Path) -> Report:
    try:
        found = identify(path)
    except RuntimeUnavailable as error:
        return _not_served(path, error)
    report = Report(path=str(path), format=found.name, title=found.title)
    module, reader = _READERS[found.name]
    read: Callable[[Path, Report], None] = getattr(import_module(f"paceline.inspection.{module}"), reader)
    read(path, report)
    if report.format == found.name:  # else a reader has seen that it is another, which is not served
        _commands(path, found, report)
    return report


def _not_served(path: Path, why: RuntimeUnavailable) -> Report:
    """A file that people take for a model: it is said what it is, and what to make of it.

    Raises:
        RuntimeUnavailable: it is none of those.
    """
    if is_hdf5(path):
        report = Report(path=str(path), format="hdf5", title="HDF5, as Keras 2 wrote models and weights")
        report.find("unknown", why.message.removeprefix(f"{path}: "), why.hint)
        return report
    if path.suffix.lower() in _TORCH:
        from paceline.inspection import torch

        report = Report(path=str(path), format="torch-save", title="PyTorch")
        torch.read(path, report)
        return report
    raise why


def _commands(path: Path, found: Format, report: Report) -> None:
    report.settle()
    needs_leave = found.is_pickle or (found.name == "skops" and report.safety != "safe")
    if _is_refused(path, found, report) or (report.safety == "unsafe" and not needs_leave):
        return
    report.extra = found.extra
    leave = _LEAVE if needs_leave else ""
    report.serve = f"paceline serve {_quoted(str(path))}{leave}"
    if found.converts:
        report.optimize = f"paceline optimize {_quoted(str(path))} {_DATA}{leave}"


def _is_refused(path: Path, found: Format, report: Report) -> bool:
    """True when serving would refuse the file, which is a finding."""
    if found.name not in _CHECKS:
        return False
    try:
        import_module(f"paceline.runtimes.{_CHECKS[found.name]}").check(path)
    except ModelLoadError as error:
        report.find("note", f"serving refuses it: {error.message.removeprefix(f'{path}: ')}", error.hint)
        return True
    return False


def _size_bytes(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(each.stat().st_size for each in islice(path.rglob("*"), _MOST_FILES) if each.is_file())


def _shown(source: Source) -> str:
    return f"{source.path}:{source.name}" if source.name else str(source.path)


def _quoted(text: str) -> str:
    return shlex.quote(text)
