"""What does the client of load tests make of bytes that a server sends over HTTP/1.1?"""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.loadtest.client.codec import Answer, Malformed
from paceline.loadtest.client.http1 import Http1
from paceline.loadtest.target import Target

TARGET = Target(host="localhost", port=8080, protocol="raw", path="/predict", bodies=(b"[1]", b"[2, 3]"))
BIG = b"x" * 70_000


def asked() -> Http1:
    codec = Http1(TARGET)
    codec.request(0)
    return codec


def answer_to(*pieces: bytes) -> Answer | None:
    """What comes of one request, answered in these pieces."""
    codec = asked()
    for number, piece in enumerate(pieces):
        answer = codec.receive(piece)
        if answer is not None:
            assert number == len(pieces) - 1, "complete before the last piece"
            return answer
    return None


def sized(body: bytes, *lines: bytes, status: bytes = b"200 OK") -> bytes:
    head = b"".join(line + b"\r\n" for line in (b"HTTP/1.1 " + status, *lines, b"Content-Length: %d" % len(body)))
    return head + b"\r\n" + body


def chunked(*chunks: bytes, trailer: bytes = b"") -> bytes:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x;a=b\r\n%s\r\n" % (len(each), each) for each in chunks) + b"0\r\n" + trailer + b"\r\n"


ANSWERS = {
    "plain": sized(b"ok"),
    "empty": sized(b""),
    "error": sized(b'{"error": "no"}', status=b"503 Service Unavailable"),
    "without a reason": sized(b"ok", status=b"200"),
    "closing": sized(b"ok", b"Connection: close"),
    "timed": sized(b"ok", b"server-timing: queue;dur=1.500, infer;dur=20.250", b"x-batch-size: 7"),
    "timed by a proxy": sized(b"ok", b"Server-Timing: cache;desc=x", b"Server-Timing: infer;dur=2, total;dur=3"),
    "length twice": sized(b"ok", b"content-length: 2"),
    "chunked": chunked(b"one", b"two and three", b"\r\n"),
    "chunked with a trailer": chunked(b"one", trailer=b"X-Sum: 1\r\nX-Other: 2\r\n"),
    "no content": b"HTTP/1.1 204 No Content\r\nServer: a\r\n\r\n",
    "not modified": b"HTTP/1.1 304 Not Modified\r\nContent-Length: 10\r\n\r\n",
    "after an interim one": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n" + sized(b"ok"),
    "old": b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "old, kept": b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 2\r\n\r\nok",
    "big": sized(BIG),
    "big, chunked": chunked(BIG, BIG),
}
TIMED = Answer(True, 200, 0.0015, 0.02025, 7)


def same(one: Answer | None, other: Answer | None) -> bool:
    return repr(one) == repr(other)  # nan is not equal to nan


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("plain", Answer(True, 200)),
        ("error", Answer(False, 503)),
        ("without a reason", Answer(True, 200)),
        ("closing", Answer(True, 200, closes=True)),
        ("timed", TIMED),
        ("timed by a proxy", Answer(True, 200, infer_s=0.002)),
        ("length twice", Answer(True, 200)),
        ("chunked", Answer(True, 200)),
        ("chunked with a trailer", Answer(True, 200)),
        ("no content", Answer(True, 204)),
        ("not modified", Answer(False, 304)),
        ("after an interim one", Answer(True, 200)),
        ("old", Answer(True, 200, closes=True)),
        ("old, kept", Answer(True, 200)),
    ],
)
def test_an_answer_is_understood(name: str, expected: Answer) -> None:
    assert same(answer_to(ANSWERS[name]), expected)


@pytest.mark.parametrize("name", [name for name in ANSWERS if "big" not in name])
def test_cut_at_any_byte_it_is_the_same(name: str) -> None:
    data = ANSWERS[name]
    whole = answer_to(data)
    assert whole is not None
    for cut in range(1, len(data)):
        assert same(answer_to(data[:cut], data[cut:]), whole), cut
    assert same(answer_to(*(data[place : place + 1] for place in range(len(data)))), whole)


@given(st.sampled_from(sorted(ANSWERS)), st.lists(st.integers(1, 150_000), max_size=8))
def test_cut_anyhow_it_is_the_same(name: str, cuts: list[int]) -> None:
    data = ANSWERS[name]
    places = [0, *sorted({cut for cut in cuts if cut < len(data)}), len(data)]
    pieces = [data[begin:end] for begin, end in pairwise(places)]
    assert same(answer_to(*pieces), answer_to(data))


@given(st.lists(st.sampled_from([data for name, data in ANSWERS.items() if "old" != name != "closing"]), max_size=5))
def test_answers_follow_one_another_on_a_connection(answers: list[bytes]) -> None:
    codec = Http1(TARGET)
    for data in answers:
        codec.request(1)
        assert same(codec.receive(data), answer_to(data))


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x00\x00\x00",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        sized(b"ok", b"content-length: 3"),
        b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 30 + b"\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nlong\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1" * 5000,
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000,
    ],
)
def test_what_is_no_answer_is_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        answer_to(data)
    with pytest.raises(Malformed):
        answer_to(*(data[place : place + 1] for place in range(len(data))))


@given(st.lists(st.binary(max_size=200), max_size=10), st.sampled_from(sorted(ANSWERS)))
def test_any_bytes_end_in_an_answer_in_waiting_or_malformed(pieces: list[bytes], name: str) -> None:
    codec = asked()
    try:
        for piece in (ANSWERS[name][:60], *pieces):
            if codec.receive(piece) is not None:
                codec.request(0)
    except Malformed as error:
        assert str(error)


def test_bytes_that_nobody_asked_for_are_malformed() -> None:
    with pytest.raises(Malformed):
        Http1(TARGET).receive(ANSWERS["plain"])
    codec = asked()
    assert codec.receive(ANSWERS["plain"])
    with pytest.raises(Malformed):
        codec.receive(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")


def test_an_answer_with_more_behind_it_is_the_last_on_its_connection() -> None:
    assert same(answer_to(ANSWERS["plain"] + b"x"), Answer(True, 200, closes=True))
    assert same(answer_to(ANSWERS["chunked"] + b"x"), Answer(True, 200, closes=True))


@pytest.mark.parametrize("coding", [b"", b"Transfer-Encoding: gzip\r\n"])
def test_a_body_without_a_length_ends_with_the_connection(coding: bytes) -> None:
    codec = asked()
    assert codec.receive(b"HTTP/1.1 200 OK\r\n" + coding + b"\r\nsome") is None
    assert codec.receive(b" more") is None
    assert same(codec.end(), Answer(True, 200, closes=True))
    assert codec.end() is None


@pytest.mark.parametrize("data", [b"", b"HTTP/1.1 2", sized(b"ok")[:-1], chunked(b"one")[:-1]])
def test_a_connection_that_closes_before_the_end_brings_no_answer(data: bytes) -> None:
    codec = asked()
    if data:
        assert codec.receive(data) is None
    assert codec.end() is None


def test_what_a_server_says_of_its_time_may_be_odd() -> None:
    answer = answer_to(sized(b"ok", b"server-timing: queue;dur=soon, infer", b"x-batch-size: many"))
    assert answer is not None
    assert math.isnan(answer.queue_s)
    assert math.isnan(answer.infer_s)
    assert answer.batch_rows == 0


def test_requests_are_whole_and_in_turn() -> None:
    codec = Http1(TARGET)
    head = b"POST /predict HTTP/1.1\r\nHost: localhost:8080\r\nUser-Agent: paceline-bench\r\n"
    assert codec.request(0) == head + b"Content-Length: 3\r\n\r\n[1]"
    assert codec.request(1) == head + b"Content-Length: 6\r\n\r\n[2, 3]"
    assert codec.greeting() == codec.pending() == b""


def test_headers_of_the_target_are_sent() -> None:
    headers = (("host", "model.example"), ("content-type", "application/json"), ("content-length", "7"))
    target = Target(host="::1", port=80, protocol="raw", path="/a?b=c", bodies=(b"",), headers=headers)
    lines = Http1(target).request(0).split(b"\r\n")
    assert lines[0] == b"POST /a?b=c HTTP/1.1"
    assert lines[1:-2] == [
        b"User-Agent: paceline-bench",
        b"host: model.example",
        b"content-type: application/json",
        b"Content-Length: 0",
    ]


def test_an_address_of_ipv6_stands_in_brackets() -> None:
    assert b"\r\nHost: [::1]:80\r\n" in Http1(
        Target(host="::1", port=80, protocol="raw", path="/", bodies=(b"",))
    ).request(0)


def test_bodies_may_have_paths_of_their_own() -> None:
    target = Target(host="a", port=80, protocol="raw", path="/", bodies=(b"", b""), paths=("/one", "/two"))
    codec = Http1(target)
    assert [codec.request(index).split(b" ")[1] for index in (0, 1)] == [b"/one", b"/two"]


@pytest.mark.parametrize(
    ("path", "header"),
    [("/", ("x", "a\r\nhost: b")), ("/", ("a b", "c")), ("/a b", ("x", "y")), ("/\n", ("x", "y"))],
)
def test_a_request_cannot_be_smuggled_into_another(path: str, header: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match="cannot be sent"):
        Http1(Target(host="a", port=80, protocol="raw", path=path, bodies=(b"",), headers=(header,)))
