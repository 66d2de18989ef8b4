"""One inference on behalf of one HTTP request: what every protocol does between decoding and encoding.

decode -> Inference(...).start(inputs) -> model -> encode -> HTTP response

Rules:
- Every error that is answered goes through `App.fail`, which tells `HttpRequest.on_error`: it is counted there, once.
- No request leaves a reference cycle behind, for the collector runs seldom: what refers back is let go when it is done.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Protocol, TypeVar

from paceline.core.errors import Cancelled, ModelFailed, Overloaded, PacelineError
from paceline.core.requests import InferRequest
from paceline.core.tensors import Tensors
from paceline.engine.model import ServedModel
from paceline.server.http1 import HttpRequest

Body = bytes | list[bytes | memoryview]
Encoded = tuple[Body, bytes, bytes]
"""Body, content type, further header lines."""

Encode = Callable[[InferRequest], Encoded]
T = TypeVar("T")


class PerModel(dict[ServedModel, T]):
    """What a protocol makes once for each model, such as its decoders; it must not refer to the model.

    A model that is closed is forgotten, so that its memory can be returned.
    """

    def __init__(self, make: Callable[[ServedModel], T]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, model: ServedModel) -> T:
        made = self._make(model)
        if not model.closed:
            self[model] = made
            model.on_close.append(self._forget)
        return made

    def _forget(self, model: ServedModel) -> None:
        self.pop(model, None)


class Desk(Protocol):
    """Who gives the answers of one kind of wire: `App` for HTTP, `Grpc` for gRPC."""

    def deadline(self, call: HttpRequest, /) -> float:
        """Absolute seconds by which the client wants its answer."""

    def reply(
        self, call: HttpRequest, status: int, body: Body, content_type: bytes = b"", extra: bytes = b"", /
    ) -> None:
        """Answer."""

    def fail(self, call: HttpRequest, error: PacelineError, /) -> None:
        """Answer with an error."""

    def crash(self, call: HttpRequest, /) -> None:
        """Answer for an exception that nobody expected."""


class Inference:
    """One call of a model.

    Creating it checks that the model could take the request at all, which is cheap, before the body is decoded,
    which is not.

    Args:
        protocol: label in the metrics.

    Raises:
        Overloaded: the request would not be answered in time.
    """

    _rescue: Callable[[Inference, InferRequest], None] | None = None
    _encode: Encode
    _infer: InferRequest | None = None
    # A single row is admitted before it is decoded.
    _admitted_rows = 1
    nonfinite_ok = False

    def __init__(self, desk: Desk, http: HttpRequest, model: ServedModel, protocol: str) -> None:
        self._desk = desk
        self._http = http
        self.model = model
        self.protocol = protocol
        http.on_error = partial(_count, model, protocol)
        self._deadline = desk.deadline(http)
        model.admit(self._deadline, len(http.body))

    def expire_after(self, timeout_s: float, *, at_most: bool) -> None:
        """Set the deadline that the body asks for.

        Args:
            at_most: keep the present one if it is earlier.
        """
        deadline = self._http.received + timeout_s
        self._deadline = min(deadline, self._deadline) if at_most else deadline
        self._admitted_rows = 0

    def start(
        self,
        inputs: Tensors,
        encode: Encode,
        rescue: Callable[[Inference, InferRequest], None] | None = None,
        size_bytes: int = 0,
    ) -> None:
        """Queue the request; `encode` turns the finished request into the response.

        Args:
            rescue: called in place of answering with an error when the model failed.
            size_bytes: what it takes in the queue, where that is more than its body.

        Raises:
            Overloaded, RequestTooLarge: it was not queued.
        """
        self._encode = encode
        if rescue is not None:
            self._rescue = rescue
        http = self._http
        if size_bytes > len(http.body):
            self._admitted_rows = 0
        size_bytes = max(size_bytes, len(http.body))
        request = self._infer = self.model.request(inputs, self._deadline, self._done, size_bytes)
        request.nonfinite_ok = self.nonfinite_ok
        try:
            self.model.submit(request, admitted=request.rows == self._admitted_rows)
        except PacelineError:
            self._infer = None
            raise
        http.on_disconnect = self._gone

    def answer_with(self, work: Callable[[], Coroutine[Any, Any, Encoded | PacelineError]]) -> None:
        """Answer with what a coroutine returns; it is cancelled when the client leaves."""
        task = asyncio.get_running_loop().create_task(self._finish(work))

        def gone() -> None:
            task.cancel()
            self._gone()

        self._http.on_disconnect = gone

    async def run(self, inputs: Tensors, size_bytes: int, *, errors_by_row: bool = False) -> InferRequest:
        """Run one of the requests that this call consists of, and wait until it has ended.

        Args:
            errors_by_row: its outputs may hold a row's own error.
        """
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def on_done(_: InferRequest) -> None:
            if not done.done():
                done.set_result(None)

        request = self.model.request(inputs, self._deadline, on_done, size_bytes)
        request.nonfinite_ok = self.nonfinite_ok
        request.errors_by_row = errors_by_row
        try:
            self.model.submit(request)
            await done
        except PacelineError as error:
            request.error = error
        except asyncio.CancelledError:
            self.model.cancel(request)
            raise
        if request.error is not None:
            _forget_frames(request.error)
        return request

    async def _finish(self, work: Callable[[], Coroutine[Any, Any, Encoded | PacelineError]]) -> None:
        http = self._http
        try:
            result = await work()
        except Exception:
            http.on_disconnect = None
            self._desk.crash(http)
            return
        if isinstance(result, PacelineError):
            http.on_disconnect = None
            self._desk.fail(http, result)
        else:
            self._reply(_unchanged, result)

    def _gone(self) -> None:
        http = self._http
        http.on_disconnect = None
        request, self._infer = self._infer, None
        if request is not None:
            self.model.cancel(request)
        _count(self.model, self.protocol, http, Cancelled("the client closed the connection"))

    def _done(self, request: InferRequest) -> None:
        self._infer = None  # the two refer to one another
        error = request.error
        if error is None:
            self._reply(self._encode, request)
            return
        self._http.on_disconnect = None
        _forget_frames(error)
        if self._rescue is not None and isinstance(error, ModelFailed):
            self._rescue(self, request)
        else:
            self._desk.fail(self._http, error)

    def _reply(self, encode: Callable[[Any], Encoded], result: Any) -> None:
        http = self._http
        http.on_disconnect = None
        try:
            body, content_type, extra = encode(result)
            if isinstance(result, InferRequest):
                extra += timing(result)
            self._desk.reply(http, 200, body, content_type, extra)
        except PacelineError as error:
            self._desk.fail(http, error)
        except Exception:
            # Nothing above the event loop would answer, and the rest of the batch must not suffer.
            self._desk.crash(http)
        else:
            telemetry = self.model.telemetry
            telemetry.requests[self.protocol, "ok"] += 1
            telemetry.latency_s.observe(time.monotonic() - http.received)


def timing(request: InferRequest) -> bytes:
    """Header lines that tell what happened to a request."""
    lines = b"" if request.cached is None else _cache_lines(request)
    if not request.batch_rows:
        return lines
    return lines + b"server-timing: queue;dur=%.3f, infer;dur=%.3f\r\nx-batch-size: %d\r\n" % (
        request.queue_s * 1e3,
        request.service_s * 1e3,
        request.batch_rows,
    )


def _cache_lines(request: InferRequest) -> bytes:
    return b"x-cache: hit\r\nage: %d\r\n" % request.age_s if request.cached else b"x-cache: miss\r\n"


def _unchanged(encoded: Encoded) -> Encoded:
    return encoded


def _count(model: ServedModel, protocol: str, http: HttpRequest, error: PacelineError) -> None:
    telemetry = model.telemetry
    if isinstance(error, Overloaded):
        telemetry.rejected[error.reason] += 1
    telemetry.requests[protocol, error.code] += 1
    telemetry.failed_s += time.monotonic() - http.received


def _forget_frames(error: BaseException | None) -> None:
    """A request keeps its error; the error's frames would keep the request."""
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__
