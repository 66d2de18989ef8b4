"""Two ends of a line between processes: nothing is lost, nothing waits for ever, and a bad end is only an end."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Iterator

import pytest

from paceline.workers.channel import HUNG_UP, Channel, Closed
from paceline.workers.frames import HEAD, MAGIC, BadFrame, Frame, Kind

BIG = bytes(range(256)) * 4096 * 8


@pytest.fixture(params=["socket", "pipes"])
def ends(request: pytest.FixtureRequest) -> Iterator[tuple[Channel, Channel]]:
    if request.param == "socket":
        one, other = (each.detach() for each in socket.socketpair())
        pair = Channel(one, one), Channel(other, other)
    else:
        (there, from_here), (here, from_there) = os.pipe(), os.pipe()
        pair = Channel(here, from_here), Channel(there, from_there)
    yield pair
    for channel in pair:
        channel.close()


class Listener:
    """What an attached channel tells."""

    def __init__(self) -> None:
        self.frames: list[tuple[Kind, int, bytes]] = []
        self.reasons: list[str] = []
        self.told = asyncio.Event()
        self.ended = asyncio.Event()
        self.bad = False

    def came(self, frame: Frame) -> None:
        if self.bad:
            raise BadFrame("nonsense")
        self.frames.append((frame.kind, frame.call, bytes(frame.body)))
        self.told.set()

    def closed(self, why: str) -> None:
        self.reasons.append(why)
        self.ended.set()


def attached(channel: Channel) -> Listener:
    listener = Listener()
    channel.attach(asyncio.get_running_loop(), listener.came, listener.closed)
    return listener


def test_frames_arrive_in_order_and_whole(ends):
    server, worker = ends
    sending = threading.Thread(target=lambda: [server.send(Kind.RUN, n, [BIG, b"", b"end"]) for n in range(3)])
    sending.start()
    for number in range(3):
        frame = worker.receive(10)
        assert (frame.kind, frame.call, bytes(frame.body)) == (Kind.RUN, number, BIG + b"end")
    sending.join()


def test_a_wait_has_an_end(ends):
    server, worker = ends
    with pytest.raises(TimeoutError):
        server.receive(0.01)
    worker.close()
    with pytest.raises(Closed):
        server.receive(10)
    with pytest.raises(Closed):
        [server.send(Kind.RUN, 0, [BIG]) for _ in range(2)]


def test_a_worker_that_does_not_read_holds_up_nobody(ends):
    async def scenario() -> None:
        server, worker = ends
        attached(server)
        for number in range(4):
            server.send(Kind.RUN, number, [memoryview(BIG)])
        received = await asyncio.to_thread(lambda: [worker.receive(10) for _ in range(4)])
        assert [frame.call for frame in received] == [0, 1, 2, 3]
        assert all(bytes(frame.body) == BIG for frame in received)

    asyncio.run(scenario())


def test_what_was_sent_may_be_changed_afterwards(ends):
    async def scenario() -> None:
        server, worker = ends
        attached(server)
        memory = bytearray(BIG)
        server.send(Kind.RUN, 0, [memory])
        memory[:] = bytes(len(memory))
        frame = await asyncio.to_thread(worker.receive, 10)
        assert bytes(frame.body) == BIG

    asyncio.run(scenario())


def test_what_came_before_the_attachment_is_told_too(ends):
    async def scenario() -> None:
        server, worker = ends
        worker.send(Kind.HELLO, 0, [b"1"])
        worker.send(Kind.RESULT, 1, [b"2"])
        assert server.receive(10).kind is Kind.HELLO
        listener = attached(server)
        await asyncio.wait_for(listener.told.wait(), 10)
        assert listener.frames == [(Kind.RESULT, 1, b"2")]

    asyncio.run(scenario())


def test_the_end_is_told_once_and_after_all_that_was_said(ends):
    async def scenario() -> None:
        server, worker = ends
        listener = attached(server)
        for number in range(100):
            worker.send(Kind.RESULT, number, [b"x" * 100])
        worker.close()
        await asyncio.wait_for(listener.ended.wait(), 10)
        assert [call for _, call, _ in listener.frames] == list(range(100))
        assert listener.reasons == [HUNG_UP]
        server.send(Kind.RUN, 0, [b"nobody"])
        await asyncio.sleep(0)
        assert listener.reasons == [HUNG_UP]

    asyncio.run(scenario())


def test_what_is_already_there_is_taken_in_when_its_sender_has_died(ends):
    async def scenario() -> None:
        server, worker = ends
        listener = attached(server)
        worker.send(Kind.RESULT, 7, [b"done"])
        server.read_rest()
        assert listener.frames == [(Kind.RESULT, 7, b"done")]
        assert listener.reasons == []

    asyncio.run(scenario())


@pytest.mark.parametrize("garbage", [b"x" * 100, HEAD.pack(MAGIC, Kind.RESULT, 0, -5), HEAD.pack(MAGIC, 77, 0, 0)])
def test_garbage_ends_the_channel_and_raises_nowhere(ends, garbage):
    async def scenario() -> None:
        server, worker = ends
        listener = attached(server)
        os.write(worker._writes, garbage)
        await asyncio.wait_for(listener.ended.wait(), 10)
        assert listener.reasons[0].startswith("it broke the protocol: ")
        assert server.closed

    asyncio.run(scenario())


def test_a_frame_that_its_reader_does_not_understand_ends_the_channel(ends):
    async def scenario() -> None:
        server, worker = ends
        listener = attached(server)
        listener.bad = True
        worker.send(Kind.RESULT, 0, [b"?"])
        await asyncio.wait_for(listener.ended.wait(), 10)
        assert listener.reasons == ["it broke the protocol: nonsense"]

    asyncio.run(scenario())
