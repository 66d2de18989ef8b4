"""The lines between supervisor and replicas: what when an end does not read, or says nonsense?"""

import socket

import pytest

from paceline.supervisor.lines import Lines


@pytest.fixture
def ends():
    one, other = (Lines(sock, most_bytes=8 << 20) for sock in socket.socketpair())
    yield one, other
    one.close()
    other.close()


def test_two_that_send_much_to_each_other_do_not_wait_for_each_other(ends):
    document = {"much": "x" * (2 << 20)}
    assert all(end.send(document) for end in ends)
    got = [[], []]
    while not all(got):
        for end, documents in zip(ends, got, strict=True):
            end.flush()
            documents += end.receive()
    assert got == [[document], [document]]


def test_what_is_sent_last_can_be_waited_for():
    one, other = socket.socketpair()
    lines = Lines(one)
    other.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 12)
    lines.send({"much": "x" * (1 << 20)})
    lines.finish(0.05)  # nobody reads
    assert not lines.has_unsent
    lines.close()
    other.close()


def test_who_does_not_read_is_given_up(ends):
    one, other = ends
    while one.send({"much": "x" * (1 << 20)}):
        pass
    assert not one.send({})
    while (documents := other.receive()) is not None:
        assert documents == [] or "much" in documents[0]


@pytest.mark.parametrize("said", [b"hello\n", b"[]\n", b"\xff\n", b"1\n", b"[" * 100_000 + b"\n"])
def test_nonsense_is_the_end(said):
    one, other = socket.socketpair()
    lines = Lines(one)
    other.sendall(b'{"a": 1}\n{"b"')
    assert lines.receive() == [{"a": 1}]
    other.sendall(b": 2}\n")
    assert lines.receive() == [{"b": 2}]
    other.sendall(said)
    assert lines.receive() is None
    lines.close()
    other.close()
