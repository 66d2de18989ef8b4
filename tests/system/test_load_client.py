"""Does the client of load tests tell the truth, whatever the server does?"""

from __future__ import annotations

import os
import resource
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack

import numpy as np
import pytest

from paceline.loadtest.arrivals import Poisson
from paceline.loadtest.generator import Generator
from paceline.loadtest.samples import Outcome, Samples
from paceline.loadtest.steps import Change, Step
from support.load_client import held, hold, open_loop, target, users
from support.odd_server import OddServer, Peer, ok

pytestmark = pytest.mark.slow


def answering(peer: Peer) -> None:
    """A server as one should be."""
    for _ in peer.requests():
        peer.send(ok())


def answering_after(seconds: float) -> Callable[[Peer], None]:
    def behave(peer: Peer) -> None:
        for _ in peer.requests():
            time.sleep(seconds)
            peer.send(ok())

    return behave


# -- closed loop ----------------------------------------------------------------------------------------------


def test_each_user_has_one_connection_and_one_request_under_way() -> None:
    under_way, most, lock = Counter[int](), Counter[int](), threading.Lock()

    def behave(peer: Peer) -> None:
        for _ in peer.requests():
            with lock:
                under_way["now"] += 1
                most["ever"] = max(most["ever"], under_way["now"])
            time.sleep(0.01)
            with lock:
                under_way["now"] -= 1
            peer.send(ok())

    with OddServer(behave) as server:
        found = held(target(server), users(5, duration_s=1.0))
        assert server.connections == 1 + 5  # one to see whether it is there
    assert found.outcomes.keys() == {Outcome.OK}
    assert most["ever"] == 5
    assert (found.samples["status"] == 200).all()
    assert found.samples["latency_s"].min() >= 0.0099
    assert found.samples["due_s"].max() < 1.0
    assert found.ended.wall_s == pytest.approx(1.0)
    assert 0.0 < found.ended.cpu < 1.0


def test_users_think_between_their_requests() -> None:
    with OddServer(answering) as server:
        found = held(target(server), users(1, think_s=(0.1, 0.2), duration_s=2.0))
    due = np.sort(found.samples["due_s"])
    assert np.diff(due).min() >= 0.1
    assert 3 <= due.size <= 20


def test_users_who_think_start_one_by_one_and_others_together() -> None:
    with OddServer(answering_after(1.0)) as server, Generator(target(server)) as generator:
        thinking = hold(generator, users(20, think_s=(1.0, 1.0), duration_s=0.9))
        together = hold(generator, users(20, duration_s=0.5))
    assert np.ptp(thinking.samples["due_s"]) > 0.2
    assert together.samples.size == 20
    assert np.ptp(together.samples["due_s"]) == 0.0


def test_users_who_think_offer_their_mean_rate_from_the_start() -> None:
    """Each is in the middle of thinking; were they all at its beginning, the first second would be nearly idle."""
    with OddServer(answering) as server:
        due = held(target(server), users(400, think_s=(0.5, 1.5), duration_s=2.0)).samples["due_s"]
    for begin_s in (0.0, 0.25, 0.5, 1.0):
        here = np.count_nonzero((due >= begin_s) & (due < begin_s + 0.25))
        assert here == pytest.approx(100, abs=45), f"from {begin_s} s on"


def test_what_the_client_adds_to_the_thinking_counts() -> None:
    """A client that is stopped for a while is late for users as well, and says so."""
    with OddServer(answering) as server, Generator(target(server)) as generator:
        stopped = []

        def watch(samples: Samples) -> None:
            if samples.size >= 20 and not stopped:
                stopped.append(samples.size)
                os.kill(generator.pid, signal.SIGSTOP)
                time.sleep(0.5)
                os.kill(generator.pid, signal.SIGCONT)

        found = hold(generator, users(20, think_s=(0.1, 0.3), duration_s=2.0), watch)
    assert found.samples["late_s"].max() > 0.3
    assert found.samples["latency_s"].max() > 0.3
    assert found.ended.late_p99_s > 0.1


def test_bodies_are_sent_in_turn() -> None:
    seen: list[bytes] = []

    def behave(peer: Peer) -> None:
        for body in peer.requests():
            seen.append(body)
            peer.send(ok())

    with OddServer(behave) as server:
        held(target(server, b"a", b"bb", b"ccc"), users(1))
    assert seen[:7] == [b"a", b"bb", b"ccc", b"a", b"bb", b"ccc", b"a"]


def test_users_come_and_go_while_it_runs() -> None:
    with OddServer(answering_after(0.02)) as server, Generator(target(server)) as generator:
        changes = iter([(30, 6), (200, 2), (300, 0)])
        change = next(changes, None)

        def watch(samples: Samples) -> None:
            nonlocal change
            if change is not None and samples.size >= change[0]:
                generator.change(Change(users=change[1]))
                change = next(changes, None)
                if change is None:
                    generator.stop()

        found = hold(generator, users(2, duration_s=30.0), watch)
        assert server.connections == 1 + 6
    assert found.outcomes.keys() == {Outcome.OK}
    ends = found.samples["due_s"] + found.samples["latency_s"] - 1e-4  # kept in single precision
    most = max(int(((found.samples["due_s"] <= at) & (ends > at)).sum()) for at in found.samples["due_s"])
    assert most == 6


# -- open loop ------------------------------------------------------------------------------------------------


def test_requests_are_due_when_the_arrivals_say() -> None:
    with OddServer(answering) as server:
        found = held(target(server), open_loop(200, duration_s=1.0, warmup_s=0.5))
    assert found.outcomes == {Outcome.OK: 300}
    assert np.allclose(np.sort(found.samples["due_s"]), np.arange(300) / 200)
    assert found.ended.wall_s == pytest.approx(1.0)


def test_the_same_seed_gives_the_same_arrivals() -> None:
    with OddServer(answering) as server, Generator(target(server)) as generator:
        dues = [
            np.sort(hold(generator, open_loop(300, Poisson, seed=seed, duration_s=0.4)).samples["due_s"])
            for seed in (1, 1, 2)
        ]
    assert np.allclose(dues[0], dues[1])
    assert dues[0].size != dues[2].size or not np.allclose(dues[0], dues[2])


def test_a_stall_of_the_server_is_seen_by_all_that_were_due_in_it() -> None:
    """No coordinated omission."""
    begin = threading.Event()
    stalled: list[float] = []

    def behave(peer: Peer) -> None:
        for _ in peer.requests():
            if begin.is_set() and not stalled:
                stalled.append(time.monotonic())
            if stalled and (left_s := stalled[0] + 1.0 - time.monotonic()) > 0:
                time.sleep(left_s)
            peer.send(ok())

    with OddServer(behave) as server, Generator(target(server)) as generator:
        found = hold(
            generator,
            open_loop(100, duration_s=5.0, connections=4),
            lambda samples: begin.set() if samples.size >= 50 else None,
        )
    assert found.outcomes == {Outcome.OK: 500}
    order = np.argsort(found.samples["due_s"])
    due, latency = found.samples["due_s"][order], found.samples["latency_s"][order]
    first = due[np.argmax(latency)]
    during = (due >= first) & (due < first + 0.9)
    assert during.sum() == pytest.approx(90, abs=2)
    assert latency.max() >= 0.98
    # Each waits for what is left of the stall, those for which no connection was free as well.
    assert (latency[during] >= 1.0 - (due[during] - first) - 0.05).all()
    assert np.median(latency[due < first - 0.1]) < 0.1
    assert (found.samples["late_s"] <= found.samples["latency_s"]).all()


def test_connections_grow_as_they_are_needed_and_no_further() -> None:
    with OddServer(answering_after(0.1)) as server, Generator(target(server)) as generator:
        hold(generator, open_loop(100, duration_s=1.0))
        enough = server.connections - 1
        found = hold(generator, open_loop(100, duration_s=1.0, connections=3))
        assert server.connections - 1 - enough == 3
    assert enough >= 10
    assert found.outcomes == {Outcome.OK: 100}
    assert found.samples["late_s"].max() > 1.0  # three connections answer 30 a second


def test_what_finds_the_backlog_full_is_not_sent() -> None:
    with OddServer(answering_after(0.2)) as server:
        found = held(target(server), open_loop(100, duration_s=1.0, connections=1, backlog=3))
    assert found.samples.size == 100
    assert found.outcomes.keys() == {Outcome.OK, Outcome.UNSENT}
    assert found.outcomes[Outcome.OK] <= 12
    assert (found.of(Outcome.UNSENT)["status"] == 0).all()


def test_what_waits_in_the_client_for_too_long_has_timed_out() -> None:
    with OddServer(answering_after(0.4)) as server:
        found = held(target(server), open_loop(20, duration_s=1.0, connections=1, timeout_s=0.5))
    assert found.samples.size == 20
    assert found.outcomes.keys() == {Outcome.OK, Outcome.TIMEOUT}
    assert found.of(Outcome.TIMEOUT)["latency_s"].min() >= 0.5


def test_the_rate_changes_while_it_runs() -> None:
    with OddServer(answering) as server, Generator(target(server)) as generator:
        changed: list[int] = []

        def watch(samples: Samples) -> None:
            if samples.size >= 50 and not changed:
                changed.append(samples.size)
                generator.change(Change(factor=4.0))

        found = hold(generator, open_loop(100, duration_s=3.0), watch)
    due = np.sort(found.samples["due_s"])
    gaps = np.diff(due)
    assert found.outcomes.keys() == {Outcome.OK}
    assert gaps[:49] == pytest.approx(0.01)
    # The process goes on beyond what it would have been in this time.
    assert gaps[-200:] == pytest.approx(0.0025)
    assert due.size > 400


def test_a_rate_of_nothing_is_a_pause() -> None:
    with OddServer(answering) as server, Generator(target(server)) as generator:
        before: list[int] = []

        def watch(samples: Samples) -> None:
            if samples.size >= 20 and not before:
                generator.change(Change(factor=0.0))
                before.append(samples.size)
                threading.Timer(0.5, generator.change, [Change(factor=1.0)]).start()

        found = hold(generator, open_loop(100, duration_s=4.0), watch)
    gaps = np.diff(np.sort(found.samples["due_s"]))
    assert gaps.max() > 0.2
    assert np.sort(gaps)[-2] == pytest.approx(0.01)


def test_a_connection_that_takes_long_to_open_is_not_the_clients_lateness() -> None:
    """The queue of connections is full: the kernel tries again after a second."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listening, ExitStack() as stack:

        class Full:
            host, port = listening.getsockname()

        generator = stack.enter_context(Generator(target(Full)))
        # The client's look whether it is there is in the queue as well.
        found = hold(generator, open_loop(20, duration_s=0.5, timeout_s=0.8))
    assert found.outcomes.keys() <= {Outcome.TIMEOUT, Outcome.NOT_CONNECTED}
    assert found.samples["late_s"].max() > 0.5
    assert found.ended.late_p99_s < 0.25


# -- servers that misbehave -----------------------------------------------------------------------------------


def once(fault: Callable[[Peer], object]) -> Callable[[Peer], None]:
    """Does that for the first request of all, and answers the others well."""
    left = [fault]

    def behave(peer: Peer) -> None:
        for _ in peer.requests():
            if left:
                left.pop()(peer)
                return
            peer.send(ok())

    return behave


FAULTS: dict[str, tuple[Callable[[Peer], object], Outcome]] = {
    "closes without an answer": (lambda peer: None, Outcome.CLOSED),
    "closes in the middle of a head": (lambda peer: peer.send(b"HTTP/1.1 200 O"), Outcome.CLOSED),
    "closes in the middle of a body": (lambda peer: peer.send(ok(b"0123456789")[:-3]), Outcome.CLOSED),
    "resets": (Peer.reset, Outcome.RESET),
    "speaks another protocol": (lambda peer: peer.send(b"220 mail.example ESMTP\r\n"), Outcome.MALFORMED),
    "never answers": (lambda peer: peer.request(), Outcome.TIMEOUT),
    "stops in the middle": (lambda peer: (peer.send(ok()[:-1]), peer.request()), Outcome.TIMEOUT),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_one_error_and_the_load_goes_on(name: str) -> None:
    fault, outcome = FAULTS[name]
    timeout_s = 1.0 if outcome is Outcome.TIMEOUT else 10.0
    for step in (users(2, timeout_s=timeout_s), open_loop(50, timeout_s=timeout_s)):
        with OddServer(once(fault)) as server:
            found = held(target(server), step)
        assert found.outcomes.keys() == {Outcome.OK, outcome}
        assert found.outcomes[outcome] == 1
        failed = found.of(outcome)
        assert failed["status"][0] == 0
        assert failed["latency_s"][0] >= (timeout_s if outcome is Outcome.TIMEOUT else 0.0)
        assert found.samples.size > 2


@pytest.mark.parametrize("step", [users(3), open_loop(100)], ids=["closed", "open"])
def test_a_server_that_closes_after_each_answer_costs_connections_and_no_errors(step: Step) -> None:
    def silently(peer: Peer) -> None:
        if peer.request() is not None:
            peer.send(ok())

    def saying_so(peer: Peer) -> None:
        if peer.request() is not None:
            peer.send(ok(b"ok", b"Connection: close"))

    with OddServer(saying_so) as server:
        found = held(target(server), step)
        assert found.outcomes.keys() == {Outcome.OK}
        assert server.connections >= found.samples.size
    with OddServer(silently) as server:
        found = held(target(server), users(3, think_s=(0.3, 0.5), duration_s=1.5))
        assert found.outcomes.keys() == {Outcome.OK}  # it was idle when the server closed it


def test_answers_may_drip_and_be_announced() -> None:
    def behave(peer: Peer) -> None:
        for _ in peer.requests():
            peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            for byte in ok(b"0123456789"):
                peer.send(bytes([byte]))

    with OddServer(behave) as server:
        found = held(target(server), users(2))
    assert found.outcomes.keys() == {Outcome.OK}
    assert found.samples.size > 2


def test_an_answer_may_come_before_the_request_has_been_sent() -> None:
    def behave(peer: Peer) -> None:
        peer.socket.recv(1024)
        peer.send(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        peer.request()

    with OddServer(behave) as server:
        found = held(target(server, bytes(20 << 20)), users(1, duration_s=0.3))
    assert found.outcomes.keys() == {Outcome.STATUS}
    assert set(found.samples["status"].tolist()) == {413}


def test_bodies_may_be_large_both_ways() -> None:
    large = bytes(10 << 20)

    def behave(peer: Peer) -> None:
        for body in peer.requests():
            peer.send(ok(body))

    with OddServer(behave) as server:
        found = held(target(server, large), users(2, duration_s=0.5))
    assert found.outcomes.keys() == {Outcome.OK}


def test_a_client_without_descriptors_goes_on_with_those_it_has() -> None:
    with OddServer(answering) as server, Generator(target(server)) as generator:
        resource.prlimit(generator.pid, resource.RLIMIT_NOFILE, (12, 12))
        for step in (users(20), open_loop(200, duration_s=0.5, timeout_s=5.0)):
            found = hold(generator, step)
            assert found.outcomes[Outcome.OK] > 0
            assert found.outcomes.keys() <= {Outcome.OK, Outcome.NO_SOCKET}
            assert found.ended.waited >= 0.0
        assert 2 <= server.connections - 1 < 30


def test_a_refusal_is_an_error_with_its_status() -> None:
    def behave(peer: Peer) -> None:
        for _ in peer.requests():
            peer.send(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")

    with OddServer(behave) as server:
        found = held(target(server), open_loop(50))
    assert found.outcomes == {Outcome.STATUS: 25}
    assert set(found.samples["status"].tolist()) == {503}


@pytest.mark.parametrize("step", [users(3, duration_s=3.0), open_loop(100, duration_s=3.0)], ids=["closed", "open"])
def test_a_server_that_goes_away_and_returns_is_found_again(step: Step) -> None:
    with ExitStack() as stack:
        servers = [stack.enter_context(OddServer(answering))]

        def watch(samples: Samples) -> None:
            refused = (samples["outcome"] == Outcome.NOT_CONNECTED).any()
            if not refused and samples.size >= 20:
                servers[0].stop()
            elif refused and len(servers) == 1:
                servers.append(stack.enter_context(OddServer(answering, port=servers[0].port)))

        generator = stack.enter_context(Generator(target(servers[0])))
        found = hold(generator, step, watch)
    samples = found.samples[np.argsort(found.samples["due_s"])]
    refused = np.flatnonzero(samples["outcome"] == Outcome.NOT_CONNECTED)
    assert refused.size
    assert (samples["outcome"][refused[-1] + 1 :] == Outcome.OK).sum() > 20
