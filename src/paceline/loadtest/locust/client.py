"""What does the process do that sends requests with Locust?

    python -m paceline.loadtest.locust.client DESCRIPTOR

It hears and says what our own client does. The load is held by Locust's own runner and users, and the users are
those of the script that `--locustfile` writes.

Rules:
- Locust replaces what waits in the standard library by gevent's, which switches to another greenlet.
- What a user has asked is reported once Locust reports it: a request that is cut off at the end of a step is not.
- It ends when its parent does, and not with Ctrl-C in a terminal: what that means is for the parent to decide.
"""

from __future__ import annotations

import gc
import importlib
import logging
import os
import signal
import socket
import sys
import tempfile
import time
import zlib
from pathlib import Path
from typing import Any, Final

import gevent
import locust
import msgspec
from gevent.event import AsyncResult, Event
from gevent.queue import Queue
from geventhttpclient.response import HTTPConnectionClosed, HTTPParseError
from locust.env import Environment
from locust.exception import CatchResponseError

from paceline.loadtest.client.codec import Answer
from paceline.loadtest.client.frames import FrameReader, Kind, packed
from paceline.loadtest.client.recorder import Recorder
from paceline.loadtest.client.server_timing import NO_TIMING, Timing, timing
from paceline.loadtest.client.usage import Usage
from paceline.loadtest.locust import file as locust_file
from paceline.loadtest.samples import PACK, Outcome
from paceline.loadtest.steps import Change, Ended, Step, Users
from paceline.loadtest.target import Target

_FLUSH_S: Final = 0.1
_GRACE_S: Final = 1.0
_START_S: Final = 60.0
_MOST_UNREAD: Final = 32 << 20
_READ_SIZE: Final = 1 << 18
_DEADLINE_EXCEEDED: Final = 4
# The first that fits.
_OUTCOMES: Final[tuple[tuple[tuple[type[BaseException], ...], Outcome], ...]] = (
    ((gevent.Timeout, TimeoutError), Outcome.TIMEOUT),
    ((HTTPConnectionClosed,), Outcome.CLOSED),
    ((HTTPParseError, zlib.error), Outcome.MALFORMED),
    ((ConnectionResetError, BrokenPipeError, ConnectionAbortedError), Outcome.RESET),
    ((OSError,), Outcome.NOT_CONNECTED),
)


class Parent:
    """The other end of the socket.

    Attributes:
        target: once it came.
        steps: those to be held; what is wished of one counts, even if it has not begun.
        dropped: samples that were lost because the parent did not read.
        failed: there is no use in going on.
    """

    def __init__(self, connection: socket.socket) -> None:
        self.target: AsyncResult[Target] = AsyncResult()
        self.steps: Queue[Held] = Queue()
        self.dropped = 0
        self._held: Held | None = None
        self.failed = Event()
        self._socket = connection
        self._unsent: Queue[bytes] = Queue()
        self._unsent_bytes = 0

    def send(self, kind: Kind, payload: bytes = b"") -> None:
        """Send when the parent reads."""
        frame = packed(kind, payload)
        self._unsent_bytes += len(frame)
        self._unsent.put(frame)

    def send_samples(self, rows: memoryview) -> None:
        """Send, or drop when too much waits already."""
        if self._unsent_bytes + len(rows) > _MOST_UNREAD:
            self.dropped += len(rows) // PACK.size
        else:
            self.send(Kind.SAMPLES, bytes(rows))

    def write(self) -> None:
        """Send what is put there, for ever; the end of the parent is for `read` to notice."""
        for frame in self._unsent:
            self._socket.sendall(frame)
            self._unsent_bytes -= len(frame)

    def give_up(self, exception: BaseException, **_: Any) -> None:
        """A user that cannot even ask is a defect of the script: Locust would try again for ever."""
        sys.stderr.write(f"{type(exception).__name__}: {exception}\n")
        self.failed.set()

    def read(self) -> None:
        """Act on what the parent says, until it is gone."""
        reader = FrameReader()
        while data := self._socket.recv(_READ_SIZE):
            reader.feed(data)
            for kind, payload in reader.frames():
                self._obey(kind, payload)

    def _obey(self, kind: Kind, payload: bytes) -> None:
        if kind is Kind.TARGET:
            self.target.set(msgspec.msgpack.decode(payload, type=Target))
        elif kind is Kind.STEP:
            self._held = Held(msgspec.msgpack.decode(payload, type=Step), self)
            self.steps.put(self._held)
        elif self._held is not None and kind is Kind.CHANGE:
            self._held.change(msgspec.msgpack.decode(payload, type=Change))
        elif self._held is not None and kind is Kind.STOP:
            self._held.stop()


class Held:
    """One step."""

    def __init__(self, step: Step, parent: Parent) -> None:
        assert isinstance(step.load, Users)
        self._step = step
        self._users = step.load.count
        self._think_s = step.load.think_s
        self._parent = parent
        self._runner: Any = None  # while it runs
        self._stopped = Event()

    def run(self, environment: Any) -> Ended:
        """Hold the load until its end, and wait for what is under way then."""
        step, events = self._step, environment.events.request
        for user in environment.user_classes:
            user.wait_time = locust.between(*self._think_s)
            user.network_timeout = user.connection_timeout = step.timeout_s
        self._recorder = Recorder(self._parent, time.monotonic())
        self._parent.dropped = 0
        events.add_listener(self._ended)
        flushing = gevent.spawn(self._flush)
        (cpu, waited), wall_s = self._counted(environment.runner)
        self._runner = None
        environment.stop_timeout = _GRACE_S if self._stopped.is_set() else step.timeout_s + _GRACE_S
        environment.runner.stop()
        flushing.kill()
        events.remove_listener(self._ended)
        self._recorder.flush()
        gc.collect()  # closes the connections of the users who have left
        return Ended(cpu=cpu, wall_s=wall_s, dropped=self._parent.dropped, waited=waited)

    def change(self, change: Change) -> None:
        """Users come, or leave."""
        before, self._users = self._users, change.users
        if self._runner is not None:
            self._runner.start(self._users, spawn_rate=max(before, self._users))  # all within a second

    def stop(self) -> None:
        """End it soon."""
        self._stopped.set()

    def _counted(self, runner: Any) -> tuple[tuple[float, float], float]:
        """Cores that it took while it counted, and waited for, and how long that was."""
        # Users who think do not all start at once.
        spread_s = min(self._think_s[1], self._step.warmup_s)
        runner.start(self._users, spawn_rate=self._users / spread_s if spread_s > 0 else self._users)
        self._runner = runner
        if self._stopped.wait(self._step.warmup_s):
            return (0.0, 0.0), 0.0
        began_s, before = time.monotonic(), Usage.now()
        self._stopped.wait(self._step.duration_s)
        return Usage.now().since(before), time.monotonic() - began_s

    def _flush(self) -> None:
        while True:
            gevent.sleep(_FLUSH_S)
            self._recorder.flush()

    def _ended(self, response_time: float, exception: BaseException | None = None, **told: Any) -> None:
        """A request has ended, says Locust."""
        now = time.monotonic()
        due_s = now - response_time / 1e3
        status, said = _said(told.get("response"), exception)
        outcome = _outcome(exception, status, response_time / 1e3 >= self._step.timeout_s)
        answer = Answer(outcome is Outcome.OK, status, *said)
        self._recorder.add(due_s, due_s, now, outcome, answer)


def _said(response: Any, exception: BaseException | None) -> tuple[int, Timing]:
    """The status of HTTP or gRPC, and the times that the server tells."""
    if response is None:
        code = getattr(exception, "code", None)  # of grpcio's errors
        return (code().value[0] if callable(code) else 0), NO_TIMING
    headers = response.headers or {}
    told = headers.get("server-timing")
    said = timing(told.encode("latin-1"), str(headers.get("x-batch-size", "")).encode()) if told else NO_TIMING
    return response.status_code or 0, said


def _outcome(exception: BaseException | None, status: int, is_late: bool) -> Outcome:
    if exception is None:
        return Outcome.OK
    # geventhttpclient wraps what it would have tried again, were it no POST
    exception = getattr(exception, "original", None) or exception
    for kinds, outcome in _OUTCOMES:
        if isinstance(exception, kinds):
            return outcome
    if status == _DEADLINE_EXCEEDED and is_late:
        return Outcome.TIMEOUT  # that of the client: the server has said nothing
    if status or isinstance(exception, CatchResponseError):
        return Outcome.STATUS
    return Outcome.MALFORMED


def users_of(target: Target, folder: Path) -> Any:
    """The class of users in the script for a target, which is written to a folder."""
    locust_file.write(folder / "paceline_users.py", target)
    sys.path.insert(0, str(folder))
    return importlib.import_module("paceline_users").Client


def hold(parent: Parent, folder: Path) -> None:
    """Hold one step after the other, for ever."""
    users = users_of(parent.target.get(timeout=_START_S), folder)
    environment: Any = Environment(user_classes=[users])
    environment.events.user_error.add_listener(parent.give_up)
    environment.create_local_runner()
    parent.send(Kind.READY)
    for held in parent.steps:
        parent.send(Kind.ENDED, msgspec.msgpack.encode(held.run(environment)))


def main() -> int:
    """Serve the parent at the other end of the socket whose descriptor is the argument."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Each request that fails is a sample: a line for it, too, would fill the disk.
    logging.getLogger("locust").setLevel(logging.CRITICAL)
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    with socket.socket(fileno=int(sys.argv[1])) as connection, tempfile.TemporaryDirectory() as folder:
        parent = Parent(connection)
        reading, writing = gevent.spawn(parent.read), gevent.spawn(parent.write)
        holding = gevent.spawn(hold, parent, Path(folder))
        gevent.wait([reading, writing, holding, parent.failed], count=1)
        has_failed = parent.failed.is_set() or holding.dead
        gevent.killall([reading, writing, holding])
        return int(has_failed)


if __name__ == "__main__":
    sys.exit(main())
