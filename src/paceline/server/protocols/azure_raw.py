"""Whole HTTP requests for scoring scripts: `@rawhttp`, `request_headers`, `AMLResponse`.

The item is `{"method", "path", "query", "headers", "body"}`, the prediction `{"status", "headers", "body"}` or
`{"json"}`. Bodies are base64.

Rules:
- What describes the connection, and not the request, is not passed on, in either direction.
- A header that the script made up is checked: nothing in it can end the line.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from paceline.core.errors import ModelFailed
from paceline.core.requests import InferRequest
from paceline.core.tensors import column
from paceline.engine.hosted import HostedModel
from paceline.server.calls import Body, Desk, Encoded, Inference
from paceline.server.http1 import JSON, HttpRequest
from paceline.server.protocols import item_codec

_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_CONNECTION: Final = ("connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade")
_OURS: Final = frozenset((*_CONNECTION, "content-length", "content-type", "date", "server", "x-request-id"))
_WITHOUT_BODY: Final = (204, 205, 304)  # the bytes of one would be read as the next answer
_HOP_BY_HOP: Final = frozenset(name.encode() for name in _CONNECTION)


class _Request(msgspec.Struct):
    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes


class _Response(msgspec.Struct):
    json: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    status: int = 200
    headers: dict[str, str] = {}
    body: bytes = b""


_ENCODER: Final = msgspec.json.Encoder()
_DECODER: Final = msgspec.json.Decoder(_Response)


def start(desk: Desk, http: HttpRequest, served: HostedModel) -> None:
    """Pass a request on as it is.

    Raises:
        PacelineError: it cannot be.
    """
    answering = _Answering(desk)
    Inference(answering, http, served, "azure").start((column([_item(http)]),), answering.encode)


def member(body: bytes, name: str) -> Any:
    """A member of an object of JSON."""
    return msgspec.json.decode(body)[name]


class _Answering:
    """A desk that answers with the status that the script has chosen."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._status = 200
        self.deadline = desk.deadline
        self.fail = desk.fail
        self.crash = desk.crash

    def encode(self, request: InferRequest) -> Encoded:
        """Body, content type and headers of the answer."""
        prediction = item_codec.prediction(request)
        response = _DECODER.decode(prediction)
        if response.json is not msgspec.UNSET:
            return bytes(response.json), JSON, b"x-ms-run-function-failed: False\r\n"
        if not 200 <= response.status <= 599:
            raise _unusable(f"status {response.status}: expected 200 to 599")
        self._status = response.status
        lines = [b"x-ms-run-function-failed: %s\r\n" % (b"True" if response.status >= 500 else b"False")]
        kind = b"application/octet-stream"
        for name, value in response.headers.items():
            line = _checked(name, value)
            if name.lower() == "content-type":
                kind = value.encode("latin-1")
            elif name.lower() not in _OURS and not name.lower().startswith("x-ms-run-function"):
                lines.append(line)
        return b"" if response.status in _WITHOUT_BODY else response.body, kind, b"".join(lines)

    def reply(
        self, call: HttpRequest, status: int, body: Body, content_type: bytes = b"", extra: bytes = b"", /
    ) -> None:
        """Answer."""
        self._desk.reply(call, self._status if status == 200 else status, body, content_type, extra)


def _item(http: HttpRequest) -> bytes:
    headers = {
        name.decode("latin-1"): value.decode("latin-1")
        for name, value in http.headers.items()
        if name not in _HOP_BY_HOP
    }
    path, query = http.path.decode("latin-1"), http.query.decode("latin-1")
    return _ENCODER.encode(_Request(http.method.decode("ascii", "replace"), path, query, headers, bytes(http.body)))


def _checked(name: str, value: str) -> bytes:
    try:
        if _NAME.fullmatch(name) and _VALUE.fullmatch(value):
            return f"{name}: {value}\r\n".encode("latin-1")
    except UnicodeEncodeError:
        pass
    raise _unusable(f"header {name[:40]!r}: {value[:40]!r} cannot be sent")


def _unusable(why: str) -> ModelFailed:
    return ModelFailed(f"the answer of run cannot be sent: {why}", code="bad_model_output")
