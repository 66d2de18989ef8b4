"""When are requests due, and how do samples travel? Parts of the client of load tests."""

from __future__ import annotations

import socket
import time
from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.loadtest.arrivals import Constant, Poisson, Trace
from paceline.loadtest.client.channel import Channel, ParentGone
from paceline.loadtest.client.codec import Answer
from paceline.loadtest.client.frames import FrameReader, Kind, packed
from paceline.loadtest.client.loop import READ, Loop, Waking
from paceline.loadtest.client.open_loop import Schedule
from paceline.loadtest.client.recorder import Recorder
from paceline.loadtest.samples import SAMPLE, Outcome


def due(schedule: Schedule, count: int) -> list[float]:
    found = []
    for _ in range(count):
        found.append(schedule.next_s)
        schedule.advance()
    return found


# -- schedule -------------------------------------------------------------------------------------------------


def test_a_schedule_counts_from_its_start() -> None:
    schedule = Schedule(Constant(rate=10.0), 1.0, seed=0, start_s=100.0)
    assert due(schedule, 3) == pytest.approx([100.0, 100.1, 100.2])


def test_another_rate_holds_from_its_moment_on() -> None:
    schedule = Schedule(Constant(rate=10.0), 100.0, seed=0, start_s=0.0)
    due(schedule, 3)
    schedule.scale(2.0, now=0.25)
    assert due(schedule, 3) == pytest.approx([0.275, 0.325, 0.375])
    schedule.scale(0.0, now=0.4)
    assert schedule.next_s == np.inf
    schedule.scale(1.0, now=10.4)
    assert due(schedule, 2) == pytest.approx([10.45, 10.55])


def test_a_process_that_has_come_to_its_end_begins_again() -> None:
    schedule = Schedule(Constant(rate=4.0), 1.0, seed=0, start_s=0.0)
    assert due(schedule, 9) == pytest.approx(np.arange(9) / 4)


def test_each_time_it_begins_again_the_draws_are_others() -> None:
    found = np.array(due(Schedule(Poisson(rate=200.0), 1.0, seed=3, start_s=0.0), 800))
    first, second = found[found < 1.0], found[(found >= 1.0) & (found < 2.0)] - 1.0
    assert (np.diff(found) >= 0).all()
    assert first.size != second.size or not np.allclose(first, second)


def test_a_process_without_arrivals_ends() -> None:
    schedule = Schedule(Poisson(rate=1e-9), 1.0, seed=0, start_s=0.0)
    assert schedule.next_s == np.inf


def test_a_trace_is_played_as_it_is() -> None:
    schedule = Schedule(Trace.of(np.array([5.0, 5.5, 6.5])), 10.0, seed=0, start_s=0.0)
    assert due(schedule, 3) == pytest.approx([0.0, 0.5, 1.5])


# -- frames ---------------------------------------------------------------------------------------------------

FRAMES = st.lists(st.tuples(st.sampled_from(list(Kind)), st.binary(max_size=300)), max_size=8)


@given(FRAMES, st.lists(st.integers(1, 200), max_size=40))
def test_frames_come_out_however_they_are_cut(frames: list[tuple[Kind, bytes]], sizes: list[int]) -> None:
    data = b"".join(packed(kind, payload) for kind, payload in frames)
    reader, found = FrameReader(), []
    for size in (*sizes, len(data)):
        reader.feed(data[:size])
        data = data[size:]
        found += list(reader.frames())
    reader.feed(data)
    assert found + list(reader.frames()) == frames


# -- samples --------------------------------------------------------------------------------------------------


def test_samples_arrive_as_they_were_recorded() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        recorder = Recorder(Channel(theirs), start_s=10.0)
        recorder.add(10.5, 10.75, 11.5, Outcome.OK, Answer(True, 200, 0.25, 0.5, 3))
        recorder.add_failure(11.0, 11.5, 12.0, Outcome.TIMEOUT)
        recorder.add(12.0, 12.0, 13.0, Outcome.STATUS, Answer(False, 503, 1e300, 1.0, 2**40))
        recorder.flush()
        rows = np.frombuffer(_payloads(ours)[0], SAMPLE)
    assert rows["due_s"].tolist() == [0.5, 1.0, 2.0]
    assert rows["late_s"].tolist() == [0.25, 0.5, 0.0]
    assert rows["latency_s"].tolist() == [1.0, 1.0, 1.0]
    assert rows["outcome"].tolist() == [Outcome.OK, Outcome.TIMEOUT, Outcome.STATUS]
    assert rows["status"].tolist() == [200, 0, 503]
    assert rows["batch_rows"].tolist() == [3, 0, 0]
    assert np.isnan(rows["queue_s"]).tolist() == [False, True, True]


@pytest.mark.slow
def test_a_parent_that_does_not_read_costs_samples_and_they_are_counted() -> None:
    ours, theirs = socket.socketpair()
    loop = Loop()
    with ours, theirs:
        channel = Channel(theirs)
        channel.attach(loop, lambda: None)
        recorder, sent = Recorder(channel, start_s=0.0), 2_000_000
        for number in range(sent):
            recorder.add(float(number), 0.0, 0.0, Outcome.OK, Answer(True, 200))
        recorder.flush()
        assert 0 < channel.dropped < sent
        channel.send(Kind.ENDED, b"the end")
        ours.setblocking(False)
        reader, rows, ended = FrameReader(), 0, False
        while not ended:
            loop.turn(Waking(), latest=0.0)
            reader.feed(_read(ours))
            for kind, payload in reader.frames():
                rows += len(payload) // SAMPLE.itemsize if kind is Kind.SAMPLES else 0
                ended = kind is Kind.ENDED
    loop.close()
    assert rows == sent - channel.dropped


def test_a_parent_that_is_gone_is_noticed() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        channel, loop = Channel(theirs), Loop()
        channel.attach(loop, lambda: list(channel.received()).clear())
        ours.close()
        with pytest.raises(ParentGone):
            loop.turn(Waking(), latest=time.monotonic() + 10.0)
        loop.close()


def _read(connection: socket.socket) -> bytes:
    try:
        return connection.recv(1 << 20)
    except BlockingIOError:
        return b""


def _payloads(connection: socket.socket) -> list[bytes]:
    reader = FrameReader()
    reader.feed(connection.recv(1 << 20))
    return [payload for _, payload in reader.frames()]


# -- the loop -------------------------------------------------------------------------------------------------


def test_who_wants_to_be_woken_is_woken_also_while_there_is_much_to_handle() -> None:
    class Sleeper(Waking):
        wake_s = 0.0
        woken = 0

        def wake(self) -> None:
            self.woken += 1
            self.wake_s = np.inf if self.woken == 3 else 0.0

    ours, theirs = socket.socketpair()
    loop, sleeper, seen = Loop(), Sleeper(), []
    with ours, theirs:
        ours.send(b"much")
        loop.watch(theirs.fileno(), lambda: seen.append(theirs.fileno()), READ)
        for _ in islice(iter(int, 1), 3):
            loop.turn(sleeper, latest=0.0)
        loop.forget(theirs.fileno())
        assert sleeper.woken == 3
        assert 1 <= len(seen) <= 3
        before = len(seen)
        loop.turn(sleeper, latest=0.0)
        assert len(seen) == before
    loop.close()
