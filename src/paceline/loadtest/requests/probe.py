"""Is the answer to a target's first request a prediction? A load test of refusals would be none.

A list of answers may hold the errors of its items behind a status of success: those count as a refusal, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from paceline.core.errors import ConfigError
from paceline.loadtest.requests import grpc_asking
from paceline.loadtest.requests.address import Address
from paceline.loadtest.requests.asking import Asker
from paceline.loadtest.target import Target
from paceline.server.grpc import Status

# What a model answers to inputs that it does not like, over HTTP and over gRPC.
_OF_THE_INPUTS: Final = {"http1": (400, 422, 500), "grpc": (2, 3, 13)}


class Probed(NamedTuple):
    """The answer to one request.

    Attributes:
        refusal: status and message of an answer that is no prediction; "" if it is one.
        by_inputs: with other inputs the answer may be another.
        headers: of HTTP, names in lower case.
    """

    refusal: str
    by_inputs: bool = False
    headers: Mapping[str, str] = {}


def probe(target: Target, timeout_s: float) -> Probed:
    """Send the first request.

    Raises:
        ConfigError: nothing answers.
    """
    return _over_grpc(target, timeout_s) if target.wire == "grpc" else _over_http(target, timeout_s)


def refused(target: Target, probed: Probed) -> ConfigError:
    """The error that says what the server said."""
    body = target.bodies[0]
    shown = "" if target.wire == "grpc" or not body.isascii() else f"; it was sent {_start(body)}"
    hint = "give requests that it accepts: --data FILE, or --body FILE"
    return ConfigError(f"{target.url}: the server refuses a first request: {probed.refusal}{shown}", hint=hint)


def _over_http(target: Target, timeout_s: float) -> Probed:
    asker = Asker(Address(target.host, target.port, target.tls), dict(target.headers), timeout_s)
    reply = asker.ask("POST", target.path_of(0), target.bodies[0])
    if not reply.ok:
        return Probed(f"{reply.status} {reply.says}", reply.status in _OF_THE_INPUTS["http1"], reply.headers)
    bad = _item_error(reply.document) if target.path.endswith("/batch-predict") else ""
    return Probed(bad, bool(bad), reply.headers)


def _over_grpc(target: Target, timeout_s: float) -> Probed:
    heard = grpc_asking.call(target, timeout_s)
    if heard.status == 0:
        return Probed("")
    name = Status(heard.status).name if heard.status <= max(Status) else str(heard.status)
    return Probed(f"{name} {heard.says}", heard.status in _OF_THE_INPUTS["grpc"])


def _item_error(document: Any) -> str:
    for each in document if isinstance(document, list) else ():
        if isinstance(each, dict) and isinstance(each.get("error"), str) and "code" in each:
            return str(each["error"])
    return ""


def _start(body: bytes) -> str:
    body = body.strip()
    text = body[:200].decode()
    return text if len(body) <= len(text) else f"{text}..."
