"""What is in a bundle? A model as the optimizer chose it, how it is run, and where it comes from.

Rules:
- A bundle is a folder with `bundle.json`. Its files lie in the folder: a name that leads out of it is refused.
- It is served wherever it is readable; where the machine or the files are not those it was measured with, it is said.
- Of the packages that took part, only those that serve the model count: what converted it is needed no more.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from paceline.config.machine import usable_cores
from paceline.config.processor import processor
from paceline.config.setting import BadValue, shown
from paceline.config.settings import SETTINGS
from paceline.core.errors import ModelLoadError
from paceline.core.paths import names_inside
from paceline.runtimes.formats import BUNDLE, identify
from paceline.runtimes.model_files import beside, sha256
from paceline.runtimes.options import RuntimeOptions

SCHEMA = 1
MOST_EXAMPLE_BYTES: Final = 64 << 10

_CODE: Final = (".py", ".r", ".toml")
_MOST_BYTES: Final = 16 << 20
_MOST_SHOWN: Final = 200
_HINT: Final = "a bundle is made by `paceline optimize`, and moved as a whole"
_DISTRIBUTIONS: Final = {
    "sklearn": ("scikit-learn",),
    "tensorflow": ("tensorflow", "tensorflow-cpu"),
    "tensorflow-cpu": ("tensorflow", "tensorflow-cpu"),
    "xgboost": ("xgboost", "xgboost-cpu"),
    "xgboost-cpu": ("xgboost", "xgboost-cpu"),
}
"""What is installed under one of several names."""

_SERVE: Final[Mapping[str | None, tuple[str, ...]]] = {
    "onnxruntime": ("onnxruntime",),
    "openvino": ("openvino",),
    "tensorflow": ("tensorflow", "tensorflow-cpu", "keras"),
    "torch": ("torch",),
    None: ("scikit-learn", "sklearn", "skops", "xgboost", "xgboost-cpu", "lightgbm", "catboost"),
}
"""By runtime: the packages that serve its models; None: in worker processes."""


class Provenance(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Where a bundle comes from.

    Attributes:
        source: name of the file that was optimized; `source_sha256` of its bytes.
        sha256: of each file of the model in the folder, by its name; see `hashes`.
        machine: processor, architecture, cores; see `this_machine`.
        versions: of the packages that took part; see `installed`.
        evidence: what the gate and the measurements said, as in the study's document.
    """

    source: str
    source_sha256: str
    sha256: dict[str, str]
    machine: dict[str, Any]
    versions: dict[str, str]
    created: str
    evidence: dict[str, Any] = {}


class Bundle(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The contents of `bundle.json`.

    Attributes:
        name: of the model, when it is served.
        model: file or folder, relative to the bundle.
        settings: of serving, by name, such as `threads`; a flag wins over them.
        example: one of the rows it was judged on, as JSON: an item as `/predict` takes it; "": none.
    """

    schema: int = SCHEMA
    name: str
    model: str
    options: RuntimeOptions = RuntimeOptions()
    settings: dict[str, int] = {}
    example: str = ""
    provenance: Provenance


class Differences(NamedTuple):
    """What is not as it was when a bundle was measured, a line for people each."""

    files: list[str]
    machine: list[str]
    versions: list[str]

    @property
    def lines(self) -> list[str]:
        """All of them."""
        return [*self.files, *self.machine, *self.versions]


def is_bundle(path: Path) -> bool:
    """True for a folder that is a bundle, if perhaps a broken one, or of another version.

    Others call files `bundle.json`, too: what is JSON without a bundle's fields makes no bundle.
    """
    return _mark(path) is not None


def parts(folder: Path) -> frozenset[str] | None:
    """What the bundle in a folder consists of: names in it. None: it is no bundle, or all that lies there counts.

    A study writes beside them, while they may be served.
    """
    mark = _mark(folder)
    place = Path(mark.model).parts if mark else ()
    return frozenset({BUNDLE, place[0]}) if len(place) > 1 else None


def write(folder: Path, bundle: Bundle) -> None:
    """Write `bundle.json`, whole or not at all.

    Raises:
        ModelLoadError: `read` would refuse it.
    """
    _check(folder, bundle)
    fresh = folder / f".{BUNDLE}"
    with fresh.open("wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(bundle), indent=2) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(folder / BUNDLE)


def read(folder: Path) -> Bundle:
    """Read and check a bundle.

    Raises:
        ModelLoadError: it is none, or names a file outside of the folder.
    """
    data = _contents(folder / BUNDLE)
    try:
        schema = msgspec.json.decode(data, type=_Schema).schema
        if schema != SCHEMA:
            raise _wrong(folder, f"schema: expected {SCHEMA}, got {schema}: written by another version of paceline")
        bundle = msgspec.json.decode(data, type=Bundle)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _wrong(folder, str(error) or "nested too deeply") from error
    _check(folder, bundle)
    return bundle


def differences(bundle: Bundle, folder: Path) -> Differences:
    """What is not as it was when the bundle was measured: files, processor, cores, versions of runtimes.

    Reads every file of the model, at the speed of SHA-256.
    """
    told = bundle.provenance
    here = this_machine()
    machine = [
        f"{what}: measured with {_short(told.machine[what])}, here {_short(here[what])}"
        for what in here
        if what in told.machine and told.machine[what] != here[what]
    ]
    return Differences(_changed(bundle, folder), machine, _other_versions(bundle, folder))


def hashes(folder: Path, model: str) -> dict[str, str]:
    """SHA-256 of each file of a model in a bundle's folder, by its name: of a folder, of each file in it.

    A file's weights that lie beside it count as well: those of ONNX's external data, and OpenVINO's `.bin`.

    Raises:
        ModelLoadError: one leads out of the folder, or cannot be read.
    """
    return {name: sha256(inside(folder, name)) for name in _files(folder, model)}


def this_machine() -> dict[str, Any]:
    """What of this machine decides how fast a model is: `processor`, `architecture`, `cores`."""
    found = processor()
    return {"processor": found.model, "architecture": found.architecture, "cores": usable_cores().whole}


def installed(package: str) -> str | None:
    """The version of a package, whichever of its names it is installed under; None: it is not."""
    for name in _DISTRIBUTIONS.get(package, (package,)):
        try:
            return version(name)
        except (PackageNotFoundError, ValueError):
            continue
    return None


def inside(folder: Path, name: str) -> Path:
    """A file of a bundle by its name.

    Raises:
        ModelLoadError: the name leads out of the folder, also by links, or to the folder itself.
    """
    if not names_inside(name, folder):
        raise _wrong(folder, f"'{_plain(name)}' is not in the bundle's folder, and is not read")
    return folder / name


class _Schema(msgspec.Struct):
    schema: int = SCHEMA


class _Mark(msgspec.Struct):
    """What every version of a bundle has."""

    schema: int
    model: str


def _mark(folder: Path) -> _Mark | None:
    broken = _Mark(SCHEMA, "")
    try:
        return msgspec.json.decode(_contents(folder / BUNDLE), type=_Mark)
    except msgspec.ValidationError:
        return None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return broken
    except ModelLoadError:
        return broken if (folder / BUNDLE).is_file() else None


def _contents(file: Path) -> bytes:
    try:
        if not file.is_file():
            raise _wrong(file.parent, "no such file" if not file.exists() else "not a file")
        if file.stat().st_size > _MOST_BYTES:
            raise _wrong(file.parent, f"larger than {_MOST_BYTES >> 20} MiB")
        return file.read_bytes()
    except OSError as error:
        raise _wrong(file.parent, (error.strerror or "cannot be read").lower()) from error


def _check(folder: Path, bundle: Bundle) -> None:
    try:
        SETTINGS["name"].check(bundle.name)
    except BadValue as error:
        raise _wrong(folder, f"name: {error}") from None
    if not inside(folder, bundle.model).exists():
        raise _wrong(folder, f"model: '{_plain(bundle.model)}' is not there")
    if Path(bundle.model).suffix.lower() in _CODE:
        raise _wrong(folder, f"model: '{_plain(bundle.model)}' is code, and no model")
    for name in bundle.provenance.sha256:
        inside(folder, name)
    for name, value in bundle.settings.items():
        setting = SETTINGS.get(name)
        if setting is None or not setting.per_model or setting.type is not int:
            raise _wrong(folder, f"settings.{_plain(name)}: not a number that can be set for a model")
        try:
            setting.check(value)
        except BadValue as error:
            raise _wrong(folder, f"settings.{name}: {error}") from None
    if len(bundle.example.encode()) > MOST_EXAMPLE_BYTES:
        raise _wrong(folder, f"example: larger than {MOST_EXAMPLE_BYTES >> 10} KiB")
    if bundle.options.inter_op_threads < 1:
        raise _wrong(folder, f"options.inter_op_threads: must be >= 1, got {bundle.options.inter_op_threads}")


def _files(folder: Path, model: str) -> list[str]:
    """The names of a model's files, in order."""
    path = inside(folder, model)
    found = sorted(path.rglob("*")) if path.is_dir() else [path, *beside(path)]
    # Links are looked at here, whether they lead to a file or a folder: what reads the model would follow both.
    names = [str(each.relative_to(folder)) for each in found]
    return [name for name in names if not inside(folder, name).is_dir()]


def _changed(bundle: Bundle, folder: Path) -> list[str]:
    told = bundle.provenance.sha256
    lines = []
    there = _files(folder, bundle.model)
    for name in there:
        if name not in told:
            lines.append(f"{_plain(name)}: not a file that was measured")
        elif sha256(inside(folder, name)) != told[name].lower():
            lines.append(f"{_plain(name)}: not as it was measured: its SHA-256 is another")
    return lines + [f"{_plain(name)}: was measured, and is not there" for name in told if name not in there]


def _other_versions(bundle: Bundle, folder: Path) -> list[str]:
    runtime = bundle.options.runtime or identify(inside(folder, bundle.model)).runtime
    lines = []
    for package in _SERVE[runtime]:
        told = bundle.provenance.versions.get(package)
        here = installed(package)
        if told is not None and told != here:
            lines.append(f"{package}: measured with {_short(told)}, here {here or 'it is not installed'}")
    return lines


def _wrong(folder: Path, what: str) -> ModelLoadError:
    return ModelLoadError(f"{folder / BUNDLE}: {what}", hint=_HINT)


def _plain(text: str) -> str:
    return text.encode("unicode_escape").decode()[:_MOST_SHOWN]


def _short(value: object) -> str:
    return _plain(value)[:_MOST_SHOWN] if isinstance(value, str) else shown(value)
