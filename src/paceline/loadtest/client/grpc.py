"""How does the client speak gRPC: unary calls over cleartext HTTP/2, one under way per connection?

Frames and header blocks are httpunk's, whose codec keeps the tables of both sides; what they mean is here. A call
takes 5 us, where the library h2, which knows more of the protocol, takes 107 us.

Rules:
- The server may send as much as it likes: the windows are the largest there are in practice, and topped up. What
  comes is counted and not kept.
- What the server's windows do not take waits here, one message at most, and leaves by `pending` as they open.
- An answer is complete when its stream is; one that comes before the message has left cancels the rest of it.
- A server that leaves while a call is under way answers it first, if it says so; one that leaves while none is makes
  `receive` raise, for the connection is of no more use.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Final

from httpunk._httpunk import (
    H2_PREFACE,
    H2Codec,
    H2Error,
    H2FrameData,
    H2FrameGoAway,
    H2FrameHeaders,
    H2FramePing,
    H2FrameRstStream,
    H2FrameSettings,
    H2FrameStreamError,
    H2FrameWindowUpdate,
    H2Reason,
    HeaderMap,
)

from paceline.loadtest.client.codec import Answer, Malformed
from paceline.loadtest.client.server_timing import NO_TIMING, Timing, timing
from paceline.loadtest.target import Target, authority

_PREFIX: Final = struct.Struct(">BI")
_LAST_STREAM: Final = 2**31 - 1
_WINDOW: Final = 1 << 30
_INITIAL_WINDOW: Final = 65_535
_HEADERS: Final = (
    ("te", "trailers"),
    ("content-type", "application/grpc"),
    ("user-agent", "paceline-bench"),
    ("grpc-accept-encoding", "identity"),
)
_NO_FIELDS: Final = HeaderMap()
_UNKNOWN: Final = 2
_INTERNAL: Final = 13
_UNAVAILABLE: Final = 14
# https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md
_STATUS_OF_HTTP: Final = {400: 13, 401: 16, 403: 7, 404: 12, 429: 14, 502: 14, 503: 14, 504: 14}
# https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md#errors
_STATUS_OF_RESET: Final = {
    int(H2Reason.REFUSED_STREAM): _UNAVAILABLE,
    int(H2Reason.CANCEL): 1,
    int(H2Reason.ENHANCE_YOUR_CALM): 8,
    int(H2Reason.INADEQUATE_SECURITY): 7,
}


class Shared:
    """What all connections to a target have in common.

    Raises:
        ValueError: the target has a header, a host or a path that cannot be sent.
    """

    def __init__(self, target: Target) -> None:
        self.bodies = target.bodies
        self.paths = target.paths or (target.path,) * len(target.bodies)
        self.fields = _fields(target)
        host = target.host.partition("%")[0]  # a link-local address is the server's without its zone
        self.authority = authority(host, target.port)
        trial = H2Codec("client")
        for path in dict.fromkeys(self.paths):
            try:
                self.head(trial, 1, path)
            except ValueError as error:
                raise ValueError(f"{self.authority}{path} cannot be called: {error}") from error

    def head(self, frames: H2Codec, stream: int, path: str) -> bytes:
        """The frame that begins a call."""
        head: bytes = frames.serialize_request_headers(
            stream, "POST", path, self.fields, scheme="http", authority=self.authority
        )
        return head


class Grpc:
    """The client's side of one connection; see `Codec`.

    Args:
        target: its path is the method's, its bodies are messages without their prefix.
        shared: what all connections to the target have in common; made anew without it.

    Raises:
        ValueError: the target has a header, a host or a path that cannot be sent.
    """

    def __init__(self, target: Target, shared: Shared | None = None) -> None:
        self._shared = shared or Shared(target)
        self._frames = H2Codec("client")
        self._pending: list[bytes] = []
        self._next_stream = 1
        self._stream = 0  # of the call under way; 0: none is
        self._answer = _Incoming()
        self._unsent = memoryview(b"")
        self._window = _INITIAL_WINDOW
        self._stream_window = 0
        self._initial_window = _INITIAL_WINDOW
        self._frame_bytes = 16_384
        self._owed = 0  # bytes that came, not yet given back to the connection's window
        self._leaving = False

    # -- what the client calls --------------------------------------------------------------------------------

    def greeting(self) -> bytes:
        """The preface, our settings, and a connection's window as large as a stream's."""
        settings = self._frames.serialize_settings(enable_push=False, initial_window_size=_WINDOW)
        return bytes(H2_PREFACE + settings + self._frames.serialize_window_update(0, _WINDOW - _INITIAL_WINDOW))

    def request(self, index: int) -> bytes:
        """A call: its headers, and as much of its message as the windows take."""
        stream, shared = self._next_stream, self._shared
        self._stream, self._next_stream = stream, stream + 2
        self._answer = _Incoming()
        body = shared.bodies[index]
        message = _PREFIX.pack(0, len(body)) + body
        head = shared.head(self._frames, stream, shared.paths[index])
        if len(message) <= min(self._window, self._initial_window, self._frame_bytes):
            self._window -= len(message)
            data: bytes = self._frames.serialize_data(stream, message, True)
            return head + data
        self._unsent, self._stream_window = memoryview(message), self._initial_window
        return head + b"".join(self._unblocked())

    def receive(self, data: bytes) -> Answer | None:
        """Act on the frames that came; the end of the call under way, if it is among them.

        Raises:
            Malformed: no HTTP/2, or the server leaves and no call is under way.
        """
        try:
            frames = self._frames.receive(data)
        except H2Error as error:
            raise Malformed(f"not HTTP/2: {error}") from None
        answer = None
        for frame in frames:
            act = _ACTS.get(type(frame))
            if act is not None:
                answer = act(self, frame) or answer
        if self._leaving and not self._stream:
            if answer is None:
                raise Malformed("the server leaves")
            return answer._replace(closes=True)
        return answer

    def end(self) -> Answer | None:
        """A stream is over before its connection is."""
        return None

    def pending(self) -> bytes:
        """Acknowledgements, windows, and what waited for the server's."""
        data = b"".join(self._pending)
        self._pending.clear()
        return data

    # -- frames -----------------------------------------------------------------------------------------------

    def _on_headers(self, frame: H2FrameHeaders) -> Answer | None:
        if frame.stream_id != self._stream or frame.is_informational:
            return None
        self._answer.fields(frame.status, frame.headers)
        return self._finish(self._answer.status()) if frame.end_stream else None

    def _on_data(self, frame: H2FrameData) -> Answer | None:
        self._owed += frame.flow_controlled_len
        if self._owed > _WINDOW // 2:
            self._pending.append(self._frames.serialize_window_update(0, self._owed))
            if frame.stream_id == self._stream and not frame.end_stream:
                # One call at a time: nearly all of it came on this stream, whose window is as large.
                self._pending.append(self._frames.serialize_window_update(self._stream, self._owed))
            self._owed = 0
        if frame.stream_id != self._stream:
            return None
        self._answer.data(frame.data)
        return self._finish(self._answer.status()) if frame.end_stream else None

    def _on_settings(self, frame: H2FrameSettings) -> None:
        if frame.ack:
            return
        if frame.initial_window_size is not None:
            self._stream_window += frame.initial_window_size - self._initial_window
            self._initial_window = frame.initial_window_size
        if frame.max_frame_size is not None:
            self._frame_bytes = frame.max_frame_size
            self._frames.set_send_max_frame_size(frame.max_frame_size)
        if frame.header_table_size is not None:
            self._frames.set_send_header_table_size(frame.header_table_size)
        self._pending += [self._frames.serialize_settings_ack(), *self._unblocked()]

    def _on_window_update(self, frame: H2FrameWindowUpdate) -> None:
        if frame.stream_id == 0:
            self._window += frame.increment
        elif frame.stream_id == self._stream:
            self._stream_window += frame.increment
        self._pending += self._unblocked()

    def _on_ping(self, frame: H2FramePing) -> None:
        if not frame.ack:
            self._pending.append(self._frames.serialize_ping_ack(frame.data))

    def _on_reset(self, frame: H2FrameRstStream) -> Answer | None:
        if frame.stream_id != self._stream:
            return None
        self._unsent = memoryview(b"")  # the stream is closed: nothing to cancel
        return self._finish(_STATUS_OF_RESET.get(frame.error_code, _INTERNAL))

    def _on_go_away(self, frame: H2FrameGoAway) -> Answer | None:
        self._leaving = True
        return self._finish(_UNAVAILABLE) if self._stream > frame.last_stream_id else None

    def _on_stream_error(self, frame: H2FrameStreamError) -> Answer | None:
        self._pending.append(self._frames.serialize_rst_stream(frame.stream_id, frame.error_code))
        if frame.stream_id != self._stream:
            return None
        self._unsent = memoryview(b"")
        return self._finish(_INTERNAL)

    # -- the message out, the answer in -----------------------------------------------------------------------

    def _unblocked(self) -> list[bytes]:
        """Frames of the message that waits, as far as the windows take them."""
        frames = []
        while self._unsent:
            room = min(self._window, self._stream_window, self._frame_bytes)
            if room <= 0:
                break
            piece, self._unsent = self._unsent[:room], self._unsent[room:]
            self._window -= len(piece)
            self._stream_window -= len(piece)
            frames.append(self._frames.serialize_data(self._stream, bytes(piece), not self._unsent))
        return frames

    def _finish(self, status: int) -> Answer:
        if self._unsent:
            self._unsent = memoryview(b"")
            self._pending.append(self._frames.serialize_rst_stream(self._stream, int(H2Reason.CANCEL)))
        self._stream = 0
        return Answer(status == 0, status, *self._answer.timing(), closes=self._next_stream > _LAST_STREAM)


class _Incoming:
    """What has come of an answer."""

    __slots__ = ("_awaited", "_head", "_http_status", "_messages", "_prefix", "_trailers")

    def __init__(self) -> None:
        self._http_status = 0
        self._head = self._trailers = _NO_FIELDS
        self._messages = 0
        self._awaited = 0  # bytes of the message that has begun
        self._prefix = b""  # as far as it came

    def fields(self, status: int | None, fields: HeaderMap) -> None:
        """Headers, which have a status of HTTP, or trailers, which have none."""
        if status is None:
            self._trailers = fields
        else:
            self._head = fields
        if (status is None) == (not self._http_status):
            raise Malformed("an answer has headers, then trailers, once each")
        self._http_status = status or self._http_status

    def data(self, data: bytes) -> None:
        """A piece of the body: count the messages that it completes."""
        if self._http_status != 200:
            return  # a page of whoever stands in between
        if len(data) >= _PREFIX.size and not self._awaited and not self._prefix:
            compressed, size = _PREFIX.unpack_from(data)
            if not compressed and size == len(data) - _PREFIX.size:
                self._messages += 1
                return
        while data:
            if self._awaited:
                used = min(self._awaited, len(data))
                self._awaited -= used
                self._messages += not self._awaited
            else:
                used = min(_PREFIX.size - len(self._prefix), len(data))
                self._prefix += data[:used]
                self._begin()
            data = data[used:]

    def _begin(self) -> None:
        if len(self._prefix) < _PREFIX.size:
            return
        compressed, size = _PREFIX.unpack(self._prefix)
        if compressed > (self._head.get(b"grpc-encoding", b"identity") != b"identity"):
            raise Malformed(f"the body is not framed as messages: flag {compressed}")
        self._awaited, self._prefix = size, b""
        self._messages += not size

    def status(self) -> int:
        """Of the call, now that its stream has ended: OK only with exactly one message."""
        told = self._trailers.get(b"grpc-status") or self._head.get(b"grpc-status")
        if told is None:
            return _UNKNOWN if self._http_status == 200 else _STATUS_OF_HTTP.get(self._http_status, _UNKNOWN)
        status = int(told) if told.isdigit() and len(told) <= 2 else _UNKNOWN
        is_whole = self._messages == 1 and not self._awaited and not self._prefix
        return _INTERNAL if status == 0 and not is_whole else status

    def timing(self) -> Timing:
        """As the server says, in its headers or trailers."""
        for fields in (self._trailers, self._head):
            told = fields.get(b"server-timing")
            if told is not None:
                return timing(told, fields.get(b"x-batch-size", b""))
        return NO_TIMING


def _fields(target: Target) -> HeaderMap:
    """The headers of each call; those of the target replace ours."""
    own = {name.lower() for name, _ in target.headers}
    try:
        fields = HeaderMap([*((name, value) for name, value in _HEADERS if name not in own), *target.headers])
        H2Codec.check_send_headers(fields)
    except (H2Error, ValueError) as error:
        names = ", ".join(name for name, _ in target.headers)
        raise ValueError(f"these headers cannot be sent with a call: {names}: {error.args[-1]}") from error
    return fields


_ACTS: Final[dict[type, Callable[[Grpc, Any], Answer | None]]] = {
    H2FrameHeaders: Grpc._on_headers,
    H2FrameData: Grpc._on_data,
    H2FrameSettings: Grpc._on_settings,
    H2FrameWindowUpdate: Grpc._on_window_update,
    H2FramePing: Grpc._on_ping,
    H2FrameRstStream: Grpc._on_reset,
    H2FrameGoAway: Grpc._on_go_away,
    H2FrameStreamError: Grpc._on_stream_error,
}
