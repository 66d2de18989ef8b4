"""The parts of the supervisor that need no process: lines, backoff, merged metrics, sockets of a port."""

from __future__ import annotations

import socket
from contextlib import contextmanager

import pytest

from paceline.core.backoff import Backoff
from paceline.core.errors import AddressUnavailable
from paceline.supervisor.addresses import bound_sockets
from paceline.supervisor.lines import Lines
from paceline.supervisor.merging import merged, of_replica, of_the_past


def family(name, merge, *samples, kind="counter"):
    return {"name": name, "kind": kind, "help": "", "merge": merge, "samples": [list(sample) for sample in samples]}


def test_equal_samples_are_added_and_others_stand_beside_them():
    one = family("requests", "sum", ("", 'model="a"', 3), ("", 'model="b"', 1))
    other = family("requests", "sum", ("", 'model="a"', 4), ("", 'model="c"', 9))
    (found,) = merged([[one], [other]])
    assert found["samples"] == [["", 'model="a"', 7], ["", 'model="b"', 1], ["", 'model="c"', 9]]


def test_the_buckets_of_histograms_are_added_one_by_one():
    histogram = family("seconds", "sum", ("_bucket", 'le="1"', 2), ("_sum", "", 0.5), ("_count", "", 2))
    (found,) = merged([[histogram], [histogram]])
    assert found["samples"] == [["_bucket", 'le="1"', 4], ["_sum", "", 1.0], ["_count", "", 4]]


def test_a_server_is_as_ready_as_the_least_ready_of_its_replicas():
    (found,) = merged([[family("ready", "min", ("", "", ready))] for ready in (1, 0, 1)])
    assert found["samples"] == [["", "", 0]]


def test_what_belongs_to_a_process_is_kept_apart():
    memory = family("memory", "replica", ("", "", 5), kind="gauge")
    (found,) = merged([of_replica([memory], 0), of_replica([memory], 1)])
    assert found["samples"] == [["", 'replica="0"', 5], ["", 'replica="1"', 5]]


def test_of_an_ended_process_what_it_counted_remains_and_not_what_it_was():
    found = of_the_past([family("requests", "sum"), family("connections", "sum", kind="gauge"), family("ready", "min")])
    assert [each["name"] for each in found] == ["requests"]


def test_a_process_that_keeps_dying_is_started_ever_later_and_forgiven_after_a_minute():
    backoff = Backoff()
    assert [backoff.next_s(1.0) for _ in range(9)] == [0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
    assert [backoff.next_s(61.0), backoff.next_s(1.0)] == [0.0, 0.5]


@contextmanager
def two_ends():
    ours, theirs = socket.socketpair()
    lines = Lines(ours)
    with theirs:
        yield lines, theirs
    lines.close()


def test_a_line_that_comes_in_pieces_is_one_document():
    with two_ends() as (lines, theirs):
        theirs.sendall(b'{"a": 1}\n{"b"')
        assert lines.receive() == [{"a": 1}]
        assert lines.receive() == []
        theirs.sendall(b": 2}\n")
        assert lines.receive() == [{"b": 2}]


@pytest.mark.parametrize("line", [b"hello\n", b"[]\n", b"\xff\n", b"\n"])
def test_who_sends_no_documents_is_heard_no_further(line):
    with two_ends() as (lines, theirs):
        theirs.sendall(line)
        assert lines.receive() is None


@contextmanager
def bound(port=0, slots=2):
    by_slot = bound_sockets("127.0.0.1", port, slots)
    try:
        yield by_slot
    finally:
        for sockets in by_slot:
            for sock in sockets:
                sock.close()


def test_the_slots_share_a_port_and_nobody_else_does_even_before_they_accept():
    with bound() as by_slot:
        ports = {sock.getsockname()[1] for sockets in by_slot for sock in sockets}
        (port,) = ports
        assert len(by_slot) == 2
        with pytest.raises(AddressUnavailable, match="already in use"):
            bound_sockets("127.0.0.1", port, 2)


def test_connections_come_to_every_slot_that_is_listened_on():
    with bound() as by_slot:
        for (sock,) in by_slot:
            sock.listen()
            sock.setblocking(False)
        address = by_slot[0][0].getsockname()
        clients = [socket.create_connection(address) for _ in range(40)]
        counts = [sum(1 for _ in _accepted(sock)) for (sock,) in by_slot]
        for client in clients:
            client.close()
    assert sum(counts) == 40
    assert min(counts) > 0


def _accepted(sock):
    while True:
        try:
            client, _ = sock.accept()
        except BlockingIOError:
            return
        client.close()
        yield client
