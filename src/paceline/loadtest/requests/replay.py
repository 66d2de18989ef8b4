"""Which requests were made, and when? A recording, to be made again.

    {"at": 0.0, "body": {"x": [1, 2]}}
    {"at": 0.25, "path": "/models/ner/predict", "body": "a text"}
    {"at": "2024-05-01T12:00:01.5Z", "body_base64": "AAEC"}

Rules:
- One request a line. `body` is JSON and sent as it is written there; `body_base64` is sent as the bytes that it means.
- Times are seconds from any origin, or ISO 8601. A log is written as requests end: they are sorted.
- The nth arrival has the nth body. So all are held in memory, and there is a bound on them.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from paceline.core.errors import ConfigError
from paceline.loadtest import trace_file

MOST_BYTES: Final = 1 << 30
_PART: Final = "replay a part of it"


class Replay(msgspec.Struct, frozen=True, kw_only=True):
    """Requests in the order of their times.

    Attributes:
        at_s: when each arrived, in seconds from any origin, shape [n >= 2]; for `arrivals.Trace.of`.
        bodies: one each.
        paths: one each, "" where the line has none.
        is_json: all bodies are.
    """

    at_s: NDArray[np.float64]
    bodies: tuple[bytes, ...]
    paths: tuple[str, ...]
    is_json: bool


class _Line(msgspec.Struct, forbid_unknown_fields=True):
    at: Any
    body: msgspec.Raw = msgspec.Raw()
    body_base64: str | None = None
    path: str = ""


class _Request(NamedTuple):
    at_s: float
    body: bytes
    path: str
    is_json: bool


_DECODER: Final = msgspec.json.Decoder(_Line)


def read(path: Path) -> Replay:
    """The requests of a file.

    Raises:
        ConfigError: the file cannot be read, a line is no request, or there are too few or too many.
    """
    try:
        with path.open("rb") as file:
            requests = sorted(_requests(path, file), key=lambda request: request.at_s)
    except OSError as error:
        raise ConfigError(f"{path}: {(error.strerror or str(error)).lower()}") from error
    if len(requests) < 2:
        raise ConfigError(f"{path}: expected two or more requests, got {len(requests)}")
    return Replay(
        at_s=np.array([request.at_s for request in requests]),
        bodies=tuple(request.body for request in requests),
        paths=tuple(request.path for request in requests),
        is_json=all(request.is_json for request in requests),
    )


def _requests(path: Path, lines: Iterable[bytes]) -> Iterator[_Request]:
    size = 0
    for number, text in enumerate(lines, 1):
        if text.strip():
            request = _request(f"{path}:{number}", text)
            size += len(request.body)
            if size > MOST_BYTES:
                raise ConfigError(f"{path}: the bodies are larger than {MOST_BYTES >> 20} MiB together", hint=_PART)
            yield request


def _request(where: str, text: bytes) -> _Request:
    line = _line(where, text)
    if line.path and not line.path.startswith("/"):
        raise ConfigError(f"{where}: path: expected one that begins with /, got {line.path!r}")
    return _Request(_seconds(where, line.at), _body(where, line), line.path, line.body_base64 is None)


def _line(where: str, text: bytes) -> _Line:
    try:
        return _DECODER.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ConfigError(f"{where}: expected a request: {error}", hint='{"at": 0.0, "body": {"x": 1}}') from error


def _seconds(where: str, at: Any) -> float:
    try:
        return trace_file.seconds(at)
    except ValueError:
        raise ConfigError(f"{where}: at: expected seconds or an ISO 8601 time, got {str(at)[:40]!r}") from None


def _body(where: str, line: _Line) -> bytes:
    text = bytes(line.body)
    if bool(text) is (line.body_base64 is not None):
        raise ConfigError(f"{where}: expected one of the keys body and body_base64")
    if line.body_base64 is None:
        return text
    try:
        return base64.b64decode(line.body_base64, validate=True)
    except binascii.Error as error:
        raise ConfigError(f"{where}: body_base64: {error}") from error
