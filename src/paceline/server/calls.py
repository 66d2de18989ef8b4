"""One inference on behalf of one HTTP request: what every protocol does between decoding and encoding.

decode -> Inference(...).start(inputs) -> model -> encode -> HTTP response
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from paceline.core.errors import Cancelled, ModelFailed, Overloaded, PacelineError
from paceline.core.requests import InferRequest
from paceline.core.tensors import Tensors
from paceline.engine.model import ServedModel
from paceline.server.app import App
from paceline.server.http1 import JSON, HttpRequest

Body = bytes | list[bytes | memoryview]
Encoded = tuple[Body, bytes, bytes]
"""Body, content type, further header lines."""

Outcome = InferRequest | PacelineError | None
"""A finished request, or the error that its item got."""

Encode = Callable[[InferRequest], Encoded]


class Inference:
    """One call of a model over HTTP.

    Creating it checks that the model could take the request at all, which is cheap, before the body is decoded,
    which is not.

    Args:
        protocol: label in the metrics.
    Raises:
        Overloaded: the request would not be answered in time.
    """

    __slots__ = ("_app", "_encode", "_http", "_infer", "_rescue", "deadline", "model", "protocol")

    def __init__(self, app: App, http: HttpRequest, model: ServedModel, protocol: str) -> None:
        self._app = app
        self._http = http
        self._encode: Encode | None = None
        self._rescue: Callable[[], None] | None = None
        self._infer: InferRequest | None = None
        self.model = model
        self.protocol = protocol
        self.deadline = app.deadline(http)
        try:
            model.admit(self.deadline, len(http.body))
        except Overloaded as error:
            self._count(error)
            raise

    def start(self, inputs: Tensors, encode: Encode, rescue: Callable[[], None] | None = None) -> None:
        """Queue the request; `encode` turns the finished request into the response.

        Args:
            rescue: called in place of answering with an error when the model failed.
        """
        self._encode = encode
        self._rescue = rescue
        http = self._http
        request = self._infer = self.model.request(inputs, self.deadline, self._done, len(http.body))
        try:
            self.model.submit(request)
        except Overloaded as error:
            self._count(error)
            raise
        http.on_disconnect = self._gone

    def start_each(
        self, items: list[Tensors | PacelineError], encode: Callable[[list[Outcome]], Encoded]
    ) -> None:
        """Queue one request per item, each failing alone; `encode` gets the outcomes in the items' order."""
        http, model = self._http, self.model
        outcomes: list[Outcome] = [item if isinstance(item, PacelineError) else None for item in items]
        waiting = sum(outcome is None for outcome in outcomes)
        requests: list[InferRequest] = []

        def done(request: InferRequest, index: int) -> None:
            nonlocal waiting
            outcomes[index] = request.error or request
            waiting -= 1
            if waiting == 0:
                self._reply(lambda: encode(outcomes), b"")

        def gone() -> None:
            for request in requests:
                model.cancel(request)
            self._count(Cancelled("the client closed the connection"))

        http.on_disconnect = gone
        size_bytes = len(http.body) // max(1, len(items))
        for index, item in enumerate(items):
            if isinstance(item, PacelineError):
                continue
            request = model.request(item, self.deadline, partial(done, index=index), size_bytes)
            requests.append(request)
            try:
                model.submit(request)
            except Overloaded as error:
                request.error = error
                done(request, index)
        if not requests:
            self._reply(lambda: encode(outcomes), b"")

    def _gone(self) -> None:
        if self._infer is not None:
            self.model.cancel(self._infer)
            self._count(Cancelled("the client closed the connection"))

    def _done(self, request: InferRequest) -> None:
        error = request.error
        if error is None:
            assert self._encode is not None
            extra = b"server-timing: queue;dur=%.3f, infer;dur=%.3f\r\nx-batch-size: %d\r\n" % (
                request.queue_s * 1e3,
                request.service_s * 1e3,
                request.batch_rows,
            )
            self._reply(partial(self._encode, request), extra)
        elif self._rescue is not None and isinstance(error, ModelFailed):
            self._rescue()
        else:
            self._http.on_disconnect = None
            self._count(error)
            self._app.fail(self._http, error)

    def _reply(self, encode: Callable[[], Encoded], extra: bytes) -> None:
        http = self._http
        http.on_disconnect = None
        try:
            body, content_type, more = encode()
            self._app.reply(http, 200, body, content_type, more + extra)
        except PacelineError as error:
            self._count(error)
            self._app.fail(http, error)
        except Exception:
            # Nothing above the event loop would answer, and the rest of the batch must not suffer.
            self._app.crash(http)
        else:
            telemetry = self.model.telemetry
            telemetry.requests[self.protocol, "ok"] += 1
            telemetry.latency_s.observe(time.monotonic() - http.received)

    def _count(self, error: PacelineError) -> None:
        telemetry = self.model.telemetry
        code = error.code
        if isinstance(error, Overloaded):
            telemetry.rejected[error.reason] += 1
        telemetry.requests[self.protocol, code] += 1
        telemetry.failed_s += time.monotonic() - self._http.received


__all__ = ["JSON", "Body", "Encode", "Encoded", "Inference", "Outcome"]
