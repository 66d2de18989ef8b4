"""One gRPC call on an HTTP/2 stream: messages in and out of the body, the status in the trailers.

Rules:
- Of a unary call nothing is told to its method before its one message is there; a streaming call begins with its
  headers.
- What goes wrong with the call itself is answered with a status and HTTP's 200; a request that is no gRPC call at all,
  with HTTP's own codes.
- Answers are not compressed: clients that want speed do not ask for it, and the payload is mostly floats.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from httpunk._httpunk import H2FrameHeaders, HeaderMap

from paceline.server.grpc import GrpcCall, Method, Status, Trailers
from paceline.server.grpc_messages import (
    ACCEPTED,
    CallRefused,
    MessageReader,
    framed,
    only_message,
    percent_encoded,
    too_large,
)
from paceline.server.http2_stream import HeadersTooLarge, Stream, headers_of, too_many_headers
from paceline.server.http_request import Answer
from paceline.server.status import Rejection

if TYPE_CHECKING:
    from paceline.server.http2 import Http2Connection

_HEAD: Final = [(b"content-type", b"application/grpc"), (b"grpc-accept-encoding", ACCEPTED)]
_PLAIN_HEAD: Final = HeaderMap(_HEAD)
_OK: Final = HeaderMap([(b"grpc-status", b"0")])
_WRONG_METHOD: Final = Rejection(405, "method_not_allowed", "gRPC calls are POST requests", b"allow: POST\r\n")


def is_grpc(content_type: bytes | None) -> bool:
    """True for `application/grpc`, also with `+proto` and the like; not for its cousins of browsers."""
    if content_type is None or not content_type.startswith(b"application/grpc"):
        return False
    return content_type[16:17] in (b"", b"+", b";", b" ")


class CallStream(Stream):
    """A call."""

    __slots__ = ("_head_sent", "_method", "_reader")

    def __init__(self, connection: Http2Connection, stream_id: int) -> None:
        super().__init__(connection, stream_id)
        self._method: Method | None = None
        self._reader: MessageReader | None = None
        self._head_sent = False

    def begin(self, frame: H2FrameHeaders, ended: bool) -> None:
        """Find the method; a streaming one is called now."""
        connection = self._connection
        path = (frame.path or "").encode()
        grpc, limits = connection.home.grpc, connection.home.limits
        call = GrpcCall(self, b"POST", path, {}, True)
        call.began = call.received = connection.now
        self.request = call
        if frame.method != "POST":
            self._refuse(_WRONG_METHOD)
            return
        try:
            call.headers = headers_of(frame, limits)
        except HeadersTooLarge:
            call.finish(Status.RESOURCE_EXHAUSTED, too_many_headers(limits).message)
            return
        method = self._method = grpc.find(path)
        if method is None:
            shown = path[:200].decode("ascii", "backslashreplace")
            call.finish(Status.UNIMPLEMENTED, f"unknown method: {shown}")
        else:
            if method.streaming:
                grpc.handle(call, method)
            else:
                connection.receiving.begin(self)
            if ended:
                self.receive(b"", True)

    def receive(self, data: bytes, ended: bool) -> None:
        """Take messages out of a piece of the body."""
        call, method = self.request, self._method
        if method is None or not isinstance(call, GrpcCall):
            return
        try:
            if method.streaming:
                self._receive_stream(call, data, ended)
            else:
                self._receive_unary(call, method, data, ended)
        except CallRefused as refused:
            gone, call.on_disconnect = call.on_disconnect, None
            if gone is not None:
                gone()
            call.finish(refused.status, refused.message, refused.trailers)

    def expire(self) -> None:
        """Answer that the message took too long."""
        call = self.request
        assert isinstance(call, GrpcCall)
        call.finish(Status.DEADLINE_EXCEEDED, "the message did not arrive in time")

    def drain(self) -> None:
        """End a call that nobody but its client would end."""
        call, method = self.request, self._method
        if method is not None and isinstance(call, GrpcCall):
            self._connection.home.grpc.drain(call, method)

    # -- what `GrpcCall` calls --------------------------------------------------------------------------------

    def write_message(self, call: GrpcCall, message: Answer) -> None:
        """Send one message; the response headers go before the first."""
        if not self.is_open:
            return  # the client left
        if not self._head_sent:
            self._head_sent = True
            head = HeaderMap([*_HEAD, (b"x-request-id", call.id)]) if call.id else _PLAIN_HEAD
            self._send_head(200, head, False)
        for piece in framed(message):
            self._send(piece, False)

    def write_status(self, call: GrpcCall, status: Status, message: str, trailers: Trailers) -> None:
        """End the call; without a message before it, headers and trailers are one."""
        if not self.is_open:
            return
        if status is Status.OK and not message and not trailers and self._head_sent:
            self._send_trailers(_OK)
            return
        fields: list[tuple[str | bytes, bytes]] = [(b"grpc-status", b"%d" % status)]
        if message:
            fields.append((b"grpc-message", percent_encoded(message)))
        fields += trailers
        if self._head_sent:
            self._send_trailers(HeaderMap(fields))
            return
        named: list[tuple[str | bytes, bytes]] = [(b"x-request-id", call.id)] if call.id else []
        present = {name for name, _ in fields}
        head = [field for field in _HEAD if field[0].decode() not in present]
        self._send_head(200, HeaderMap([*head, *named, *fields]), True)

    # -- receiving --------------------------------------------------------------------------------------------

    def _receive_unary(self, call: GrpcCall, method: Method, data: bytes, ended: bool) -> None:
        connection = self._connection
        message = only_message(data) if ended and self._reader is None else None
        if message is None:
            message = self._collect(call, data, ended)
            if message is None:
                return
        elif len(message) > connection.home.limits.body_bytes:
            raise too_large(len(message), connection.home.limits.body_bytes)
        connection.receiving.end(self)
        call.body = message
        call.received = connection.now
        connection.home.grpc.handle(call, method)

    def _collect(self, call: GrpcCall, data: bytes, ended: bool) -> bytes | None:
        """The message of a unary call, once the client has ended its side."""
        messages = self._messages(call, data, ended)
        if len(messages) + bool(call.body_seen) > 1:
            raise CallRefused(Status.UNIMPLEMENTED, "a unary method takes one message, and got more")
        if messages:
            call.body, call.body_seen = messages[0], True
        if not ended:
            self._keep(len(call.body))
            return None
        if not call.body_seen:
            raise CallRefused(Status.UNIMPLEMENTED, "a unary method takes one message, and got none")
        assert isinstance(call.body, bytes)
        return call.body

    def _receive_stream(self, call: GrpcCall, data: bytes, ended: bool) -> None:
        connection = self._connection
        messages = self._messages(call, data, ended)
        call.received = connection.now
        for message in messages:
            if self.is_open:
                connection.home.grpc.deliver(call, message)
        if not self.is_open:
            return
        if messages or ended:
            connection.receiving.end(self)
        if ended:
            connection.home.grpc.half_close(call)
            return
        self._keep(0)
        if self._reader is not None and self._reader.announced:
            connection.receiving.begin(self)

    def _messages(self, call: GrpcCall, data: bytes, ended: bool) -> list[bytes]:
        reader = self._reader
        if reader is None:
            name = call.headers.get(b"grpc-encoding", b"identity")
            reader = self._reader = MessageReader(self._connection.home.limits.body_bytes, name)
        messages = reader.feed(data) if data else []
        if ended and reader.announced:
            raise CallRefused(Status.INTERNAL, "the body ends in the middle of a message")
        return messages

    def _keep(self, size: int) -> None:
        """Count what is kept, and what it will be once it is complete."""
        assert self._reader is not None
        if not self._reserve(size + self._reader.announced):
            limit = self._connection.home.limits.receiving_bytes
            pushback = (("grpc-retry-pushback-ms", b"1000"),)
            shown = f"more than {limit} bytes of large messages at a time"
            raise CallRefused(Status.RESOURCE_EXHAUSTED, shown, pushback)
