"""An open-loop client: requests leave when they are due, whether or not earlier ones were answered.

    python -m benchmarks.open_loop URL BODY --phases 2000:10,20000:1 --header 'X-Request-Timeout-Ms: 100'

`--closed` makes it a closed loop: every connection has one request under way, always, for the seconds of the phases.

Rules:
- Arrivals are drawn before the start. Latency counts from the INTENDED time, so that a slow client shows in
  the latencies, and its own lateness is reported beside them.
- One request at a time on a connection; the pool is fixed. An arrival that finds none free is not sent: it
  counts as overflow, which is a failed request.
- `--fresh` is the share of arrivals that go on a connection of their own, opened for it. A connection of the pool that
  the server closes is opened again: a failure only if a request was on it, or if it cannot be opened.
- SIGTERM ends the arrivals early; what is under way is still waited for.
- A timerfd wakes the loop to the microsecond; an event loop's own timers are a millisecond coarse.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import os
import signal
import sys
import time
from array import array
from collections.abc import Coroutine
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import uvloop

from benchmarks.samples import LOST, OVERFLOW, REFUSED, RESET, UNANSWERED, Samples, arrivals
from paceline.loadtest.client.timer import Timer

_MIN_GAP_S = 100e-6
_SENDS_A_TICK = 64
_GRACE_S = 2.0
_POLL_S = 0.01
_CONNECT_S = 5.0
_AGAIN_S = 0.01
_LEAD_S = 0.05


class _Connection(asyncio.Protocol):
    __slots__ = ("_client", "_rest", "intended", "only", "transport")

    def __init__(self, client: Client, only: float | None = None) -> None:
        self._client = client
        self._rest = b""
        self.only = only  # the one arrival that it was opened for
        self.intended = -1.0
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        if self.only is None:
            self._client.opened(self)
        else:
            self.send(self.only, self._client.last_request)

    def send(self, due: float, request: bytes) -> None:
        self.intended = due
        self.transport.write(request)  # type: ignore[union-attr]

    def data_received(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
        end = data.find(b"\r\n\r\n")
        if end >= 0:
            head = data[:end].lower()
            at = head.find(b"content-length:")
            stop = head.find(b"\r\n", at)
            size = int(head[at + 15 : stop if stop > 0 else end]) if at > 0 else 0
            if len(data) >= end + 4 + size:
                self._rest = b""
                self._complete(data, ends=b"connection: close" in head)
                return
        self._rest = data

    def _complete(self, data: bytes, *, ends: bool) -> None:
        intended, self.intended = self.intended, -1.0
        if intended >= 0:
            self._client.answered(intended, data)
        if ends or intended < 0 or self.only is not None:  # a word that nobody asked for ends it, too
            self.transport.close()  # type: ignore[union-attr]
        else:
            self._client.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._client.lost(self, exc)


class Client:
    """Sends `request` at the arrival times over `connections` connections.

    Args:
        last_request: the same, with the word that no other follows on its connection.
        fresh: share of arrivals that get a connection of their own.
        mark: text that is looked for in the answers.
    """

    def __init__(
        self,
        address: tuple[str, int],
        request: bytes,
        last_request: bytes,
        times: np.ndarray,
        connections: int,
        fresh: float = 0.0,
        mark: bytes = b"",
    ) -> None:
        self.free: list[_Connection] = []
        self.lateness = array("d")
        self.last_request = last_request
        self._address = address
        self._request = request
        self._relative = times
        self._fresh = (np.random.default_rng(7).random(len(times)) < fresh).tolist()
        self._mark = mark
        self._connections = connections
        self._records = (array("d"), array("d"), array("i"), array("b"))
        self._next = self._sent = self._settled = 0
        self._all: set[_Connection] = set()
        self._timer = Timer()
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopped = asyncio.Event()

    async def run(self) -> Samples:
        """Send all, wait for the answers."""
        for _ in range(self._connections):
            await self._connect()
        gc.collect()
        gc.freeze()
        self._start = time.monotonic() + _LEAD_S
        self._times = (self._relative + self._start).tolist()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stopped.set)
        self._begin(loop)
        print("begun", flush=True)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopped.wait(), self._times[-1] - time.monotonic())
        if self._next == len(self._times):
            self._stopped.set()
        return await self._finished(loop)

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.add_reader(self._timer.fd, self._tick)
        self._timer.set(self._start)

    async def _finished(self, loop: asyncio.AbstractEventLoop) -> Samples:
        for _ in range(int(_GRACE_S / _POLL_S)):
            if (self._stopped.is_set() or self._next == len(self._times)) and self._settled == self._sent:
                break
            await asyncio.sleep(_POLL_S)
        self._stopped.set()
        loop.remove_reader(self._timer.fd)
        for connection in self._all:
            if connection.intended >= 0:
                self._record(connection.intended, UNANSWERED)
                connection.intended = -1.0
        intended, latency, status, marked = (np.array(each) for each in self._records)
        return Samples(intended - self._start, latency, status, marked.astype(bool), self._start)

    def opened(self, connection: _Connection) -> None:
        """A connection of the pool can take a request."""
        self._all.add(connection)
        self.free.append(connection)

    def answered(self, intended: float, data: bytes) -> None:
        """An answer is complete."""
        self._settled += 1
        self._record(intended, int(data[9:12]), bool(self._mark) and self._mark in data)

    def lost(self, connection: _Connection, exc: Exception | None) -> None:
        """A connection is closed: open another in its place."""
        self._all.discard(connection)
        if connection in self.free:
            self.free.remove(connection)
        if connection.intended >= 0:
            self._settled += 1
            self._record(connection.intended, LOST if exc is None else RESET)
            connection.intended = -1.0
        if connection.only is None and not self._stopped.is_set():
            self._later(self._connect())

    def _later(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self) -> None:
        """A connection for the pool; each attempt that fails is a failure."""
        while not await self._opens(None):
            self._record(time.monotonic(), REFUSED)
            await asyncio.sleep(_AGAIN_S)

    async def _send_fresh(self, due: float) -> None:
        if not await self._opens(due):
            self._settled += 1
            self._record(due, REFUSED)

    async def _opens(self, only: float | None) -> bool:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_CONNECT_S):
                _, connection = await loop.create_connection(lambda: _Connection(self, only), *self._address)
        except OSError:  # TimeoutError is one
            return False
        if only is not None and connection.intended >= 0:
            self._all.add(connection)
        return True

    def _record(self, intended: float, status: int, marked: bool = False) -> None:
        intendeds, latencies, statuses, marks = self._records
        intendeds.append(intended)
        latencies.append(time.monotonic() - intended)
        statuses.append(status)
        marks.append(marked)

    def _tick(self) -> None:
        times, index, now = self._times, self._next, time.monotonic()
        if self._stopped.is_set():
            self._timer.set(now + 3600)
            return
        last = min(len(times), index + _SENDS_A_TICK)  # answers are read in between
        while index < last and times[index] <= now:
            self._send(index, times[index])
            index += 1
            now = time.monotonic()
        self._next = index
        if index < len(times):
            self._timer.set(max(times[index], now + (0 if index == last else _MIN_GAP_S)))
        else:
            self._timer.set(now + 3600)

    def _send(self, index: int, due: float) -> None:
        if self._fresh[index]:
            self._later(self._send_fresh(due))
        elif self.free:
            self.free.pop().send(due, self._request)
        else:
            self._record(due, OVERFLOW)
            return
        self._sent += 1
        self.lateness.append(time.monotonic() - due)


class ClosedClient(Client):
    """Sends on every connection as soon as the answer is there, until the last of the arrival times."""

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        self._next = len(self._times)
        waiting, self.free = self.free, []
        for connection in waiting:
            self.opened(connection)

    def opened(self, connection: _Connection) -> None:
        self._all.add(connection)
        if not hasattr(self, "_start"):
            self.free.append(connection)  # all begin together
        elif not self._stopped.is_set():
            self._sent += 1
            connection.send(time.monotonic(), self._request)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url")
    parser.add_argument("body", type=Path)
    parser.add_argument("--phases", required=True, help="RATE:SECONDS, comma-separated")
    parser.add_argument("--header", action="append", default=[], help="further header line")
    parser.add_argument("--arrivals", choices=("poisson", "constant"), default="poisson")
    parser.add_argument("--connections", type=int, default=1024)
    parser.add_argument("--fresh", type=float, default=0.0, help="share of arrivals on new connections")
    parser.add_argument("--closed", action="store_true", help="no arrivals: as fast as the answers come")
    parser.add_argument("--mark", default="", help="text to look for in the answers")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="where every sample goes (.npz)")
    options = parser.parse_args()
    url, body = urlsplit(options.url), options.body.read_bytes()
    lines = [f"POST {url.path} HTTP/1.1", f"Host: {url.netloc}", "Content-Type: application/json"]
    lines += [f"Content-Length: {len(body)}", *options.header]
    phases = [(float(rate), float(s)) for rate, s in (each.split(":") for each in options.phases.split(","))]
    if options.closed:
        times = np.array([sum(seconds for _, seconds in phases)])
    else:
        times = arrivals(phases, options.arrivals == "poisson", options.seed)
    head, mark = "\r\n".join(lines).encode(), options.mark.encode()
    requests = (head + b"\r\n\r\n" + body, head + b"\r\nConnection: close\r\n\r\n" + body)
    address = (url.hostname or "", url.port or 80)
    kind = ClosedClient if options.closed else Client
    client = kind(address, *requests, times, options.connections, options.fresh, mark)
    cpu_s, begun = time.process_time(), time.monotonic()
    samples = uvloop.run(client.run())
    cpu_share = (time.process_time() - cpu_s) / (time.monotonic() - begun)
    if options.out:
        np.savez(options.out, **vars(samples))
    statuses, counts = np.unique(samples.status, return_counts=True)
    late_ms = np.percentile(client.lateness or [0.0], (50, 99, 100)) * 1e3
    summary = {
        "arrivals": len(samples.status),
        "status": {str(status): int(count) for status, count in zip(statuses, counts, strict=True)},
        "late_ms": dict(zip(("p50", "p99", "max"), late_ms.round(3).tolist(), strict=True)),
        "client_cpu": round(cpu_share, 3),
        "pinned": sorted(os.sched_getaffinity(0)),
    }
    json.dump(summary, sys.stdout)


if __name__ == "__main__":
    main()
