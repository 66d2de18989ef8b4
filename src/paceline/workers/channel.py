"""The two ends of a line between processes: frames over a pair of file descriptors.

Rules:
- A worker, and the server while it starts one, wait in `send` and `receive`. Once attached to an event loop, the
  server neither waits to read nor to write.
- What cannot be written at once is kept; it is bounded by what the worker was given to run.
- A socket is one descriptor for both directions; a language that has no sockets gets two pipes.
"""

from __future__ import annotations

import asyncio
import os
import select
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from paceline.workers.frames import BadFrame, Frame, FrameReader, Kind, head

_READ_BYTES: Final = 256 << 10
_MOST_PIECES: Final = 64  # `writev` takes 1024; nobody sends as many


class Closed(Exception):
    """The other side is gone."""


class Channel:
    """One end.

    Args:
        reads, writes: file descriptors; the same one for a socket.
    """

    def __init__(self, reads: int, writes: int) -> None:
        self._reads = reads
        self._writes = writes
        self._reader = FrameReader()
        self._waiting: deque[Frame] = deque()
        self._unsent: deque[memoryview] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._on_frame: Callable[[Frame], None] = _nobody
        self._on_closed: Callable[[], None] = _nobody
        self.closed = False

    # -- waiting ----------------------------------------------------------------------------------------------

    def send(self, kind: Kind, call: int, body: Sequence[bytes | memoryview] = ()) -> None:
        """Send a frame; waits until all of it is written, unless attached.

        Raises:
            Closed: nobody reads it any more. Never once attached: then the end is told of.
        """
        pieces = [memoryview(piece).cast("B") for piece in body if len(piece)]
        length = sum(len(piece) for piece in pieces)
        pieces.insert(0, memoryview(head(kind, call, length)))
        if self._loop is not None:
            self._write_soon(pieces)
            return
        while pieces:
            try:
                _advance(pieces, os.writev(self._writes, pieces[:_MOST_PIECES]))
            except OSError as error:
                raise Closed from error

    def receive(self, timeout_s: float | None = None) -> Frame:
        """Wait for a frame.

        Raises:
            Closed: there will be none.
            TimeoutError: it did not come in time.
            BadFrame: what came is none.
        """
        until = None if timeout_s is None else time.monotonic() + timeout_s
        while not self._waiting:
            if until is not None:
                left_s = max(0.0, until - time.monotonic())
                if not select.select([self._reads], [], [], left_s)[0]:
                    raise TimeoutError
            try:
                data = os.read(self._reads, _READ_BYTES)
            except OSError as error:
                raise Closed from error
            if not data:
                raise Closed
            self._waiting.extend(self._reader.feed(data))
        return self._waiting.popleft()

    def fileno(self) -> int:
        """What becomes readable when a frame comes."""
        return self._reads

    # -- on an event loop -------------------------------------------------------------------------------------

    def attach(
        self, loop: asyncio.AbstractEventLoop, on_frame: Callable[[Frame], None], on_closed: Callable[[], None]
    ) -> None:
        """From now on, never wait: call `on_frame` for each frame, and `on_closed` once."""
        self._loop = loop
        self._on_frame, self._on_closed = on_frame, on_closed
        os.set_blocking(self._reads, False)
        os.set_blocking(self._writes, False)
        while self._waiting:
            on_frame(self._waiting.popleft())
        loop.add_reader(self._reads, self._readable)

    def close(self) -> None:
        """Let go of the descriptors. The other side reads the end of the stream."""
        if self.closed:
            return
        self.closed = True
        if self._loop is not None:
            self._loop.remove_reader(self._reads)
            self._loop.remove_writer(self._writes)
        self._unsent.clear()
        for descriptor in {self._reads, self._writes}:
            os.close(descriptor)

    def _readable(self) -> None:
        try:
            data = os.read(self._reads, _READ_BYTES)
            for frame in self._reader.feed(data):
                self._on_frame(frame)
                if self.closed:
                    return
        except BlockingIOError:
            return
        except (OSError, BadFrame):
            data = b""
        if not data:
            self._ended()

    def _write_soon(self, pieces: list[memoryview]) -> None:
        if self.closed:
            return
        if not self._unsent:
            self._write(pieces)
        if pieces and not self.closed:
            assert self._loop is not None
            if not self._unsent:
                self._loop.add_writer(self._writes, self._writable)
            # Whoever sends may change what it sent.
            self._unsent.extend(memoryview(bytes(piece)) for piece in pieces)

    def _write(self, pieces: list[memoryview]) -> None:
        while pieces:
            try:
                _advance(pieces, os.writev(self._writes, pieces[:_MOST_PIECES]))
            except BlockingIOError:
                return
            except OSError:
                pieces.clear()
                self._ended()

    def _writable(self) -> None:
        pieces = list(self._unsent)
        self._unsent.clear()
        self._write(pieces)
        self._unsent.extend(pieces)
        if not self._unsent and not self.closed:
            assert self._loop is not None
            self._loop.remove_writer(self._writes)

    def _ended(self) -> None:
        if not self.closed:
            self.close()
            self._on_closed()


def _advance(pieces: list[memoryview], written: int) -> None:
    while pieces and written >= len(pieces[0]):
        written -= len(pieces.pop(0))
    if written:
        pieces[0] = pieces[0][written:]


def _nobody(*_: object) -> None:
    """Before anybody is attached."""
