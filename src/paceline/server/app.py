"""From a complete HTTP request to its answer: identity, content encoding, route, errors, access log.

Every request that a connection delivers gets exactly one answer here, whatever a handler raises.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
import sys
import time
import traceback
from collections.abc import Callable
from typing import Final

import orjson

from paceline.core.errors import DecodeError, InternalError, PacelineError
from paceline.engine.engine import Engine
from paceline.server import encoding
from paceline.server.grpc import Grpc, GrpcCall
from paceline.server.http1 import JSON, READ_BYTES, HttpRequest, Limits
from paceline.server.http_request import OpenConnection
from paceline.server.routes import Route, Router, Unrouted
from paceline.server.shared_repository import AnyRepository
from paceline.server.status import Rejection, describe, error_body
from paceline.server.supervised import Supervised

_MAX_ID: Final = 100
_VISIBLE: Final = bytes(range(0x21, 0x7F))
_TRACEBACK_EVERY_S: Final = 1.0
_LEAST_UNREAD_S: Final = 1e-3
_MAX_TIMEOUT_MS: Final = 24 * 3600 * 1000


class App:
    """What all connections of a server share.

    Args:
        routes: made by the protocols.
        timeout_s: deadline of a request that names none.
        debug: show clients the model's own error messages.
        log: where access lines go; None: nowhere.
        repository: where the models come from; None: a single file.

    Attributes:
        held_back: not ready, whatever the models are: other replicas are not ready yet.
        supervised: the way to the other replicas; None: there are none.
    """

    def __init__(
        self,
        engine: Engine,
        limits: Limits,
        *,
        timeout_s: float = 30.0,
        debug: bool = False,
        log: Callable[[bytes], object] | None = None,
        repository: AnyRepository | None = None,
    ) -> None:
        self.engine = engine
        self.repository = repository
        self.limits = limits
        self.timeout_s = timeout_s
        self.debug = debug
        self.draining = False
        self.held_back = False
        self.supervised: Supervised | None = None
        self.read_buffer = memoryview(bytearray(READ_BYTES))
        self.connections: set[OpenConnection] = set()
        self.receiving_bytes = 0
        self.refused = 0
        self._log = log
        self._in_pass = False
        self._traced_at = 0.0
        self._cpu_s = 0.0
        self._pass_began = 0.0
        self._unread_s = 0.0
        self._router = Router(())
        self.grpc = Grpc(self)
        self._ids = itertools.count()
        # A random stem and a counter: unique among replicas, at a tenth of the cost of a UUID.
        self._id_stem = secrets.token_hex(6).encode("ascii")

    def mount(self, routes: list[Route]) -> None:
        """Set the table of routes."""
        self._router = Router(routes)

    def drain(self) -> None:
        """Be not ready from now on, and tell those who watch."""
        self.draining = True
        self._tell_watchers()

    def take_part(self) -> None:
        """Be ready as soon as the models are: nothing else is waited for any more."""
        self.held_back = False
        self._tell_watchers()

    def _tell_watchers(self) -> None:
        for callback in tuple(self.engine.on_change):
            callback()

    def routed(self, method: str, path: str) -> bool:
        """True when a route answers this method and path."""
        try:
            self._router.find(method.encode(), path.encode())
        except Unrouted:
            return False
        return True

    @property
    def ready(self) -> bool:
        """True when every model is warm and nothing keeps the server from taking part."""
        return self.engine.ready and not self.draining and not self.held_back

    @property
    def alone(self) -> bool:
        """True when nobody can wait while the loop computes: one client at most, with one request under way."""
        connections = self.connections
        return len(connections) <= 1 and all(connection.streams <= 1 for connection in connections)

    # -- what connections call --------------------------------------------------------------------------------

    def handle(self, request: HttpRequest) -> None:
        """Answer a request, now or later."""
        if not self._in_pass:
            self._begin_pass(request.received)
        self._identify(request)
        try:
            handler = self._router.find(request.method, request.path)
            headers = request.headers
            if b"content-encoding" in headers:
                self._inflate(request, headers[b"content-encoding"])
            handler(request)
        except PacelineError as error:
            self.fail(request, error)
        except (Unrouted, encoding.BadEncoding) as problem:
            self._reject(request, problem.rejection)
        except Exception:
            self.crash(request)

    def begin(self, call: GrpcCall) -> None:
        """A gRPC call begins: its identity, if the client or the log asks for one, and its line in the log."""
        if not self._in_pass:
            self._begin_pass(call.received)
        if self._log is not None:
            self._identify(call)
            call.on_finished = self._log_access
        elif b"x-request-id" in call.headers:
            self._identify(call)

    def refuse(self, request: HttpRequest, rejection: Rejection) -> None:
        """Answer a request that is not valid HTTP or breaks a limit."""
        self.refused += 1
        self._identify(request)
        self._reject(request, rejection)

    # -- what protocols call ----------------------------------------------------------------------------------

    def deadline(self, request: HttpRequest) -> float:
        """Absolute seconds by which the client wants its answer.

        Raises:
            DecodeError: the header `X-Request-Timeout-Ms` is not a positive number.
        """
        wish = request.headers.get(b"x-request-timeout-ms")
        if wish is None:
            return request.received + self.timeout_s
        try:
            timeout_ms = float(wish)
        except ValueError:
            timeout_ms = -1.0
        if not 0 < timeout_ms <= _MAX_TIMEOUT_MS:
            shown = wish[:40].decode("latin-1")
            raise DecodeError(f"x-request-timeout-ms: expected milliseconds from 1 to {_MAX_TIMEOUT_MS}, got {shown!r}")
        deadline = request.received + timeout_ms / 1000
        # The answer will wait for a busy loop as long as the request did.
        return deadline - 2 * self.unread(request)

    def reply(
        self,
        request: HttpRequest,
        status: int,
        body: bytes | list[bytes | memoryview],
        content_type: bytes = JSON,
        extra: bytes = b"",
    ) -> None:
        """Answer, compressed when the client asked for that and it is worth it."""
        accept = request.headers.get(b"accept-encoding")
        if accept is not None:
            name = encoding.chosen(accept)
            if name:
                joined = b"".join(body) if isinstance(body, list) else body
                body = joined
                if len(joined) >= encoding.MIN_COMPRESSED_BYTES:
                    body = encoding.compress(joined, name)
                    extra += b"content-encoding: %s\r\nvary: accept-encoding\r\n" % name
        request.respond(status, body, content_type, extra)
        if self._log is not None:
            self._log_access(request)

    def fail(self, request: HttpRequest, error: PacelineError) -> None:
        """Answer with an error."""
        status, body, extra = self.told(request, error)
        self.reply(request, status, body, JSON, extra)

    def told(self, request: HttpRequest, error: PacelineError) -> tuple[int, bytes, bytes]:
        """Status, body and extra header lines for an error, which is counted, and logged if it is ours."""
        if request.on_error is not None:
            request.on_error(request, error)
        if isinstance(error, InternalError):
            sys.stderr.write(f"paceline: internal error: {error}\n")
        return describe(error, request.id, self.debug)

    def end_answer(self, request: HttpRequest) -> None:
        """An answer in parts is over."""
        request.end_answer()
        if self._log is not None:
            self._log_access(request)

    def crash(self, request: HttpRequest) -> None:
        """Answer for an exception that nobody expected: a defect of ours, logged whole, but once a second at most."""
        now = time.monotonic()
        if now - self._traced_at >= _TRACEBACK_EVERY_S:
            self._traced_at = now
            traceback.print_exc()
        if not request.answered:
            self.fail(request, InternalError("internal error"))

    # -- inside -----------------------------------------------------------------------------------------------

    def _begin_pass(self, now: float) -> None:
        """Estimate how long the requests read in this pass of the event loop may have lain unread.

        A busy loop reads a request one pass after it came. Under overload that is most of the delay, and a deadline
        that did not count it would be kept here and missed at the client. What the loop computed since it last read
        is the time in which it could not read; when it was idle for most of the time, nothing waited.
        """
        cpu_s = time.thread_time()
        busy_s, self._cpu_s = cpu_s - self._cpu_s, cpu_s
        passed_s, self._pass_began = now - self._pass_began, now
        self._unread_s = busy_s if busy_s >= _LEAST_UNREAD_S and busy_s > passed_s / 2 else 0.0
        self._in_pass = True
        asyncio.get_running_loop().call_soon(self._end_pass)

    def unread(self, request: HttpRequest) -> float:
        """Seconds that this request may have lain unread: not longer than since its client's last answer."""
        if not self._unread_s:
            return 0.0
        return min(self._unread_s, max(0.0, request.received - request.connection.answered_at))

    def _end_pass(self) -> None:
        self._in_pass = False

    def _identify(self, request: HttpRequest) -> None:
        wish = request.headers.get(b"x-request-id")
        if wish is not None and 0 < len(wish) <= _MAX_ID and not wish.translate(None, _VISIBLE):
            request.id = wish
        else:
            request.id = b"%s-%x" % (self._id_stem, next(self._ids))

    def _inflate(self, request: HttpRequest, name: bytes) -> None:
        if name.strip().lower() != b"identity":
            request.body = encoding.inflate(request.body, name, self.limits.body_bytes)

    def _reject(self, request: HttpRequest, rejection: Rejection) -> None:
        body = error_body(rejection.message, rejection.code, request.id)
        self.reply(request, rejection.status, body, JSON, rejection.extra)

    def _log_access(self, request: HttpRequest) -> None:
        assert self._log is not None
        peer = request.connection.peer
        line = {
            "time": time.time(),
            "client": peer,
            "method": _shown(request.method),
            "path": _shown(request.path),
            "status": request.status,
            "request_id": _shown(request.id),
            "ms": round((time.monotonic() - request.received) * 1000, 3) if request.received else None,
        }
        if isinstance(request, GrpcCall):
            line["status"] = 200
            line["grpc_status"] = request.grpc_status.name
        if b"traceparent" in request.headers:
            line["traceparent"] = _shown(request.headers[b"traceparent"])
        self._log(orjson.dumps(line) + b"\n")


def _shown(text: bytes) -> str:
    """ASCII only: some terminals and log readers take characters above it for commands or line ends."""
    return text.decode("ascii", "backslashreplace")
