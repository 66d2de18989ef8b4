"""Many inferences in one call: ModelStreamInfer.

Rules:
- The requests of a stream run side by side and share batches; they are answered in the order in which they came.
- What goes wrong with one is said in its place, as `error_message`. The stream goes on.
- So many requests are under way at a time; those behind them wait unread, and the client gets no more room to send.
- The call ends once its client has sent everything and everything is answered. A client that leaves drops all of it.
- When the server drains, what has come is answered, and the call ends; requests that come later are not begun.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from paceline.core.errors import InternalError, PacelineError
from paceline.server.calls import Desk
from paceline.server.grpc import Grpc, GrpcCall
from paceline.server.http_request import Answer, HttpRequest
from paceline.server.messages import message, varint

MOST_UNDER_WAY: Final = 256

_RESPONSE: Final = message("inference.ModelStreamInferResponse")
_INFER_RESPONSE: Final = b"\x12"


class _Request(HttpRequest):
    """One request of the stream, and its answer once it is there."""

    answer: Answer | None = None

    def __init__(self, call: GrpcCall, data: bytes) -> None:
        super().__init__(call.connection, call.method, call.path, call.headers, True)
        self.body = data
        self.id = call.id
        self.received = call.received


class InferStream:
    """One call. It is the `Desk` of its requests.

    Args:
        start: begins the inference of one request.
    """

    def __init__(self, grpc: Grpc, call: GrpcCall, start: Callable[[Desk, HttpRequest], None]) -> None:
        self._grpc = grpc
        self._call = call
        self._start = start
        self._under_way: deque[_Request] = deque()
        self._unread: deque[bytes] = deque()
        self._ended = False
        self._draining = False
        self._held = False
        self._working = False
        call.on_message = self._on_message
        call.on_end = self._on_end
        call.on_disconnect = self._on_disconnect
        call.on_drain = self._on_drain

    # -- the client -------------------------------------------------------------------------------------------

    def _on_message(self, data: bytes) -> None:
        self._unread.append(data)
        self._work()

    def _on_end(self) -> None:
        self._ended = True
        self._work()

    def _on_drain(self) -> None:
        self._draining = True
        self._call.on_message = None
        self._work()

    def _on_disconnect(self) -> None:
        self._let_go()
        self._unread.clear()
        while self._under_way:
            gone = self._under_way.popleft().on_disconnect
            if gone is not None:
                gone()

    # -- the desk ---------------------------------------------------------------------------------------------

    def deadline(self, http: HttpRequest) -> float:
        """The client's, for the whole call; without one, each request has its own."""
        return self._grpc.deadline(self._call)

    def reply(
        self, http: HttpRequest, status: int, body: Answer, content_type: bytes = b"", extra: bytes = b""
    ) -> None:
        """Answer a request, once those before it are."""
        pieces = body if isinstance(body, list) else [body]
        self._answer(http, [_INFER_RESPONSE, varint(sum(len(piece) for piece in pieces)), *pieces])

    def fail(self, http: HttpRequest, error: PacelineError) -> None:
        """Answer a request with an error, in its place."""
        if http.on_error is not None:
            http.on_error(http, error)
        self._answer(http, _RESPONSE(error_message=self._grpc.told(error)).SerializeToString())

    def crash(self, http: HttpRequest) -> None:
        """Answer a request for an exception that nobody expected."""
        self._grpc.log_exception()
        if not http.answered:
            self.fail(http, InternalError("internal error"))

    # -- inside -----------------------------------------------------------------------------------------------

    def _answer(self, http: HttpRequest, answer: Answer) -> None:
        assert isinstance(http, _Request)
        http.answered = True
        http.answer = answer
        self._work()

    def _work(self) -> None:
        """Send what can be sent, begin what can be begun. What either leads to is done here too, one after another."""
        if self._working:
            return
        self._working = True
        call, under_way, unread = self._call, self._under_way, self._unread
        while True:
            while under_way and under_way[0].answer is not None:
                call.send(under_way.popleft().answer or b"")
            if not unread or len(under_way) >= MOST_UNDER_WAY:
                break
            self._begin(unread.popleft())
        self._working = False
        self._hold(bool(unread))
        if (self._ended or self._draining) and not under_way and not call.answered:
            self._finish()

    def _finish(self) -> None:
        if self._ended:
            self._let_go()
            self._call.finish()
        else:
            self._call.dismiss()

    def _hold(self, held: bool) -> None:
        if held is not self._held:
            self._held = held
            self._call.hold(held)

    def _begin(self, data: bytes) -> None:
        http = _Request(self._call, data)
        self._under_way.append(http)
        try:
            self._start(self, http)
        except PacelineError as error:
            self.fail(http, error)
        except Exception:
            self.crash(http)

    def _let_go(self) -> None:
        call = self._call  # the two refer to one another
        call.on_message = call.on_end = call.on_drain = call.on_disconnect = None
