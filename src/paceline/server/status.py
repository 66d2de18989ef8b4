"""Which status code and body does an error get, over HTTP and over gRPC? The only place that knows.

One JSON body for every route:
`{"error": "text", "code": "queue_full", "request_id": "...", "retry_after_ms": 120, "details": [...]}`.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import orjson

from paceline.core import errors

_STATUS: dict[type[errors.PacelineError], int] = {
    errors.InvalidRequest: 400,
    errors.DecodeError: 400,
    errors.SignatureMismatch: 400,
    errors.RequestTooLarge: 413,
    errors.PreconditionFailed: 400,
    errors.ModelNotFound: 404,
    errors.ModelNotReady: 503,
    errors.Overloaded: 503,
    errors.DeadlineExceeded: 504,
    errors.Cancelled: 499,
    errors.ModelFailed: 500,
    errors.Quarantined: 422,
    errors.InstanceLost: 503,
    errors.InternalError: 500,
}
GRPC_CODES: dict[type[errors.PacelineError], str] = {
    errors.InvalidRequest: "INVALID_ARGUMENT",
    errors.DecodeError: "INVALID_ARGUMENT",
    errors.SignatureMismatch: "INVALID_ARGUMENT",
    errors.RequestTooLarge: "RESOURCE_EXHAUSTED",
    errors.PreconditionFailed: "FAILED_PRECONDITION",
    errors.ModelNotFound: "NOT_FOUND",
    errors.ModelNotReady: "UNAVAILABLE",
    errors.Overloaded: "RESOURCE_EXHAUSTED",
    errors.DeadlineExceeded: "DEADLINE_EXCEEDED",
    errors.Cancelled: "CANCELLED",
    errors.ModelFailed: "INTERNAL",
    errors.Quarantined: "FAILED_PRECONDITION",
    errors.InstanceLost: "UNAVAILABLE",
    errors.InternalError: "INTERNAL",
}
"""Error -> the name of its gRPC status."""

_EXTRA_REASONS = {499: "Client Closed Request"}

REASONS: dict[int, bytes] = {
    **{status.value: f"{status.value} {status.phrase}".encode() for status in HTTPStatus},
    **{code: f"{code} {phrase}".encode() for code, phrase in _EXTRA_REASONS.items()},
}
"""Status code -> what follows `HTTP/1.1 `."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """A request refused by the wire itself: malformed HTTP, a limit, an unknown route."""

    status: int
    code: str
    message: str
    extra: bytes = b""


def status_of(error: errors.PacelineError) -> int:
    """HTTP status of an error."""
    return _STATUS.get(type(error), 500)


def error_body(
    message: str,
    code: str,
    request_id: bytes,
    *,
    retry_after_s: float | None = None,
    details: tuple[errors.Detail, ...] = (),
) -> bytes:
    """The JSON body of every error."""
    body: dict[str, Any] = {"error": message, "code": code, "request_id": request_id.decode("latin-1")}
    if retry_after_s is not None:
        body["retry_after_ms"] = max(1, round(retry_after_s * 1000))
    if details:
        body["details"] = [{"path": detail.path, "message": detail.message} for detail in details]
    return orjson.dumps(body)


def describe(error: errors.PacelineError, request_id: bytes, debug: bool) -> tuple[int, bytes, bytes]:
    """Status, body and extra header lines of an error."""
    message, code, extra = shown_message(error, debug), error.code, b""
    retry_after_s: float | None = None
    details: tuple[errors.Detail, ...] = ()
    if isinstance(error, errors.Overloaded):
        code = error.reason
        retry_after_s = told_retry_s(error)
        extra = b"retry-after: %d\r\n" % max(1, -int(-retry_after_s // 1))
    elif isinstance(error, errors.InvalidRequest):
        details = error.details
    body = error_body(message, code, request_id, retry_after_s=retry_after_s, details=details)
    return status_of(error), body, extra


def told_retry_s(error: errors.Overloaded) -> float:
    """The wait that a client is told: jittered by a fifth, so that they do not all come back together."""
    return error.retry_after_s * random.uniform(1.0, 1.2)


def shown_message(error: errors.PacelineError, debug: bool) -> str:
    """What a client is told about an error."""
    if isinstance(error, errors.ModelFailed) and debug and error.detail:
        return f"{error.message}: {error.detail}"
    if isinstance(error, errors.InternalError) and not debug:
        return "internal error"
    return error.message
