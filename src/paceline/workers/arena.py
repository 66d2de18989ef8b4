"""Memory that two processes have mapped: one writes large tensors into it, the other reads them where they lie.

Rules:
- There is one writer and one reader, and one message at a time. What the writer may overwrite, the reader says: the
  first bytes hold the `Room` in which the next message has to lie. What does not fit there travels on the channel.
- The reader gives away views (`lend`), and offers no room that somebody still looks at. So nothing is copied out.
- It grows on demand, and never shrinks: whoever tried would find it sealed.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import weakref
from typing import Final, NamedTuple

from paceline.core.tensors import Array
from paceline.workers.frames import BadFrame

HEAD_BYTES: Final = 64
_HEAD: Final = struct.Struct("<qq")
_PAGE: Final = mmap.PAGESIZE
_GROWTH: Final = 1 << 20
_NO_END: Final = 1 << 40
# As many of the largest messages may be lent at once: answers that wait for slow clients. The next ones are copied.
_MOST_LENT: Final = 4


class Room(NamedTuple):
    """Bytes that may be written, from `begin` to before `end`."""

    begin: int
    end: int


class _Lent(NamedTuple):
    begin: int
    end: int
    view: weakref.ref[Array]


_ALL: Final = Room(HEAD_BYTES, _NO_END)
_NONE: Final = Room(HEAD_BYTES, HEAD_BYTES)


class Arena:
    """One direction between a server and a worker.

    Args:
        descriptor: of anonymous memory (`memfd_create`); inherited by the worker.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._head = mmap.mmap(descriptor, _PAGE)
        self._map: mmap.mmap | None = None
        self._lent: list[_Lent] = []
        self._offered = _ALL
        self._usual_bytes = 0

    @classmethod
    def new(cls) -> Arena:
        """An arena of its own memory."""
        descriptor = os.memfd_create("paceline", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(descriptor, _PAGE)
        # A file that became shorter would end whoever reads where it was.
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
        arena = cls(descriptor)
        _HEAD.pack_into(arena._head, 0, *_ALL)
        return arena

    # -- the writer -------------------------------------------------------------------------------------------

    def place(self, size_bytes: int) -> int | None:
        """Where a message may lie; None: nowhere now."""
        room = Room(*_HEAD.unpack_from(self._head, 0))
        return room.begin if room.begin + size_bytes <= room.end else None

    def writable(self, end: int) -> memoryview:
        """All bytes before `end`, to write into."""
        if self._map is None or len(self._map) < end:
            size = -(-end // _GROWTH) * _GROWTH
            if os.fstat(self.descriptor).st_size < size:
                os.ftruncate(self.descriptor, size)
            self._map = mmap.mmap(self.descriptor, size)
        return memoryview(self._map)

    # -- the reader -------------------------------------------------------------------------------------------

    def read(self, at: int, size_bytes: int) -> memoryview:
        """Some bytes that the other side has written; nobody may write into them here.

        Raises:
            BadFrame: there are none.
        """
        end = at + size_bytes
        if at < 0 or size_bytes < 0 or self._map is None or end > len(self._map):
            self._map_more(at, size_bytes)
        assert self._map is not None
        return memoryview(self._map)[at:end]

    def lend(self, at: int, view: Array) -> None:
        """Keep the bytes that `view` shows, from `at` on, as long as somebody looks at them."""
        end = at + view.nbytes
        self._lent.append(_Lent(at, end, weakref.ref(view)))
        self._usual_bytes = max(self._usual_bytes, end - self._offered.begin)

    def offer(self) -> None:
        """Tell the writer where the next message may lie."""
        room = self._free() if self._lent else _ALL
        if room != self._offered:
            self._offered = room
            _HEAD.pack_into(self._head, 0, *room)

    def close(self) -> None:
        """Let go of the memory; views that are left keep it."""
        self._map = None
        os.close(self.descriptor)

    def _free(self) -> Room:
        """The first gap as large as the largest message so far, or what is behind all that is lent."""
        self._lent = sorted(each for each in self._lent if each.view() is not None)
        begin = HEAD_BYTES
        for each in self._lent:
            if each.begin - begin >= self._usual_bytes:
                return Room(begin, each.begin)
            begin = -(-each.end // HEAD_BYTES) * HEAD_BYTES
        return Room(begin, _NO_END) if begin < _MOST_LENT * self._usual_bytes else _NONE

    def _map_more(self, at: int, size_bytes: int) -> None:
        size = os.fstat(self.descriptor).st_size
        if at < 0 or size_bytes < 0 or at + size_bytes > size:
            raise BadFrame(f"a tensor at {at} with {size_bytes} bytes lies outside the shared memory")
        self._map = mmap.mmap(self.descriptor, size, access=mmap.ACCESS_READ)
