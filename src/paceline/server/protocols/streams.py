"""Server-sent events: an answer that goes out in parts, as fast as the model makes them and the client reads them.

    data: JSON                          one part
    event: end, data: {"parts": 3}      that was all
    event: error, data: {"error": ...}  it failed on the way

Rules:
- Nothing goes out before the first part: what goes wrong until then has its own status, as anywhere.
- The deadline holds for the first part, and again from each part to the next.
- When the client does not read, the model waits. What was on its way by then is kept, up to a bound.
- A client that leaves ends the generator.
"""

from __future__ import annotations

import time
from typing import Final

from paceline.core.errors import Cancelled, PacelineError
from paceline.core.requests import InferRequest
from paceline.core.tensors import Tensors
from paceline.engine.hosted import HostedModel
from paceline.engine.model import ServedModel
from paceline.server.app import App
from paceline.server.calls import Inference
from paceline.server.http_request import HttpRequest
from paceline.workers.frames import STREAM_TOO_LONG

EVENT_STREAM: Final = b"text/event-stream"
MOST_UNREAD_BYTES: Final = 16 << 20
# nginx collects an answer before it passes it on, unless it is told not to.
_HEADERS: Final = b"cache-control: no-cache\r\nx-accel-buffering: no\r\nserver-timing: queue;dur=%.3f\r\n"
_COMMENT: Final = b":\n\n"


def streams(model: ServedModel) -> bool:
    """True when a model answers in parts."""
    return isinstance(model, HostedModel) and model.about.streams


def wants_stream(http: HttpRequest) -> bool:
    """False for a client that names JSON and no events: it gets all parts at once, as a list."""
    accept = http.headers.get(b"accept", b"").lower()
    return b"application/json" not in accept or EVENT_STREAM in accept


class EventStream(Inference):
    """One call that is answered in parts.

    Args:
        model: one that `streams`.
    """

    model: HostedModel

    def __init__(self, app: App, http: HttpRequest, model: ServedModel, protocol: str) -> None:
        assert isinstance(model, HostedModel)
        super().__init__(app, http, model, protocol)
        self._app = app
        self._parts = 0
        self._held = False

    def begin(self, inputs: Tensors) -> None:
        """Queue the request.

        Raises:
            Overloaded, RequestTooLarge: it was not queued.
        """
        http = self._http
        request = self._infer = self.model.request(inputs, self._deadline, self._done, len(http.body))
        request.on_part = self._send
        request.part_timeout_s = self._deadline - http.received
        try:
            self.model.submit(request, admitted=True)
        except PacelineError:
            self._infer = None
            raise
        http.on_disconnect = self._gone

    # -- what comes -------------------------------------------------------------------------------------------

    def _send(self, part: bytes) -> None:
        http, request = self._http, self._infer
        assert request is not None
        self._begin_once(request)
        self._parts += 1
        http.write_part(_event(part))
        if not http.is_held:
            return
        if not self._held:
            self._held = True
            self.model.hold(request, True)
        elif http.unsent_bytes > MOST_UNREAD_BYTES:
            self.model.cancel(request)
            self._break_off(request, Cancelled(f"the client does not read: {http.unsent_bytes} bytes wait for it"))

    def _done(self, request: InferRequest) -> None:
        error = request.error or _in_place_of_outputs(request.outputs)
        if error is not None:
            error.__traceback__ = None
            self._break_off(request, error)
            return
        self._begin_once(request)
        self._let_go(request)
        self._http.write_part(_event(b'{"parts":%d}' % self._parts, b"end"))
        self._app.end_answer(self._http)
        telemetry = self.model.telemetry
        telemetry.requests[self.protocol, "ok"] += 1
        telemetry.latency_s.observe(time.monotonic() - self._http.received)

    def _gone(self) -> None:
        request = self._infer
        super()._gone()
        if request is not None:
            self._let_go(request)
        if self._parts:
            self._app.end_answer(self._http)

    # -- what that leads to -----------------------------------------------------------------------------------

    def _begin_once(self, request: InferRequest) -> None:
        http = self._http
        if not http.answered:
            http.begin_answer(EVENT_STREAM, _HEADERS % (request.queue_s * 1e3), _COMMENT)
            http.on_writable = self._caught_up

    def _caught_up(self) -> None:
        if self._held and self._infer is not None:
            self._held = False
            self.model.hold(self._infer, False)

    def _break_off(self, request: InferRequest, error: PacelineError) -> None:
        http = self._http
        self._let_go(request)
        if not http.answered:
            self._app.fail(http, error)
            return
        _, body, _ = self._app.told(http, error)
        http.write_part(_event(body, b"error"))
        self._app.end_answer(http)

    def _let_go(self, request: InferRequest) -> None:
        """They refer to one another."""
        self._infer = None
        request.on_part = None
        self._http.on_disconnect = self._http.on_writable = None


def _event(data: bytes, name: bytes = b"") -> bytes:
    if b"\n" in data or b"\r" in data:
        data = b"\ndata: ".join(data.splitlines())
    return b"event: %b\ndata: %b\n\n" % (name, data) if name else b"data: %b\n\n" % data


def _in_place_of_outputs(outputs: Tensors | None) -> PacelineError | None:
    """The error that stands where the prediction would. That this was too long to keep is none: its parts were sent."""
    first = outputs[0][0] if outputs and len(outputs[0]) else None
    return first if isinstance(first, PacelineError) and first.code != STREAM_TOO_LONG else None
