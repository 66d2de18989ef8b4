"""One inference on behalf of one HTTP request: what every protocol does between decoding and encoding.

decode -> Inference(...).start(inputs) -> model -> encode -> HTTP response
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

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

    _rescue: Callable[[], None] | None = None
    _encode: Encode
    _infer: InferRequest | None = None
    nonfinite_ok = False

    def __init__(self, app: App, http: HttpRequest, model: ServedModel, protocol: str) -> None:
        self._app = app
        self._http = http
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
        if rescue is not None:
            self._rescue = rescue
        http = self._http
        request = self._infer = self.model.request(inputs, self.deadline, self._done, len(http.body))
        request.nonfinite_ok = self.nonfinite_ok
        try:
            # A single row was admitted before it was decoded.
            self.model.submit(request, admitted=request.rows == 1)
        except Overloaded as error:
            self._count(error)
            raise
        http.on_disconnect = self._gone

    def start_each(self, items: list[Tensors | PacelineError], encode: Callable[[list[Outcome]], Encoded]) -> None:
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
                self._reply(encode, outcomes)

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
            self._reply(encode, outcomes)

    def _gone(self) -> None:
        request, self._infer = self._infer, None
        if request is not None:
            self.model.cancel(request)
        self._count(Cancelled("the client closed the connection"))

    def _done(self, request: InferRequest) -> None:
        self._infer = None  # the two refer to one another: do not leave them to the garbage collector
        error = request.error
        if error is None:
            self._reply(self._encode, request)
        elif self._rescue is not None and isinstance(error, ModelFailed):
            self._rescue()
        else:
            self._http.on_disconnect = None
            self._count(error)
            self._app.fail(self._http, error)

    def _reply(self, encode: Callable[[Any], Encoded], result: Any) -> None:
        http = self._http
        http.on_disconnect = None
        try:
            body, content_type, extra = encode(result)
            if isinstance(result, InferRequest) and result.batch_rows:
                extra += b"server-timing: queue;dur=%.3f, infer;dur=%.3f\r\nx-batch-size: %d\r\n" % (
                    result.queue_s * 1e3,
                    result.service_s * 1e3,
                    result.batch_rows,
                )
            self._app.reply(http, 200, body, content_type, extra)
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
