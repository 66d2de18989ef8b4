"""An open-loop client: requests leave when they are due, whether or not earlier ones were answered.

    python -m benchmarks.open_loop URL BODY --phases 2000:10,20000:1 --header 'X-Request-Timeout-Ms: 100'

Rules:
- Arrivals are drawn before the start. Latency counts from the INTENDED time, so that a slow client shows in
  the latencies, and its own lateness is reported beside them.
- One request at a time on a connection; the pool is fixed. An arrival that finds none free is not sent: it
  counts as overflow, which is a failed request.
- A timerfd wakes the loop to the microsecond; an event loop's own timers are a millisecond coarse.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import gc
import json
import os
import sys
import time
from array import array
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import uvloop

OVERFLOW, LOST, UNANSWERED = -1, -2, -3
_MIN_GAP_S = 100e-6
_SENDS_A_TICK = 64
_GRACE_S = 2.0
_POLL_S = 0.01
_LEAD_S = 0.05
_NONBLOCK_CLOEXEC = 0o2004000
_ABSOLUTE = 1


@dataclass(frozen=True)
class Samples:
    """One entry per arrival: intended second, seconds from then to the answer, status (or as above)."""

    intended_s: np.ndarray
    latency_s: np.ndarray
    status: np.ndarray

    def between(self, start_s: float, stop_s: float) -> Samples:
        """The arrivals intended in a window."""
        chosen = (self.intended_s >= start_s) & (self.intended_s < stop_s)
        return Samples(self.intended_s[chosen], self.latency_s[chosen], self.status[chosen])

    def latencies_ms(self, *statuses: int) -> np.ndarray:
        """Of the answers with one of these statuses."""
        return self.latency_s[np.isin(self.status, statuses)] * 1e3


def arrivals(phases: list[tuple[float, float]], poisson: bool, seed: int) -> np.ndarray:
    """Seconds since the start of every arrival; phases are (rate, seconds)."""
    random = np.random.default_rng(seed)
    times, begin = [], 0.0
    for rate, seconds in phases:
        count = int(random.poisson(rate * seconds)) if poisson else round(rate * seconds)
        # Given their number, the arrivals of a Poisson process are uniform and independent.
        offsets = np.sort(random.uniform(0, seconds, count)) if poisson else np.arange(count) / rate
        times.append(begin + offsets)
        begin += seconds
    return np.concatenate(times)


class _Timer:
    """One-shot, absolute, on the monotonic clock; setting it again also clears it."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.fd = self._libc.timerfd_create(time.CLOCK_MONOTONIC, _NONBLOCK_CLOEXEC)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._spec = (ctypes.c_long * 4)(0, 0, 0, 0)
        self._set = self._libc.timerfd_settime

    def wake_at(self, when: float) -> None:
        seconds = int(when)
        self._spec[2], self._spec[3] = seconds, max(1, int((when - seconds) * 1e9))
        self._set(self.fd, _ABSOLUTE, self._spec, None)


class _Connection(asyncio.Protocol):
    __slots__ = ("_client", "_rest", "intended", "transport")

    def __init__(self, client: Client) -> None:
        self._client = client
        self._rest = b""
        self.intended = -1.0
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self._client.free.append(self)

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
                intended, self.intended = self.intended, -1.0
                self._client.answered(intended, int(data[9:12]))
                if b"connection: close" not in head:
                    self._client.free.append(self)
                return
        self._rest = data

    def connection_lost(self, exc: Exception | None) -> None:
        self._client.lost(self)


class Client:
    """Sends `request` at the arrival times over `connections` connections."""

    def __init__(self, host: str, port: int, request: bytes, times: np.ndarray, connections: int) -> None:
        self.free: list[_Connection] = []
        self.lateness = array("d")
        self._address = (host, port)
        self._request = request
        self._relative = times
        self._connections = connections
        self._records = (array("d"), array("d"), array("i"))
        self._next = self._sent = self._settled = 0
        self._timer = _Timer()
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> Samples:
        """Send all, wait for the answers."""
        self._all: list[_Connection] = []
        for _ in range(self._connections):
            await self._connect()
        gc.collect()
        gc.freeze()
        self._start = time.monotonic() + _LEAD_S
        self._times = (self._relative + self._start).tolist()
        loop = asyncio.get_running_loop()
        loop.add_reader(self._timer.fd, self._tick)
        self._timer.wake_at(self._start)
        await asyncio.sleep(self._times[-1] - time.monotonic())
        for _ in range(int(_GRACE_S / _POLL_S)):
            if self._next == len(self._times) and self._settled == self._sent:
                break
            await asyncio.sleep(_POLL_S)
        loop.remove_reader(self._timer.fd)
        for connection in self._all:
            if connection.intended >= 0:
                self._record(connection.intended, time.monotonic(), UNANSWERED)
                connection.intended = -1.0
        intended, latency, status = (np.array(each) for each in self._records)
        return Samples(intended - self._start, latency, status)

    def answered(self, intended: float, status: int) -> None:
        """An answer is complete."""
        self._settled += 1
        self._record(intended, time.monotonic(), status)

    def lost(self, connection: _Connection) -> None:
        """The server closed a connection: open another."""
        if connection in self.free:
            self.free.remove(connection)
        if connection.intended >= 0:
            self._settled += 1
            self._record(connection.intended, time.monotonic(), LOST)
            connection.intended = -1.0
        task = asyncio.ensure_future(self._connect())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(lambda: _Connection(self), *self._address)
        self._all.append(connection)

    def _record(self, intended: float, now: float, status: int) -> None:
        intendeds, latencies, statuses = self._records
        intendeds.append(intended)
        latencies.append(now - intended)
        statuses.append(status)

    def _tick(self) -> None:
        times, free, index, now = self._times, self.free, self._next, time.monotonic()
        last = min(len(times), index + _SENDS_A_TICK)  # answers are read in between
        while index < last and times[index] <= now:
            due = times[index]
            index += 1
            if free:
                connection = free.pop()
                connection.intended = due
                connection.transport.write(self._request)  # type: ignore[union-attr]
                self._sent += 1
                now = time.monotonic()
                self.lateness.append(now - due)
            else:
                self._record(due, now, OVERFLOW)
        self._next = index
        if index < len(times):
            self._timer.wake_at(max(times[index], now + (0 if index == last else _MIN_GAP_S)))
        else:
            self._timer.wake_at(now + 3600)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url")
    parser.add_argument("body", type=Path)
    parser.add_argument("--phases", required=True, help="RATE:SECONDS, comma-separated")
    parser.add_argument("--header", action="append", default=[], help="further header line")
    parser.add_argument("--arrivals", choices=("poisson", "constant"), default="poisson")
    parser.add_argument("--connections", type=int, default=1024)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="where every sample goes (.npz)")
    options = parser.parse_args()
    url, body = urlsplit(options.url), options.body.read_bytes()
    lines = [f"POST {url.path} HTTP/1.1", f"Host: {url.netloc}", "Content-Type: application/json"]
    lines += [f"Content-Length: {len(body)}", *options.header]
    phases = [(float(rate), float(s)) for rate, s in (each.split(":") for each in options.phases.split(","))]
    times = arrivals(phases, options.arrivals == "poisson", options.seed)
    request = "\r\n".join(lines).encode() + b"\r\n\r\n" + body
    client = Client(url.hostname or "", url.port or 80, request, times, options.connections)
    cpu_s, begun = time.process_time(), time.monotonic()
    samples = uvloop.run(client.run())
    cpu_share = (time.process_time() - cpu_s) / (time.monotonic() - begun)
    if options.out:
        np.savez(options.out, **vars(samples))
    statuses, counts = np.unique(samples.status, return_counts=True)
    late_ms = np.percentile(client.lateness or [0.0], (50, 99, 100)) * 1e3
    summary = {
        "arrivals": len(times),
        "status": {str(status): int(count) for status, count in zip(statuses, counts, strict=True)},
        "late_ms": dict(zip(("p50", "p99", "max"), late_ms.round(3).tolist(), strict=True)),
        "client_cpu": round(cpu_share, 3),
        "pinned": sorted(os.sched_getaffinity(0)),
    }
    json.dump(summary, sys.stdout)


if __name__ == "__main__":
    main()
