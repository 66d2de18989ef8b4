"""One plain request on an HTTP/2 stream, and its answer.

Rules:
- It is delivered once its body is complete, like those of HTTP/1.1.
- An answer in parts is as many pieces of a body; what the client's window does not take waits, as any body does.
"""

from __future__ import annotations

from typing import Final

from httpunk._httpunk import H2FrameHeaders, HeaderMap

from paceline.server.http2_stream import HeadersTooLarge, Stream, fields_of, headers_of, too_many_headers
from paceline.server.http_request import HttpRequest
from paceline.server.status import Rejection

_LAST: Final = b""


class RequestStream(Stream):
    """A plain request."""

    __slots__ = ("_body", "_size")

    def begin(self, frame: H2FrameHeaders, ended: bool) -> None:
        """Check the head; without a body, the request is complete."""
        connection = self._connection
        limits = connection.home.limits
        path = (frame.path or "").encode()
        self._body = bytearray()
        self._size = frame.content_length or 0
        request = HttpRequest(self, (frame.method or "").encode(), path, {}, True)
        request.received = connection.now
        self.request = request
        try:
            request.headers = headers_of(frame, limits)
        except HeadersTooLarge:
            self._refuse(too_many_headers(limits))
            return
        if not path:
            self._refuse(Rejection(400, "bad_request", "the request has no path"))
        elif len(path) > limits.url_bytes:
            self._refuse(Rejection(414, "uri_too_long", f"the URL is longer than {limits.url_bytes} bytes"))
        elif self._size > limits.body_bytes:
            self._too_large()
        elif connection.home.grpc.find(path) is not None:
            shown = "a gRPC method: POST with content-type application/grpc"
            self._refuse(Rejection(415, "unsupported_media_type", shown))
        elif ended:
            connection.home.handle(request)
        else:
            connection.receiving.begin(self)

    def receive(self, data: bytes, ended: bool) -> None:
        """Collect the body; deliver the request when it is complete."""
        request, connection, body = self.request, self._connection, self._body
        if request is None:
            return
        size = len(body) + len(data)
        if size > connection.home.limits.body_bytes:
            self._too_large()
            return
        if not ended:
            body += data
            if not self._reserve(max(size, self._size)):
                self._receiving_full()
            return
        if body:
            body += data
            request.body = body
        else:
            request.body = data
        connection.receiving.end(self)
        request.received = connection.now
        connection.home.handle(request)

    def expire(self) -> None:
        """Answer that the body took too long."""
        self._refuse(Rejection(408, "request_timeout", "the request did not arrive in time"))

    def _too_large(self) -> None:
        shown = f"the body is larger than {self._connection.home.limits.body_bytes} bytes"
        self._refuse(Rejection(413, "request_too_large", shown))

    def _receiving_full(self) -> None:
        shown = f"more than {self._connection.home.limits.receiving_bytes} bytes of large bodies at a time"
        self._refuse(Rejection(503, "receiving_full", shown, b"retry-after: 1\r\n"))

    # -- answering in parts -----------------------------------------------------------------------------------

    def begin_answer(self, request: HttpRequest, content_type: bytes, extra: bytes) -> None:
        """Send the head of an answer of unknown length."""
        if request.answered:
            raise RuntimeError("a request was answered twice")
        request.answered = True
        request.status = 200
        if self.is_open:
            fields = [(b"content-type", content_type), (b"x-request-id", request.id), *fields_of(extra)]
            self._send_head(200, HeaderMap(fields), False)

    def write_part(self, request: HttpRequest, data: bytes) -> None:
        """Send a part of the answer."""
        if self.is_open and data:
            self._send(data, False)

    def end_answer(self, request: HttpRequest) -> None:
        """End the answer, behind what waits."""
        if self.is_open:
            self._send(_LAST, True)

    def unsent_bytes(self, request: HttpRequest) -> int:
        """What waits for the client's window."""
        return self._unsent

    def is_held(self, request: HttpRequest) -> bool:
        """True when something waits for it."""
        return self._waiting is not None
