"""The two ends of a line between processes: frames over a pair of file descriptors.

Rules:
- A worker, and the server while it starts one, wait in `send` and `receive`. Once attached to an event loop, the
  server neither waits to read nor to write.
- What cannot be written at once is kept. A worker is given a batch for each lane and no more before it has answered,
  so that is the bound; one that does not read is killed as one that hangs.
- What is no frame ends the channel, and with it the worker at the other end, never the server.
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

HUNG_UP: Final = "it closed its channel"

_MOST_PIECES: Final = 64  # `writev` takes 1024; nobody sends as many
# Below it, joining pieces costs less than handing them to the kernel one by one.
_SMALL_BYTES: Final = 32 << 10


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
        self._drained = asyncio.Event()
        self._drained.set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._on_frame: Callable[[Frame], None] = _nobody
        self._on_closed: Callable[[str], None] = _nobody
        self.closed = False

    # -- waiting ----------------------------------------------------------------------------------------------

    def send(self, kind: Kind, call: int, body: Sequence[bytes | memoryview] = ()) -> None:
        """Send a frame; waits until all of it is written, unless attached.

        Raises:
            Closed: nobody reads it any more. Never once attached: then the end is told of.
        """
        pieces = _pieces(kind, call, body)
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
                poll = select.poll()  # `select` knows no descriptor above 1023
                poll.register(self._reads, select.POLLIN)
                if not poll.poll(max(0.0, until - time.monotonic()) * 1000):
                    raise TimeoutError
            try:
                count = os.readv(self._reads, [self._reader.room()])
            except OSError as error:
                raise Closed from error
            if not count:
                raise Closed
            self._waiting.extend(self._reader.received(count))
        return self._waiting.popleft()

    def fileno(self) -> int:
        """What becomes readable when a frame comes."""
        return self._reads

    # -- on an event loop -------------------------------------------------------------------------------------

    def attach(
        self, loop: asyncio.AbstractEventLoop, on_frame: Callable[[Frame], None], on_closed: Callable[[str], None]
    ) -> None:
        """From now on, never wait: call `on_frame` for each frame, and `on_closed`, with the reason, once.

        `on_frame` may raise `BadFrame` too.
        """
        self._loop = loop
        self._on_frame, self._on_closed = on_frame, on_closed
        os.set_blocking(self._reads, False)
        os.set_blocking(self._writes, False)
        while self._waiting:
            on_frame(self._waiting.popleft())
        loop.add_reader(self._reads, self._readable)

    async def drained(self) -> None:
        """Wait until all that was sent has been written, or can never be: for those who could send without end."""
        await self._drained.wait()

    def read_rest(self) -> None:
        """Take in what has been sent so far: its sender is no more, and perhaps had answered before it ended."""
        while not self.closed and self._read():
            """There may be more."""

    def close(self) -> None:
        """Let go of the descriptors. The other side reads the end of the stream."""
        if self.closed:
            return
        self.closed = True
        if self._loop is not None:
            self._loop.remove_reader(self._reads)
            self._loop.remove_writer(self._writes)
        self._unsent.clear()
        self._drained.set()
        for descriptor in {self._reads, self._writes}:
            os.close(descriptor)

    def _readable(self) -> None:
        self._read()

    def _read(self) -> bool:
        """Read once; True when there may be more."""
        try:
            count = os.readv(self._reads, [self._reader.room()])
        except BlockingIOError:
            return False
        except OSError as error:
            self._ended(f"its channel is broken: {error.strerror}")
            return False
        if not count:
            self._ended(HUNG_UP)
            return False
        try:
            for frame in self._reader.received(count):
                self._on_frame(frame)
                if self.closed:
                    return False
        except BadFrame as error:
            self._ended(f"it broke the protocol: {error}")
        except Exception:
            # A defect of ours: the calls in the frames behind would never end.
            self._ended("what it said could not be taken in")
            raise
        return not self.closed

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
            self._unsent.append(memoryview(b"".join(pieces)))
            self._drained.clear()

    def _write(self, pieces: list[memoryview]) -> None:
        while pieces:
            try:
                _advance(pieces, os.writev(self._writes, pieces[:_MOST_PIECES]))
            except BlockingIOError:
                return
            except OSError as error:
                pieces.clear()
                assert self._loop is not None
                self._loop.call_soon(self._unheard, f"its channel is broken: {error.strerror}")

    def _writable(self) -> None:
        pieces = list(self._unsent)
        self._unsent.clear()
        self._write(pieces)
        self._unsent.extend(pieces)
        if not self._unsent and not self.closed:
            assert self._loop is not None
            self._loop.remove_writer(self._writes)
            self._drained.set()

    def _unheard(self, why: str) -> None:
        """It reads no more; what it has said before counts."""
        self.read_rest()
        self._ended(why)

    def _ended(self, why: str) -> None:
        if not self.closed:
            self.close()
            self._on_closed(why)


def _pieces(kind: Kind, call: int, body: Sequence[bytes | memoryview]) -> list[memoryview]:
    views = [memoryview(piece).cast("B") for piece in body if len(piece)]
    length = sum(map(len, views))
    start = head(kind, call, length)
    if length <= _SMALL_BYTES:
        return [memoryview(b"".join((start, *views)))]
    return [memoryview(start), *views]


def _advance(pieces: list[memoryview], written: int) -> None:
    while pieces and written >= len(pieces[0]):
        written -= len(pieces.pop(0))
    if written:
        pieces[0] = pieces[0][written:]


def _nobody(*_: object) -> None:
    """Before anybody is attached."""
