"""How does a load test make its client send requests? The parent's handle of the client's process.

Rules:
- The client ends with its parent, however that ends, and at the latest when this is closed. Ctrl-C does not reach it.
- Every wait has a deadline. A client that dies is told with its last words.
"""

from __future__ import annotations

import select
import socket
import subprocess
import sys
import tempfile
import time
from types import TracebackType
from typing import ClassVar, Final, Self

import msgspec
import numpy as np

from paceline.core.errors import GeneratorFailed
from paceline.loadtest.client.frames import FrameReader, Kind, packed
from paceline.loadtest.samples import SAMPLE, Samples
from paceline.loadtest.steps import Change, Ended, Step
from paceline.loadtest.target import Target

_START_S: Final = 60.0
_SEND_S: Final = 30.0
_END_S: Final = 2.0
_READ_SIZE: Final = 1 << 20
_LAST_WORDS: Final = 2000


class Generator:
    """The process that sends requests to one target, step by step.

    Attributes:
        ended: what the client says of the step, once all its samples were handed over; None before.

    Raises:
        GeneratorFailed: the target takes no connections, or the process did not start.
    """

    module: ClassVar[str] = "paceline.loadtest.client"
    """What the process runs."""

    def __init__(self, target: Target) -> None:
        self.ended: Ended | None = None
        self._reader = FrameReader()
        self._ready = False
        self._words = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
        self._socket, theirs = socket.socketpair()
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", self.module, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=self._words,
                stderr=self._words,
                pass_fds=[theirs.fileno()],
                process_group=0,
            )
        try:
            self._send(Kind.TARGET, msgspec.msgpack.encode(target))
            self._wait_ready()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Of the client's process."""
        return self._process.pid

    def begin(self, step: Step) -> None:
        """Start a step; the last one has ended.

        Raises:
            GeneratorFailed: the client died.
        """
        self.ended = None
        self._send(Kind.STEP, msgspec.msgpack.encode(step))

    def change(self, change: Change) -> None:
        """Another load for the rest of the step.

        Raises:
            GeneratorFailed: the client died.
        """
        self._send(Kind.CHANGE, msgspec.msgpack.encode(change))

    def stop(self) -> None:
        """End the step soon: nothing more is sent, and what is under way is waited for a moment.

        Raises:
            GeneratorFailed: the client died.
        """
        self._send(Kind.STOP)

    def poll(self, timeout_s: float) -> Samples | None:
        """What came since the last call, waiting so long for anything to come; None: nothing did.

        Raises:
            GeneratorFailed: the client died.
        """
        until = time.monotonic() + timeout_s
        while True:
            rows = self._received(max(0.0, until - time.monotonic()))
            if rows:
                return np.frombuffer(rows, SAMPLE)
            if self.ended is not None or time.monotonic() >= until:
                return None

    def close(self) -> None:
        """End the process; may be called twice."""
        self._socket.close()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._words.close()

    def _wait_ready(self) -> None:
        until = time.monotonic() + _START_S
        while not self._ready:
            if time.monotonic() > until:
                raise GeneratorFailed(f"the client did not start within {_START_S:g} s")
            self._received(until - time.monotonic())

    def _received(self, timeout_s: float) -> bytes:
        """Rows of samples that came; what else came is remembered."""
        if not self._poll.poll(timeout_s * 1000):
            return b""
        try:
            data = self._socket.recv(_READ_SIZE)
        except OSError as error:
            raise self._death() from error
        if not data:
            raise self._death()
        self._reader.feed(data)
        return b"".join(payload for kind, payload in self._reader.frames() if self._is_samples(kind, payload))

    def _is_samples(self, kind: Kind, payload: bytes) -> bool:
        if kind is Kind.ENDED:
            self.ended = msgspec.msgpack.decode(payload, type=Ended)
        elif kind is Kind.FAILED:
            raise GeneratorFailed(payload.decode(), hint="is the server up, and is this its address?")
        elif kind is Kind.READY:
            self._ready = True
        return kind is Kind.SAMPLES

    def _send(self, kind: Kind, payload: bytes = b"") -> None:
        self._socket.settimeout(_SEND_S)
        try:
            self._socket.sendall(packed(kind, payload))
        except OSError as error:
            raise self._death() from error
        finally:
            self._socket.settimeout(None)

    def _death(self) -> GeneratorFailed:
        try:
            code = self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            return GeneratorFailed("the client's process does not answer any more")
        self._words.seek(0)
        words = self._words.read()[-_LAST_WORDS:].decode(errors="replace").strip()
        return GeneratorFailed(f"the client's process ended with code {code}{':' if words else ''} {words}".rstrip())
