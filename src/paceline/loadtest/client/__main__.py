"""What does the process do that sends the requests of a load test?

    python -m paceline.loadtest.client DESCRIPTOR

It reads a target and then steps from its parent, holds the load of each, and sends back samples and how it went.

Rules:
- One thread, one epoll loop, no tasks. The collector rests during a step: what a request leaves behind goes at once.
- It ends when its parent does, and not with Ctrl-C in a terminal: what that means is for the parent to decide.
"""

from __future__ import annotations

import gc
import math
import resource
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import msgspec
import numpy as np

from paceline.core.errors import GeneratorFailed
from paceline.loadtest.client.channel import Channel, ParentGone
from paceline.loadtest.client.closed_loop import ClosedLoop
from paceline.loadtest.client.connections import Route, route
from paceline.loadtest.client.frames import Kind
from paceline.loadtest.client.loads import Load
from paceline.loadtest.client.loop import Loop, Waking
from paceline.loadtest.client.open_loop import OpenLoad
from paceline.loadtest.client.recorder import Recorder
from paceline.loadtest.client.usage import Usage
from paceline.loadtest.histogram import LatencyHistogram
from paceline.loadtest.steps import Change, Ended, Step, Users
from paceline.loadtest.target import Target

_FLUSH_S: Final = 0.1
_GRACE_S: Final = 1.0
# How late a timeout may be seen: this share of it, within these bounds.
_SWEEP_SHARE: Final = 0.02
_SWEEP_S: Final = (0.005, 0.1)


class Client:
    """The loop, and what the parent wants of it."""

    def __init__(self, channel: Channel, loop: Loop) -> None:
        self._channel = channel
        self._loop = loop
        self._steps: deque[Step] = deque()
        self._target: Target | None = None
        self._held: _Held | None = None
        self._early: list[tuple[Kind, bytes]] = []
        channel.attach(loop, self._obey)

    def run(self) -> None:
        """Hold one step after the other, until the parent is gone.

        Raises:
            ParentGone: always, in the end.
            GeneratorFailed, ValueError: the target cannot be asked.
        """
        while self._target is None:
            self._loop.turn(_NOTHING_DUE, time.monotonic() + 60.0)
        to = route(self._target)
        self._target = None  # the codecs have what they need
        self._channel.send(Kind.READY)
        while True:
            while not self._steps:
                self._loop.turn(_NOTHING_DUE, time.monotonic() + 60.0)
            self._held = _Held(self._steps.popleft(), self._loop, to, self._channel)
            for kind, payload in self._early:
                self._held.obey(kind, payload)
            self._early.clear()
            ended = self._held.run()
            self._held = None
            self._channel.send(Kind.ENDED, msgspec.msgpack.encode(ended))

    def _obey(self) -> None:
        for kind, payload in self._channel.received():
            if kind is Kind.TARGET:
                self._target = msgspec.msgpack.decode(payload, type=Target)
            elif kind is Kind.STEP:
                self._steps.append(msgspec.msgpack.decode(payload, type=Step))
            elif self._held is not None:
                self._held.obey(kind, payload)
            elif self._steps:  # for the one that is about to run; what comes after the end of a step is too late
                self._early.append((kind, payload))


class _Held:
    """One step while it runs."""

    def __init__(self, step: Step, loop: Loop, to: Route, channel: Channel) -> None:
        gc.collect()
        gc.freeze()
        gc.disable()
        self._loop = loop
        self._channel = channel
        self._start_s = start_s = time.monotonic()
        self._counting_s = start_s + step.warmup_s
        self._patience_s = start_s + step.warmup_s + step.duration_s + step.timeout_s + _GRACE_S
        self._sweep_s = min(max(step.timeout_s * _SWEEP_SHARE, _SWEEP_S[0]), _SWEEP_S[1])
        self._next_sweep_s, self._next_flush_s = start_s + self._sweep_s, start_s + _FLUSH_S
        self._recorder = Recorder(channel, start_s)
        self._late = LatencyHistogram()
        channel.dropped = 0
        if isinstance(step.load, Users):
            self.load: Load = ClosedLoop(step.load, step, loop, to, self._recorder, start_s)
        else:
            self.load = OpenLoad(step.load, step, loop, to, self._recorder, start_s)

    def run(self) -> Ended:
        """Hold the load until its end, and wait for what is under way then."""
        load = self.load
        self._turns_until(lambda: min(self._counting_s, load.end_s))
        load.lags.clear()
        self._late = LatencyHistogram()
        before = Usage.now()
        self._turns_until(lambda: load.end_s)
        cpu, waited = Usage.now().since(before)
        # What was due before the end may not have been sent yet.
        while (load.under_way or load.wake_s < math.inf) and time.monotonic() < self._patience_s:
            self._turn(self._patience_s)
        load.abandon(time.monotonic())
        self._flush()
        gc.enable()
        gc.unfreeze()
        wall_s = max(0.0, load.end_s - self._counting_s)
        late_p99_s = self._late.percentile(99)
        return Ended(cpu=cpu, wall_s=wall_s, dropped=self._channel.dropped, waited=waited, late_p99_s=late_p99_s)

    def obey(self, kind: Kind, payload: bytes) -> None:
        """Another load, or no more of it and a moment for what is under way."""
        now = time.monotonic()
        if kind is Kind.CHANGE:
            self.load.change(msgspec.msgpack.decode(payload, type=Change), now)
        elif kind is Kind.STOP:
            self.load.halt(now)
            self._patience_s = min(self._patience_s, now + _GRACE_S)

    def _turns_until(self, end: Callable[[], float]) -> None:
        """Until a time that a stop may bring forward."""
        while time.monotonic() < (until := end()):
            self._turn(until)

    def _turn(self, latest: float) -> None:
        self._loop.turn(self.load, min(latest, self._next_sweep_s, self._next_flush_s))
        now = time.monotonic()
        if now >= self._next_sweep_s:
            self.load.sweep(now)
            self._next_sweep_s = now + self._sweep_s
        if now >= self._next_flush_s:
            self._flush()
            self._next_flush_s = now + _FLUSH_S

    def _flush(self) -> None:
        self._recorder.flush()
        self._late.add(np.array(self.load.lags))
        self.load.lags.clear()


def main() -> int:
    """Serve the parent at the other end of the socket whose descriptor is the argument."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with socket.socket(fileno=int(sys.argv[1])) as connection, suppress(ParentGone):
        channel = Channel(connection)
        try:
            Client(channel, Loop()).run()
        except (GeneratorFailed, ValueError) as error:
            channel.send(Kind.FAILED, str(error).encode())
            channel.send_all()
            return 1
    return 0


_NOTHING_DUE: Final = Waking()

if __name__ == "__main__":
    sys.exit(main())
