"""HTTP/2 on a socket: what frames do to streams; limits, deadlines, draining, the end of a connection.

The rules of the protocol are kept by httpunk's state machine, which does no I/O: it is given bytes, it says what they
mean, and it keeps the bytes that are to be written. This file moves the bytes, and acts on what it says.

Rules:
- No task and no timer per request: deadlines are compared by the listener's sweep.
- One client cannot make the others wait or the memory grow: streams, bodies, headers, resets and frames that cost work
  without asking for an answer are all bounded (`http2_budget.py`).
- To leave, a connection says so twice: first that it will close, then, when the client has seen that, which requests
  it took. What was sent in between is answered, so none is lost. Calls that would stay open are ended after that.
- This file knows no model, no route and no method.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, cast

from httpunk._httpunk import (
    H2_HEADERS_OPENED,
    H2_HEADERS_TRAILERS,
    H2_PREFACE,
    H2Error,
    H2FrameData,
    H2FrameGoAway,
    H2FrameHeaders,
    H2FramePing,
    H2FramePriority,
    H2FrameRstStream,
    H2FrameSettings,
    H2FrameStreamError,
    H2FrameWindowUpdate,
    H2Reason,
    H2StreamError,
)

from paceline.server.http2_budget import CONTROL_PER_FRAME_SENT, resets_budget
from paceline.server.http2_grpc import CallStream, is_grpc
from paceline.server.http2_request import RequestStream
from paceline.server.http2_stream import Stream
from paceline.server.http2_writer import ALWAYS, FRAME_BYTES, FrameWriter, Waiting

if TYPE_CHECKING:
    from paceline.server.app import App

PREFACE: Final = H2_PREFACE
# Answers of one connection that its client does not read; more requests are put off until it does.
_MOST_UNSENT_BYTES: Final = 64 << 20
# The kernel takes what one write holds; above this, the client is waited for.
_HIGH_WATER_BYTES: Final = 256 << 10
_ACK_WAIT_S: Final = 1.0
_LINGER_S: Final = 2.0


class Http2Connection(FrameWriter):
    """One client connection.

    Attributes:
        now: monotonic seconds of the last read.
        receiving: streams whose body has begun and is not complete.
    """

    announces_end = True

    def __init__(self, home: App) -> None:
        super().__init__(home)
        self.now = 0.0
        self.answered_at = 0.0
        self.expires = ALWAYS
        self._resets = resets_budget(home.limits.streams)
        self._streams: dict[int, Stream] = {}
        self.receiving = Waiting(home.limits.body_timeout_s)
        self._partial_since = 0.0
        self._partial_bytes = 0
        self._closing_at = 0.0
        self._drained = False

    # -- the transport's calls --------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Register the connection; say what we allow."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(_HIGH_WATER_BYTES)
        self.home.connections.add(self)
        self.now = time.monotonic()
        self.expires = self.now + self.home.limits.header_timeout_s
        self.h2.begin()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """Drop everything; tell who waits for an answer."""
        self.home.connections.discard(self)
        self._transport = None
        self._drop_streams()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes go."""
        return self.home.read_buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Act on the frames that came."""
        if self._last:
            return
        self.now = time.monotonic()
        try:
            frames = self.h2.receive(bytes(self.home.read_buffer[:nbytes]))
            for frame in frames:
                self._act(frame)
            self.after(self.h2.maybe_goaway_reply())
        except H2Error as error:
            reason = error.args[0] if error.args and isinstance(error.args[0], int) else H2Reason.PROTOCOL_ERROR
            self._fail(int(reason))
            return
        if frames:
            self._partial_since = 0.0
        else:
            self._limit_partial(nbytes)

    def _limit_partial(self, nbytes: int) -> None:
        """A frame, or a head in several of them, that comes in pieces must end: in time, and in so many bytes."""
        if not self._partial_since:
            self._partial_since, self._partial_bytes = self.now, 0
            self.expires = ALWAYS
        self._partial_bytes += nbytes
        if self._partial_bytes > FRAME_BYTES + self.home.limits.head_bytes:
            self._fail(int(H2Reason.ENHANCE_YOUR_CALM))

    def eof_received(self) -> bool:
        """The client sends no more: no client of HTTP/2 closes half of a connection."""
        return False

    # -- frames -----------------------------------------------------------------------------------------------

    def _act(self, frame: Any) -> None:
        if self._last:
            return
        try:
            _ACTS[type(frame)](self, frame)
        except H2StreamError as error:
            stream_id, reason, initiator = error.args
            if initiator != "remote":
                self._spend_control()
                self.after(self.h2.reset_on_error(stream_id, reason).flags)
            self._lost(stream_id)

    def _on_headers(self, frame: H2FrameHeaders) -> None:
        stream: Stream | None = None
        if frame.method is not None:
            kind = CallStream if is_grpc(frame.headers.get("content-type")) else RequestStream
            stream = kind(self, frame.stream_id)
        verdict = self.h2.recv_headers(frame, stream)
        if verdict.flags:
            self.after(verdict.flags)
        if verdict.kind == H2_HEADERS_OPENED and stream is not None:
            self.h2.accepted(stream.id)
            if self.unsent_bytes > _MOST_UNSENT_BYTES:
                self.after(self.h2.reset_stream(stream.id, int(H2Reason.REFUSED_STREAM), "library").flags)
                return
            self._streams[stream.id] = stream
            self.expires = ALWAYS
            stream.begin(frame, verdict.eof)
        elif verdict.kind == H2_HEADERS_TRAILERS:
            cast(Stream, verdict.handle).receive(b"", True)
        elif verdict.kind != H2_HEADERS_OPENED:
            self._spend_control()

    def _on_data(self, frame: H2FrameData) -> None:
        verdict = self.h2.recv_data(frame)
        if verdict.flags:
            self.after(verdict.flags)
        stream, data = cast("Stream | None", verdict.handle), verdict.payload or b""
        if not data and not verdict.eof:
            self._spend_control()
        if stream is None:
            return
        if verdict.budgeted:
            self.h2.release_data_frame(stream.id, len(data))
        if data:
            stream.take(len(data))
        stream.receive(data, verdict.eof)

    def _on_window_update(self, frame: H2FrameWindowUpdate) -> None:
        self._spend_control()
        for stream in self.h2.recv_window_update(frame):
            cast(Stream, stream).resume()

    def _on_settings(self, frame: H2FrameSettings) -> None:
        self._spend_control()
        _, woken, flags = self.h2.recv_settings(frame)
        self.after(flags)
        for stream in woken:
            cast(Stream, stream).resume()

    def _on_ping(self, frame: H2FramePing) -> None:
        self._spend_control()
        self.after(self.h2.recv_ping(frame))

    def _on_go_away(self, frame: H2FrameGoAway) -> None:
        self._spend_control()
        self.after(self.h2.recv_go_away(frame)[1])
        self.close()

    def _on_reset(self, frame: H2FrameRstStream) -> None:
        reset = self.h2.recv_reset(frame)
        if reset is None:
            self._spend_control()
            return
        self.after(reset[3])
        if not self._resets.take(self.now):
            self._fail(int(H2Reason.ENHANCE_YOUR_CALM))
        self._lost(frame.stream_id)

    def _on_stream_error(self, frame: H2FrameStreamError) -> None:
        raise H2StreamError(frame.stream_id, frame.error_code, "library")

    def _on_priority(self, frame: H2FramePriority) -> None:
        self._spend_control()

    def _spend_control(self) -> None:
        if not self.control.take(self.now):
            self._fail(int(H2Reason.ENHANCE_YOUR_CALM))

    def _lost(self, stream_id: int) -> None:
        stream = self._streams.get(stream_id)
        if stream is not None:
            stream.gone()

    # -- what streams call ------------------------------------------------------------------------------------

    def answered(self) -> None:
        """A stream has its whole answer."""
        self._resets.give(1)
        self.control.give(CONTROL_PER_FRAME_SENT)  # for its head and trailers
        self.answered_at = time.monotonic()

    def forget(self, stream: Stream) -> None:
        """A stream is over."""
        self.receiving.end(stream)
        self.held.end(stream)
        self._streams.pop(stream.id, None)
        if not self._streams:
            self.expires = time.monotonic() + self.home.limits.keep_alive_s
            self._wake()  # it may be time to leave

    # -- deadlines and shutdown -------------------------------------------------------------------------------

    def on_expired(self) -> None:
        """Compare the deadlines of everything that is under way."""
        now = time.monotonic()
        limits = self.home.limits
        if self._last or (self.paused and now >= self._paused_at + limits.write_timeout_s):
            self.abort()
            return
        patience_s = limits.body_timeout_s if self._streams else limits.header_timeout_s
        if self._partial_since and now >= self._partial_since + patience_s:
            self._fail(int(H2Reason.NO_ERROR))
            return
        for stream in self.receiving.overdue(now):
            stream.expire()
        for stream in self.held.overdue(now):
            self.after(self.h2.reset_stream(stream.id, int(H2Reason.CANCEL), "library").flags)
            stream.gone()
        if not self._streams and not self._partial_since and now >= self.expires:
            self.close()

    @property
    def peer(self) -> str:
        """Address of the client."""
        name = self._transport.get_extra_info("peername") if self._transport is not None else None
        return f"{name[0]}:{name[1]}" if isinstance(name, tuple) else ""

    @property
    def is_leaving(self) -> bool:
        """True when the connection has announced its end, or should: a new one is good for one answer."""
        return self._closing_at > 0.0 or (self.home.draining and self.answered_at > 0.0)

    @property
    def is_idle(self) -> bool:
        """True when no request has begun."""
        return not self._streams

    @property
    def streams(self) -> int:
        """How many requests are under way."""
        return len(self._streams)

    def close(self) -> None:
        """Leave: announce it, answer what comes until the client knows, then close. Called until it is done."""
        transport, h2 = self._transport, self.h2
        if transport is None or self._last:
            return
        now = time.monotonic()
        if not self._closing_at:
            self._closing_at = now
            self.after(h2.begin_graceful_shutdown())
        known = h2.shutdown_final or h2.goaway_info() is not None or now >= self._closing_at + _ACK_WAIT_S
        if known and self.home.draining and not self._drained:
            self._drained = True
            for stream in list(self._streams.values()):
                stream.drain()
        if known and not self._streams and not self.paused:
            self._close_gently(transport)
        elif not self._streams:
            self.expires = ALWAYS

    def _close_gently(self, transport: asyncio.Transport) -> None:
        """End our half and read on for a moment: closing on a client that sends resets what it has not read."""
        self._last = True
        self._write_pending()
        self.expires = time.monotonic() + _LINGER_S
        if transport.can_write_eof():
            transport.write_eof()
        else:
            transport.close()

    def abort(self) -> None:
        """Close now, whatever is under way."""
        if self._transport is not None:
            self._transport.abort()

    def _fail(self, reason: int) -> None:
        """End the connection, telling the client why."""
        transport = self._transport
        if transport is None or self._last:
            return
        self.h2.send_goaway(reason)
        self._drop_streams()
        self._close_gently(transport)

    def _drop_streams(self) -> None:
        self._last = True if self._transport is None else self._last
        self.h2.fail(None)
        for stream in list(self._streams.values()):
            stream.gone()


_ACTS: Final[dict[type, Callable[[Http2Connection, Any], None]]] = {
    H2FrameHeaders: Http2Connection._on_headers,
    H2FrameData: Http2Connection._on_data,
    H2FrameWindowUpdate: Http2Connection._on_window_update,
    H2FrameSettings: Http2Connection._on_settings,
    H2FramePing: Http2Connection._on_ping,
    H2FrameGoAway: Http2Connection._on_go_away,
    H2FrameRstStream: Http2Connection._on_reset,
    H2FrameStreamError: Http2Connection._on_stream_error,
    H2FramePriority: Http2Connection._on_priority,
}
