"""Which format is this model in, and what serves it? One table for serving, inspecting and optimizing.

Rules:
- A format is told by its name, and where a name is not enough by its first bytes. Nothing is executed or unpickled.
- A runtime serves in this process. What is user code, or needs its own library's Python, runs in worker processes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from paceline.core.errors import ModelLoadError, RuntimeUnavailable
from paceline.runtimes.options import Runtime

BUNDLE: Final = "bundle.json"
"""The file that makes a folder a bundle of the optimizer; see `bundle.is_bundle`."""

_HEAD_BYTES: Final = 4096
_HDF5: Final = b"\x89HDF\r\n\x1a\n"


@dataclass(frozen=True)
class Format:
    """A kind of model files.

    Attributes:
        name: for programs.
        title: for people.
        endings: of the file's name, lower case.
        mark: for a folder: a file that it holds.
        runtime: that serves it by default; None: worker processes do.
        other_runtimes: that read it as well.
        extra: of this package, that installs what is needed.
        is_pickle: loading it may run any code.
        converts: the optimizer takes it.
        fits: tells by the first bytes of a file whose ending several formats share.
    """

    name: str
    title: str
    endings: tuple[str, ...] = ()
    mark: str | None = None
    runtime: Runtime | None = None
    other_runtimes: tuple[Runtime, ...] = ()
    extra: str | None = None
    is_pickle: bool = False
    converts: bool = True
    fits: Callable[[bytes], bool] = lambda _: True

    def matches(self, path: Path) -> bool:
        """Is this file, or folder, in this format?"""
        if self.mark is not None:
            return path.is_dir() and (path / self.mark).is_file()
        return path.name.lower().endswith(self.endings) and path.is_file() and self.fits(_head(path))


def _starts(*marks: bytes) -> Callable[[bytes], bool]:
    return lambda head: head.lstrip().startswith(marks)


def _holds(*words: bytes) -> Callable[[bytes], bool]:
    return lambda head: any(word in head for word in words)


FORMATS: Final[Sequence[Format]] = (
    Format("onnx", "ONNX", (".onnx",), runtime="onnxruntime", other_runtimes=("openvino",)),
    Format(
        "openvino", "OpenVINO IR", (".xml",), runtime="openvino", extra="openvino", converts=False, fits=_holds(b"<net")
    ),
    Format("savedmodel", "TensorFlow SavedModel", mark="saved_model.pb", runtime="tensorflow", extra="tensorflow"),
    Format("keras", "Keras", (".keras",), runtime="tensorflow", extra="tensorflow", fits=_starts(b"PK")),
    Format("pt2", "torch.export", (".pt2",), runtime="torch", extra="torch", fits=_starts(b"PK")),
    Format("torchscript", "TorchScript", (".pt", ".pth", ".ts", ".torchscript"), runtime="torch", extra="torch"),
    Format("xgboost", "XGBoost", (".ubj", ".xgb", ".json"), extra="xgboost", fits=_holds(b'"learner"', b"learner{")),
    Format("lightgbm", "LightGBM", (".txt", ".lgb"), extra="lightgbm", fits=_starts(b"tree\n", b"tree\r")),
    Format("catboost", "CatBoost", (".cbm",), extra="catboost", fits=_starts(b"CBM1")),
    Format("pickle", "pickled scikit-learn", (".pkl", ".pickle", ".joblib"), extra="sklearn", is_pickle=True),
    Format("skops", "skops", (".skops",), extra="sklearn"),
)
"""Every format of models that is no code, in the order in which they are tried."""


def identify(path: Path) -> Format:
    """The format of a model file or folder.

    Raises:
        ModelLoadError: there is nothing.
        RuntimeUnavailable: it is in none of the formats.
    """
    if not path.exists():
        raise ModelLoadError(f"{path}: no such model file")
    for each in FORMATS:
        if each.matches(path):
            return each
    if path.is_dir() and path.name.lower().endswith(tuple(ending for each in FORMATS for ending in each.endings)):
        raise ModelLoadError(f"{path}: expected a file, got a folder")
    if is_hdf5(path):
        raise RuntimeUnavailable(
            f"{path}: HDF5, the format of old Keras, is not read: there is no safe way to",
            hint="open it where you trust it, and save it again: model.save('NAME.keras')",
        )
    readable = "; ".join(f"{each.title} ({_shown(each)})" for each in FORMATS)
    raise RuntimeUnavailable(
        f"{path}: not a format that can be served", hint=f"models: {readable}; code: *.py, *.R, pipeline.toml"
    )


def is_hdf5(path: Path) -> bool:
    """True for a file of HDF5, which is not read."""
    return _head(path).startswith(_HDF5)


def is_model_folder(path: Path) -> bool:
    """True for a folder that is one model, in a format that has a folder."""
    return any(each.mark and each.matches(path) for each in FORMATS)


def _shown(each: Format) -> str:
    return f"a folder with {each.mark}" if each.mark else ", ".join(f"*{ending}" for ending in each.endings)


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_HEAD_BYTES)
    except OSError:
        return b""
