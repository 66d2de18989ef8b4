"""What is a gRPC call to those who answer it? And how do errors look to gRPC clients?

A call is an HTTP/2 request to `/package.Service/Method` whose body is a sequence of messages. The connection takes
the messages out of their frames and puts answers into theirs; a handler sees messages and a status only.

Rules:
- A unary call is handed to its method's handler once its one message is complete, as an HTTP request is: the message
  is its `body`. A streaming call is handed over as soon as its headers are there; its messages follow.
- Every call ends exactly once, with a status; `on_disconnect` is called instead when the client left or cancelled.
- A call that would go on for as long as its client likes is ended when the server drains: see `on_drain`.
- Refusals for lack of capacity are RESOURCE_EXHAUSTED, with the time after which to come back: clients repeat
  UNAVAILABLE at once, which multiplies an overload.
"""

from __future__ import annotations

import base64
import enum
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, cast

from paceline.core import errors
from paceline.server.http_request import Answer, HttpRequest
from paceline.server.status import GRPC_CODES, shown_message, told_retry_s

if TYPE_CHECKING:
    from paceline.server.app import App

_UNITS_S: Final = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_MAX_TIMEOUT_DIGITS: Final = 8
_MAX_TIMEOUT_S: Final = 24 * 3600.0
_TRACEBACK_EVERY_S: Final = 1.0
# Messages travel in a header, of which clients take so many bytes. TensorFlow Serving cuts at the same place.
_MAX_TOLD: Final = 1024


class Status(enum.IntEnum):
    """The status codes of gRPC."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class GrpcConnection(Protocol):
    """What a call needs of its connection."""

    answered_at: float

    def write_message(self, call: GrpcCall, message: Answer) -> None:
        """Send one message; the response headers go before the first."""

    def write_status(self, call: GrpcCall, status: Status, message: str, trailers: Trailers) -> None:
        """End the call."""

    def hold_back(self, held: bool) -> None:
        """Give the client no more room to send, or again."""


Trailers = Iterable[tuple[str, bytes]]


class GrpcCall(HttpRequest):
    """One call: an HTTP request that is answered with messages and a status.

    Attributes:
        body: the message of a unary call.
        body_seen: that message is there, though the client has not ended its side.
        began: monotonic seconds when the headers had arrived, from when on the client's timeout counts.
        on_message: streaming calls: called with each message of the client, in order.
        on_end: streaming calls: called once the client has sent its last message.
        on_drain: called when the server drains and the client knows: the call shall end as soon as what has been asked
            is answered. A streaming call without it is ended then; a unary one is always answered.
        on_finished: called when the call ends with a status; writes the access log.
    """

    began = 0.0
    body_seen = False
    grpc_status = Status.OK
    on_message: Callable[[bytes], None] | None = None
    on_end: Callable[[], None] | None = None
    on_drain: Callable[[], None] | None = None
    on_finished: Callable[[GrpcCall], None] | None = None

    def send(self, message: Answer) -> None:
        """Send one message."""
        cast(GrpcConnection, self.connection).write_message(self, message)

    def hold(self, held: bool) -> None:
        """Give the client no more room to send, or again: what is under way already still comes."""
        cast(GrpcConnection, self.connection).hold_back(held)

    def finish(self, status: Status = Status.OK, message: str = "", trailers: Trailers = ()) -> None:
        """End the call, once.

        Args:
            message: for people, when the status is not OK.
            trailers: further metadata behind the status.
        """
        if self.answered:
            return  # refused by the connection while its method worked on it
        self.answered = True
        self.grpc_status = status
        if self.on_finished is not None:
            self.on_finished(self)
        cast(GrpcConnection, self.connection).write_status(self, status, message, trailers)

    def dismiss(self) -> None:
        """End the call because the server drains; its method is told as if the client had left."""
        gone, self.on_disconnect = self.on_disconnect, None
        if gone is not None:
            gone()
        self.finish(Status.UNAVAILABLE, "the server is draining")


@dataclass(frozen=True)
class Method:
    """One method of a service.

    Attributes:
        path: `/package.Service/Method`.
        streaming: the handler is called with the headers and sets `on_message` and `on_end`; else with the message.
    """

    path: bytes
    handler: Callable[[GrpcCall], None]
    streaming: bool = False


class Grpc:
    """Answers calls: the methods by path, and what happens to errors.

    It is the `Desk` of inferences that come by gRPC.
    """

    def __init__(self, app: App) -> None:
        self._app = app
        self._methods: dict[bytes, Method] = {}
        self._load: Callable[[], Iterable[Method]] | None = None
        self._traced_at = 0.0

    def mount(self, methods: Iterable[Method]) -> None:
        """Add methods."""
        self._methods.update({method.path: method for method in methods})

    def mount_later(self, load: Callable[[], Iterable[Method]]) -> None:
        """Add what `load` makes, once a method is looked for: importing protobuf would delay the start."""
        self._load = load

    def find(self, path: bytes) -> Method | None:
        """The method of that path."""
        if self._load is not None:
            load, self._load = self._load, None
            self.mount(load())
        return self._methods.get(path)

    def handle(self, call: GrpcCall, method: Method) -> None:
        """Answer a call, now or later."""
        self._app.begin(call)
        self._guarded(call, method.handler, call)

    def deliver(self, call: GrpcCall, message: bytes) -> None:
        """Give a streaming call its next message."""
        if call.on_message is not None:
            self._guarded(call, call.on_message, message)

    def half_close(self, call: GrpcCall) -> None:
        """Tell a streaming call that its client has sent everything."""
        if call.on_end is not None:
            self._guarded(call, call.on_end)

    def drain(self, call: GrpcCall, method: Method) -> None:
        """End a call that nobody but its client would end."""
        if call.on_drain is not None:
            self._guarded(call, call.on_drain)
        elif method.streaming:
            self._guarded(call, call.dismiss)

    def _guarded(self, call: GrpcCall, work: Callable[..., None], *arguments: object) -> None:
        try:
            work(*arguments)
        except errors.PacelineError as error:
            self.fail(call, error)
        except Exception:
            self.crash(call)

    # -- the desk ---------------------------------------------------------------------------------------------

    def deadline(self, call: HttpRequest) -> float:
        """Absolute seconds by which the client wants its answer.

        Raises:
            DecodeError: the header `grpc-timeout` is malformed.
        """
        wish = call.headers.get(b"grpc-timeout")
        if wish is None:
            return call.received + self._app.timeout_s
        digits, unit = wish[:-1], _UNITS_S.get(wish[-1:])
        if unit is None or not digits.isdigit() or len(digits) > _MAX_TIMEOUT_DIGITS:
            shown = wish[:40].decode("latin-1")
            raise errors.DecodeError(f"grpc-timeout: expected digits and a unit of H, M, S, m, u or n, got {shown!r}")
        assert isinstance(call, GrpcCall)
        deadline = call.began + min(int(digits) * unit, _MAX_TIMEOUT_S)
        # The answer will wait for a busy loop as long as the call did.
        return deadline - 2 * self._app.unread(call)

    def reply(
        self, call: HttpRequest, status: int, body: Answer, content_type: bytes = b"", extra: bytes = b""
    ) -> None:
        """Answer a unary call with its message."""
        assert isinstance(call, GrpcCall)
        call.send(body)
        call.finish()

    def fail(self, call: HttpRequest, error: errors.PacelineError) -> None:
        """Answer with an error."""
        assert isinstance(call, GrpcCall)
        if call.on_error is not None:
            call.on_error(call, error)
        call.finish(*grpc_status(error, self.told(error)))

    def crash(self, call: HttpRequest) -> None:
        """Answer for an exception that nobody expected."""
        self.log_exception()
        if not call.answered:
            self.fail(call, errors.InternalError("internal error"))

    def log_exception(self) -> None:
        """Log the exception being handled, a defect of ours, whole, but once a second at most."""
        now = time.monotonic()
        if now - self._traced_at >= _TRACEBACK_EVERY_S:
            self._traced_at = now
            traceback.print_exc()

    def told(self, error: errors.PacelineError) -> str:
        """What a client is told about an error; one of ours is logged."""
        if isinstance(error, errors.InternalError):
            sys.stderr.write(f"paceline: internal error: {error}\n")
        text = shown_message(error, self._app.debug)
        return text if len(text) <= _MAX_TOLD else text[:_MAX_TOLD] + "...TRUNCATED"


def grpc_status(error: errors.PacelineError, text: str) -> tuple[Status, str, Trailers]:
    """Status, message and trailers of an error that is told in these words."""
    status = Status[GRPC_CODES.get(type(error), "INTERNAL")]
    trailers: list[tuple[str, bytes]] = []
    if isinstance(error, errors.Overloaded):
        # https://github.com/grpc/proposal/blob/master/A6-client-retries.md#pushback
        retry_s = told_retry_s(error)
        trailers.append(("grpc-retry-pushback-ms", b"%d" % max(1, round(retry_s * 1000))))
        trailers.append(("grpc-status-details-bin", _retry_info(status, text, retry_s)))
    return status, text, trailers


def _retry_info(status: Status, text: str, retry_s: float) -> bytes:
    """The same for clients that look for `google.rpc.RetryInfo`."""
    from paceline.server.messages import message  # importing protobuf would delay the start

    delay = {"seconds": int(retry_s), "nanos": int(retry_s % 1 * 1e9)}
    details = message("google.rpc.Status")(code=status, message=text)
    details.details.add().Pack(message("google.rpc.RetryInfo")(retry_delay=delay))
    return base64.b64encode(details.SerializeToString()).rstrip(b"=")
