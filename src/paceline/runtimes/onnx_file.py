"""Is this ONNX file one that a runtime may open? Read by hand, before the runtime does.

Rules:
- Tensors may lie outside the file, at places that the file names. Only places in the model's own folder are followed:
  a model from elsewhere must not make the server read other files. Links that lead out of the folder count as out.
- A graph of absurdly many nodes is refused: opening it would take minutes and gigabytes.
- Only lengths and names are read; weights are skipped. A file without the word that every reference to external data
  holds is not taken apart any further, so that a model is checked at the speed of the disk.

Source: the field numbers of onnx.proto, version 1 of the format; they cannot change.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO, Final

from paceline.core.errors import ModelLoadError
from paceline.core.paths import names_inside
from paceline.runtimes import wire

MOST_NODES: Final = 250_000
"""Opening more would take minutes and gigabytes."""
_DEEPEST: Final = 100  # as protobuf's own readers
_MOST_LOCATION: Final = 4096
_CHUNK_BYTES: Final = 1 << 18
_MARK: Final = b"location"
# A node below this may hold a graph, but none that matters for the number of nodes.
_SMALL_NODE_BYTES: Final = 4096

_MODEL, _GRAPH, _NODE, _ATTRIBUTE, _TENSOR, _SPARSE, _ENTRY, _TRAINING, _FUNCTION = range(9)
_FIELDS: Final[dict[int, dict[int, int]]] = {
    _MODEL: {7: _GRAPH, 20: _TRAINING, 25: _FUNCTION},
    _GRAPH: {1: _NODE, 5: _TENSOR, 15: _SPARSE},
    _NODE: {5: _ATTRIBUTE},
    _ATTRIBUTE: {5: _TENSOR, 6: _GRAPH, 10: _TENSOR, 11: _GRAPH, 22: _SPARSE, 23: _SPARSE},
    _TENSOR: {13: _ENTRY},
    _SPARSE: {1: _TENSOR, 2: _TENSOR},
    _TRAINING: {1: _GRAPH, 2: _GRAPH},
    _FUNCTION: {7: _NODE, 11: _ATTRIBUTE},
}
_DATA: Final = frozenset({_TENSOR, _SPARSE})


def check(path: Path) -> list[Path]:
    """Check a file; the files of external data that belong to it.

    Raises:
        ModelLoadError: it refers to what is not in its folder, or is absurd, or is not in the format.
    """
    try:
        with path.open("rb") as file:
            scan = _Scan(path, deep=_holds_mark(file))
            scan.message(_MODEL, wire.parts(file), 0)
    except OSError as error:
        raise ModelLoadError(f"{path}: {(error.strerror or 'cannot be read').lower()}") from error
    except wire.Malformed as error:
        raise ModelLoadError(
            f"{path}: cannot be loaded: it is no ONNX file, or a part of one",
            hint="check the file with onnx.checker, or export it again",
        ) from error
    for location in scan.locations:
        _check_location(path, location)
    return [path.parent / location for location in sorted(scan.locations)]


class _Scan:
    """Walks through the messages of a file.

    Args:
        deep: look for external data as well, not only for the number of nodes.

    Attributes:
        locations: where external data is said to lie.
    """

    def __init__(self, path: Path, *, deep: bool) -> None:
        self.locations: set[str] = set()
        self._path = path
        self._deep = deep
        self._nodes = 0

    def message(self, kind: int, data: wire.Part, depth: int) -> None:
        """Walk through one message."""
        if depth > _DEEPEST:
            raise ModelLoadError(f"{self._path}: cannot be loaded: nested more than {_DEEPEST} deep")
        inner = _FIELDS[kind]
        for number, value in wire.fields(data):
            following = inner.get(number)
            if following is None or isinstance(value, int):
                continue
            if following == _NODE:
                self._count()
            if following == _ENTRY:
                self._entry(value)
            elif self._matters(following, len(value)):
                self.message(following, value, depth + 1)

    def _matters(self, kind: int, size_bytes: int) -> bool:
        if self._deep:
            return True
        return kind not in _DATA and (kind != _NODE or size_bytes > _SMALL_NODE_BYTES)

    def _count(self) -> None:
        self._nodes += 1
        if self._nodes > MOST_NODES:
            raise ModelLoadError(f"{self._path}: cannot be loaded: more than {MOST_NODES} nodes")

    def _entry(self, data: wire.Part) -> None:
        """A key and its value, of external data."""
        pair = {}
        for number, value in wire.fields(data):
            if isinstance(value, int):
                continue
            if len(value) > _MOST_LOCATION:
                raise ModelLoadError(f"{self._path}: external data: a name of {len(value)} bytes")
            pair[number] = bytes(value)
        if pair.get(1) == _MARK:
            self.locations.add(pair.get(2, b"").decode("utf-8", "backslashreplace"))


def _holds_mark(file: BinaryIO) -> bool:
    tail = b""
    while chunk := file.read(_CHUNK_BYTES):
        if _MARK in tail + chunk[: len(_MARK)] or _MARK in chunk:
            return True
        tail = chunk[-len(_MARK) :]
    return False


def _check_location(path: Path, location: str) -> None:
    shown = location.encode("unicode_escape").decode()[:200]
    if not names_inside(location, path.parent):
        raise ModelLoadError(
            f"{path}: external data '{shown}' is not in the model's folder, and is not read",
            hint="put the data beside the model, and name it without a path that leads elsewhere",
        )
    if not (path.parent / location).is_file():
        raise ModelLoadError(f"{path}: external data '{shown}' is not there")
