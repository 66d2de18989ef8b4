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
import re
from collections.abc import Iterator
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, Literal

from paceline.core.errors import ModelLoadError, PacelineError, UnsafeModel
from paceline.runtimes.torch_expression import is_harmless
from paceline.runtimes.torch_library import library

_MOST_PROGRAM_BYTES: Final = 256 << 20
_RECORDS: Final = re.compile(
    r"archive_format|archive_version|byteorder|version|\.data/[\w.]+|models/\w+\.json|extra/.*"
    r"|data/(weights|constants|sample_inputs)/[\w.\-]+"
)
_PICKLED: Final = re.compile(r"data/(weights|constants|sample_inputs)/.*\.pt")
_OBJECTS: Final = re.compile(r"data/constants/(custom_obj|opaque_obj)_.*")

_WORD: Final = re.compile(r"[\w.:@+\-]*")
_SPACES: Final = "aten|prims|quantized|quantized_decomposed|torchvision"
_CONTROL: Final = (
    "associative_scan|cond|flex_attention|invoke_subgraph|map_impl|scan|while_loop"
    "|wrap_with_autocast|wrap_with_set_grad_enabled"
)
_ARITHMETIC: Final = (
    "abs|add|and_|eq|floordiv|ge|getitem|gt|inv|invert|le|lshift|lt|mod|mul|ne|neg|not_|or_|pos|pow|rshift|sub"
    "|truediv|xor"
)
_OPERATOR: Final = re.compile(
    rf"torch\.ops\.({_SPACES})\.(?!from_file)\w+(\.\w+)?|torch\.ops\.higher_order\.({_CONTROL})"
    rf"|_operator\.({_ARITHMETIC})|torch\._?sym_\w+|math\.[a-z]\w*"
)
_CONTAINERS: Final = (None, "builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict")
# Texts that PyTorch keeps as texts.
_FREE: Final = frozenset({"metadata", "as_string", "as_strings"})

_IDENTIFIER: Final = re.compile(rb"[A-Za-z_]\w*")
_TOUCHES_FILES: Final = frozenset({b"save", b"from_file"})
_SCRIPT_SPACES: Final = frozenset({b"aten", b"prim", b"prims", b"quantized", b"torchvision"})
_CLASS: Final = re.compile(rb"torch\.classes\.(\w+)")
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
        _check_script(path, archive)
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


# -- what torch.export wrote ------------------------------------------------------------------------------------------


def _check_exported(path: Path, archive: _Archive) -> None:
    if "archive_format" not in archive.names:
        raise archive.broken("it is in the format of PyTorch 2.7 and older")
    for name in sorted(archive.names):
        if not _RECORDS.fullmatch(name) or _OBJECTS.fullmatch(name):
            raise _unsafe(path, f"it holds {_shown(name)}: an object or a library, and not only a program")
        if _PICKLED.fullmatch(name):
            _check_pickle(path, archive, name)
        elif name.startswith("models/"):
            _check_program(path, archive.document(name))
        elif name.startswith("data/") and name.endswith("_config.json"):
            _check_payloads(path, archive, name)


def _check_payloads(path: Path, archive: _Archive, name: str) -> None:
    """The table of weights: which record holds which, and how."""
    document = archive.document(name)
    try:
        payloads = [(str(each["path_name"]), bool(each["use_pickle"])) for each in document["config"].values()]
    except (AttributeError, KeyError, TypeError) as error:
        raise archive.broken(f"{name} is no table of weights") from error
    for place, is_pickled in payloads:
        if not _WORD.fullmatch(place) or place.startswith(("custom_obj", "opaque_obj")):
            raise _unsafe(path, f"a weight lies in {_shown(place)}")
        if is_pickled:
            _check_pickle(path, archive, f"{name.rpartition('/')[0]}/{place}")


def _check_pickle(path: Path, archive: _Archive, name: str) -> None:
    """PyTorch reads these with its restricted reader first, and if that refuses, without restrictions."""
    data = archive.read(name)
    try:
        library().load(BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # whatever it is, PyTorch would go on without restrictions
        raise _unsafe(path, f"{name} is a pickle that holds more than tensors") from error


def _check_program(path: Path, document: Any) -> None:
    for key, text in _texts(document):
        if not _is_tame(key, text):
            raise _unsafe(path, f"{key or 'a name'} is {_shown(text)}: no operator of PyTorch's, and no plain name")


def _is_tame(key: str, text: str) -> bool:
    if key in ("target", "as_operator"):
        return _OPERATOR.fullmatch(text) is not None
    if key in ("expr_str", "guards_code", "range_constraints"):
        return is_harmless(text)
    if key in ("in_spec", "out_spec"):
        return _is_tame_structure(text)
    return _WORD.fullmatch(text) is not None


def _is_tame_structure(text: str) -> bool:
    """A tree of containers, as JSON in a text; the keys of dicts are JSON in a text once more."""
    if not text:
        return True
    try:
        for key, value in _texts(json.loads(text)):
            if key == "type" and value not in _CONTAINERS:
                return False
            inner = json.loads(value) if key == "context" else value
            if not all(_WORD.fullmatch(each) for _, each in _texts(inner)):
                return False
    except (ValueError, RecursionError):
        return False
    return True


def _texts(document: Any) -> Iterator[tuple[str, str]]:
    """Every text, with the key that it belongs to; a key of its own has the key of the object that it is in."""
    waiting: list[tuple[str, Any]] = [("", document)]
    while waiting:
        key, value = waiting.pop()
        if isinstance(value, str):
            yield key, value
        elif isinstance(value, list):
            waiting.extend((key, each) for each in value)
        elif isinstance(value, dict):
            yield from ((key, each) for each in value)
            waiting.extend((each, inner) for each, inner in value.items() if not _is_free(each, inner))


def _is_free(key: str, value: Any) -> bool:
    """A text that stays one. A tensor may be called `metadata`, too: then there is more in it than texts."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]
    return key in _FREE and all(isinstance(each, str) for each in inner)


# -- TorchScript ------------------------------------------------------------------------------------------------------


def _check_script(path: Path, archive: _Archive) -> None:
    for name in sorted(archive.names):
        if not name.endswith((".py", ".pkl")):
            continue
        data = archive.read(name)
        if foreign := set(_CLASS.findall(data)) - {b"quantized"}:
            raise _unsafe(path, f"it makes objects of {_shown(min(foreign).decode())}")
        if name.endswith(".py"):
            _check_code(path, _IDENTIFIER.findall(data))


def _check_code(path: Path, words: list[bytes]) -> None:
    """TorchScript's own language cannot reach Python; what it can do is call operators."""
    if touching := _TOUCHES_FILES.intersection(words):
        raise _unsafe(path, f"its code names '{min(touching).decode()}', which reads or writes files")
    for before, word in pairwise(words):
        if before == b"ops" and word not in _SCRIPT_SPACES:
            raise _unsafe(path, f"its code calls operators of {_shown(word.decode())}")


def _pickled(path: Path) -> UnsafeModel:
    return UnsafeModel(
        f"{path}: a pickle of torch.save: weights, or a module, and no program; it is not unpickled, for that runs "
        "whatever code it holds",
        hint=f"export the model: {_EXPORT}; or let a service in Python load it",
    )


def _unsafe(path: Path, why: str) -> PacelineError:
    return UnsafeModel(f"{path}: {why}", hint="export a model of PyTorch's own operators; or let a service load it")


def _shown(text: str) -> str:
    return repr(text[:80])
