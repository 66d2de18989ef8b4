"""Frames out: the writing half of an HTTP/2 connection.

Rules:
- What one pass of the event loop produces, for whichever streams, is one write.
- While the client does not read, nothing more is framed: answers wait with their streams, and what has been framed
  is bounded by the send buffer.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import TYPE_CHECKING, Final, cast

from httpunk._httpunk import H2_FLAG_CAPACITY, H2_FLAG_WAKE, H2Streams

from paceline.server.http2_budget import control_budget

if TYPE_CHECKING:
    from paceline.server.app import App
    from paceline.server.http2_stream import Stream

ALWAYS: Final = 0.0
_STREAM_WINDOW: Final = 1 << 20
_CONNECTION_WINDOW: Final = 4 << 20
# The protocol's own least. Larger ones would be no faster, and httpunk, which decodes a whole read before it learns
# that the client has acknowledged our settings, would refuse those that come in the same read.
FRAME_BYTES: Final = 16 << 10
# httpunk drops, without a word, the headers behind those that fill the list that we allow: a request could lose some
# and look whole. What has come of a frame or head before `_limit_partial` ends it, 0.6 MiB at most, holds less than
# 1 MiB of headers once unpacked, so that nothing is dropped before we have counted it against our own limit.
_HEADER_LIST_SLACK_BYTES: Final = 1 << 20
# Of one answer, framed and not yet written.
_SEND_BUFFER_BYTES: Final = 1 << 20
# From here on, handing the buffer over is cheaper than copying out of it.
_COPIED_BYTES: Final = 64 << 10


class Waiting:
    """Streams that wait for their client, each until a deadline. All have the same time, so the first began first.

    Args:
        patience_s: how long one may wait.
    """

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._until: dict[Stream, float] = {}

    def begin(self, stream: Stream) -> None:
        """It waits from now on, if it does not already."""
        if stream not in self._until:
            self._until[stream] = time.monotonic() + self._patience_s

    def end(self, stream: Stream) -> None:
        """It waits no more."""
        self._until.pop(stream, None)

    def all(self) -> list[Stream]:
        """Those that wait."""
        return list(self._until)

    def overdue(self, now: float) -> list[Stream]:
        """Those that have waited too long; they wait no more."""
        overdue = list(itertools.takewhile(lambda stream: self._until[stream] <= now, self._until))
        for stream in overdue:
            del self._until[stream]
        return overdue


class FrameWriter(asyncio.BufferedProtocol):
    """What `Http2Connection` is made of where it writes.

    Attributes:
        expires: from when on the sweep looks at it, in monotonic seconds.
        paused: the client does not read.
        unsent_bytes: of answers that wait for the client, over all streams.
        held: streams whose answer waits for the client's window.
        control: budget of frames that move no data.
    """

    def __init__(self, home: App) -> None:
        self.home = home
        self.h2 = _state_machine(home)
        self.expires = ALWAYS
        self.paused = False
        self.unsent_bytes = 0
        self.held = Waiting(home.limits.write_timeout_s)
        self.control = control_budget()
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._awake = False
        self._last = False  # nothing more is read or written
        self._paused_at = 0.0

    def close(self) -> None:
        """Leave, or go on leaving."""
        raise NotImplementedError

    @property
    def is_leaving(self) -> bool:
        """True when the connection has announced its end, or should."""
        raise NotImplementedError

    def pause_writing(self) -> None:
        """The client reads too slowly: it has until the write timeout."""
        self.paused = True
        self._paused_at = time.monotonic()
        self.expires = ALWAYS

    def resume_writing(self) -> None:
        """The client caught up."""
        self.paused = False
        for stream in self.held.all():
            stream.resume()
        self._wake()

    # -- what streams call ------------------------------------------------------------------------------------

    def after(self, flags: int) -> None:
        """Do what the state machine asks for."""
        if flags & H2_FLAG_WAKE:
            self._wake()
        if flags & H2_FLAG_CAPACITY:
            stream = self.h2.next_capacity_wake()
            if stream is not None:
                self._loop.call_soon(cast("Stream", stream).resume)

    def release(self, stream_id: int, size: int) -> None:
        """Let the client send that much more."""
        flags = self.h2.release_capacity(stream_id, size)
        if flags:
            self.after(flags)

    # -- writing ----------------------------------------------------------------------------------------------

    def _wake(self) -> None:
        if not self._awake:
            self._awake = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Write everything that this pass has produced, at once."""
        self._awake = False
        if self._last:
            return
        self._write_pending()
        if self.is_leaving:
            self.close()

    def _write_pending(self) -> None:
        transport, h2 = self._transport, self.h2
        while transport is not None and not self.paused:
            pending, _ = h2.take_pending()
            size = len(pending)
            if size < _COPIED_BYTES:
                if size:
                    transport.write(bytes(pending))
                pending.release()
            else:
                transport.write(pending)  # released with the transport's reference
            for stream in h2.credit_written():
                cast("Stream", stream).resume()
            if not size:
                return


def _state_machine(home: App) -> H2Streams:
    limits = home.limits
    return H2Streams(
        "server",
        initial_window_size=_STREAM_WINDOW,
        connection_window=_CONNECTION_WINDOW,
        max_frame_size=FRAME_BYTES,
        max_header_list_size=limits.head_bytes + _HEADER_LIST_SLACK_BYTES,
        max_send_buf_size=_SEND_BUFFER_BYTES,
        max_concurrent_streams=limits.streams,
        auto_date_header=False,
    )
