"""Does the server read HTTP/1.1 exactly, refuse what is not, and answer in order?

Two readings of the same bytes are how requests are smuggled past a proxy, so nothing ambiguous is repaired.
"""

import json
from collections.abc import Iterator

import pytest

from paceline.testing import RunningServer, run_server
from support import models
from support.wire import Wire, ask, chunked, chunked_head, get, metric, post, refused

URL_BYTES, HEAD_BYTES, HEADERS = 1024, 4096, 20
ROW = b"[1,2,3]"


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[RunningServer]:
    model = models.identity(tmp_path_factory.mktemp("models") / "echo.onnx")
    flags = ["--max-url-kb", "1", "--max-headers-kb", "4", "--max-headers", str(HEADERS)]
    with run_server(model, [*flags, "--max-body-mb", "1", "--warmup-s", "0"]) as running:
        yield running


@pytest.fixture(autouse=True)
def unharmed(server) -> Iterator[None]:
    """Whatever was sent, the next client is served, and nothing unexpected is on stderr."""
    yield
    assert ask(server, post(ROW)).body == b"[1.0,2.0,3.0]"
    assert "Traceback" not in server.output


def refused_unseen(server: RunningServer, *pieces: bytes) -> int:
    """The status of a refusal; the model has not run, not even with a part of the body."""
    before = metric(server, "paceline_rows_total")
    response = refused(server, *pieces)
    assert metric(server, "paceline_rows_total") == before
    assert set(json.loads(response.body)) == {"error", "code", "request_id"}
    return response.status


# -- which bytes are the body? --------------------------------------------------------------------------------


@pytest.mark.parametrize("second", ["7", "8", "07"])
def test_fault_012_duplicate_content_length(server, second):
    assert refused_unseen(server, post(ROW, f"Content-Length: {second}")) == 400


def test_fault_013_duplicate_content_length_in_another_case(server):
    assert refused_unseen(server, post(ROW, "content-LENGTH: 7")) == 400


@pytest.mark.parametrize(
    "length", ["5, 5", "+5", "-1", "0x5", str(2**64 + 5), "", "5 5", "5;", "1e1", "5.0", "\u0665", "5\x0b"]
)
def test_fault_014_bad_content_length(server, length):
    head = (
        get("/predict", f"Content-Length: {length}", method="POST", version="1.1")
        if length.isascii()
        else (b"POST /predict HTTP/1.1\r\nHost: test\r\nContent-Length: " + length.encode() + b"\r\n\r\n")
    )
    assert refused_unseen(server, head + b"[1,2]") == 400


@pytest.mark.parametrize("first", ["Content-Length: 7", "Transfer-Encoding: chunked"])
def test_fault_015_content_length_with_transfer_encoding(server, first):
    second = "Transfer-Encoding: chunked" if first.startswith("C") else "Content-Length: 7"
    head = get("/predict", first, second, method="POST")
    assert refused_unseen(server, head + chunked(ROW, 7)) == 400


@pytest.mark.parametrize(
    "encoding",
    [
        "gzip",
        "identity",
        "xchunked",
        "chunked, identity",
        "gzip, chunked",
        "chunked, chunked",
        "chunked;a=b",
        '"chunked"',
        ",chunked",
        "chunked,",
        "\x0bchunked",
        "",
    ],
)
def test_fault_016_unknown_transfer_encoding(server, encoding):
    head = get("/predict", f"Transfer-Encoding: {encoding}", method="POST")
    assert refused_unseen(server, head + chunked(ROW, 7)) == 400


@pytest.mark.parametrize(
    "lines",
    [
        ("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
        ("Transfer-Encoding: chunked", "Transfer-Encoding: identity"),
        ("Transfer-Encoding : chunked",),
        (" Transfer-Encoding: chunked",),
        ("Transfer-Encoding\t: chunked",),
        ("Transfer\x00-Encoding: chunked",),
    ],
    ids=repr,
)
def test_fault_017_duplicated_or_spaced_transfer_encoding(server, lines):
    head = get("/predict", *lines, method="POST")
    assert refused_unseen(server, head + chunked(ROW, 7)) == 400


def test_fault_017_transfer_encoding_in_http_1_0(server):
    head = get("/predict", "Transfer-Encoding: chunked", method="POST", version="1.0")
    assert refused_unseen(server, head + chunked(ROW, 7)) == 400


@pytest.mark.parametrize(
    "body",
    [
        b"x\r\n[1,2,3]\r\n0\r\n\r\n",
        b"-7\r\n[1,2,3]\r\n0\r\n\r\n",
        b"+7\r\n[1,2,3]\r\n0\r\n\r\n",
        b"0x7\r\n[1,2,3]\r\n0\r\n\r\n",
        b" 7\r\n[1,2,3]\r\n0\r\n\r\n",
        b"7 \r\n[1,2,3]\r\n0\r\n\r\n",
        b"7\n[1,2,3]\n0\n\n",
        b"7\r[1,2,3]\r\n0\r\n\r\n",
        b"7\r\n[1,2,3]0\r\n\r\n",
        b"7\r\n[1,2,3]xx0\r\n\r\n",
        b"8\r\n[1,2,3]\r\n0\r\n\r\n",
        b"6\r\n[1,2,3]\r\n0\r\n\r\n",
        b"\r\n[1,2,3]\r\n0\r\n\r\n",
        b"10000000000000007\r\n[1,2,3]\r\n0\r\n\r\n",
        b"7;\x00\r\n[1,2,3]\r\n0\r\n\r\n",
        b"7\r\n[1,2,3]\r\n0\r\nX\r\n\r\n",
        b"7\r\n[1,2,3]\r\n0\r\n X: 1\r\n\r\n",
    ],
    ids=repr,
)
def test_fault_018_bad_chunk_framing(server, body):
    assert refused_unseen(server, chunked_head() + body) == 400


def test_chunk_extensions_and_trailers_are_read_over(server):
    body = b'3;name="a;b"\r\n[1,\r\n4;x\r\n2,3]\r\n0\r\nX-Sum: 1\r\nHost: b\r\n\r\n'
    with Wire(server) as wire:
        wire.send(chunked_head(), body, get())
        assert wire.response().body == b"[1.0,2.0,3.0]"
        assert wire.response().body == b"ok\n"


# -- heads ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "head",
    [
        b"GET /livez HTTP/1.1\r\nHost: a\r\nX: 1\r\n 2\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: a\r\nX: 1\r\n\t2\r\n\r\n",
        b"GET /livez HTTP/1.1\nHost: a\n\n",
        b"GET /livez HTTP/1.1\r\nHost: a\nX: 1\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: a\r\n\n",
        b"GET /livez HTTP/1.1\rHost: a\r\r",
        b"GET /livez HTTP/1.1\r\nHost: a\rX: 1\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: a\r\nX\0: b\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: a\r\nX : b\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: a\r\nX\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: a\r\nX(: b\r\n\r\n",
    ],
    ids=repr,
)
def test_fault_019_malformed_header_lines(server, head):
    assert refused_unseen(server, head) == 400


@pytest.mark.parametrize(
    "version", ["9.9", "0.9", "2.0", "1.2", "1", "1.1.1", "11", "1.10", "x", ""], ids=lambda v: v or "none"
)
def test_fault_021_versions(server, version):
    assert refused_unseen(server, f"GET /livez HTTP/{version}\r\nHost: a\r\n\r\n".encode()) in (400, 505)


@pytest.mark.parametrize("line", [b"GET /livez\r\n", b"GET /livez \r\n", b"GET\r\n", b"GET  HTTP/1.1\r\n"])
def test_fault_021_incomplete_request_lines(server, line):
    assert refused_unseen(server, line + b"Host: a\r\n\r\n") in (400, 505)


@pytest.mark.parametrize("method", ["get", "G T", "GEX", "GET\x00", "BREW", "@", "G" * 300])
def test_fault_021_odd_methods(server, method):
    assert refused_unseen(server, get(method=method)) == 400


@pytest.mark.parametrize("target", ["/a\x00b", "/a\x01", "/a\tb", "/a b", "/a\x7f", "a", "/a\rb", "/a\nb"], ids=repr)
def test_fault_021_control_characters_in_the_target(server, target):
    assert refused_unseen(server, get(target)) == 400


def test_fault_021_nearly_an_http_2_preface(server):
    assert refused(server, b"PRI * HTTP/2.0\r\n\r\nSN\r\n\r\n\0\0\0\4\0\0\0\0\0").status in (400, 505)


@pytest.mark.parametrize(
    "lines", [b"", b"Host: a\r\nHost: a\r\n", b"Host: a\r\nhost: b\r\n"], ids=["none", "twice", "differ"]
)
def test_fault_022_missing_or_duplicate_host(server, lines):
    assert refused_unseen(server, b"GET /livez HTTP/1.1\r\n" + lines + b"\r\n") == 400


def test_http_1_0_needs_no_host_and_closes_unless_asked(server):
    with Wire(server) as wire:
        first = wire.send(b"GET /livez HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").response()
        assert (first.status, first.headers.get("connection")) == (200, "keep-alive")
        last = wire.send(b"GET /livez HTTP/1.0\r\n\r\n").response()
        assert last.status == 200
        assert last.closes
        assert wire.rest() == b""


def test_fault_023_one_header_too_long(server):
    assert ask(server, get("/livez", "X: " + "a" * (HEAD_BYTES - 100))).status == 200
    assert refused_unseen(server, get("/livez", "X: " + "a" * HEAD_BYTES)) == 431


def test_fault_023_headers_too_large_together(server):
    lines = [f"X-{index}: {'a' * 300}" for index in range(HEADERS - 2)]
    assert refused_unseen(server, get("/livez", *lines)) == 431


@pytest.mark.parametrize("name", ["X-{}: a", "X: a"], ids=["different", "the same"])
def test_fault_023_too_many_headers(server, name):
    lines = [name.format(index) for index in range(HEADERS)]
    assert ask(server, get("/livez", *lines[1:])).status == 200
    assert refused_unseen(server, get("/livez", *lines)) == 431


@pytest.mark.parametrize("start", [b"X: ", b"X"], ids=["value", "name"])
def test_fault_023_a_header_that_never_ends(server, start):
    with Wire(server) as wire:
        wire.send(b"GET /livez HTTP/1.1\r\nHost: a\r\n" + start)
        assert _flood(wire, b"a" * 65536).startswith(b"HTTP/1.1 431 ")


def test_fault_023_headers_without_an_end(server):
    with Wire(server) as wire:
        wire.send(b"GET /livez HTTP/1.1\r\nHost: a\r\n")
        assert _flood(wire, b"X: a\r\n" * 10_000).startswith(b"HTTP/1.1 431 ")


def test_fault_023_url_too_long(server):
    assert ask(server, get("/" + "a" * (URL_BYTES - 1))).status == 404
    assert refused_unseen(server, get("/" + "a" * URL_BYTES)) == 414


def test_fault_023_a_url_that_never_ends(server):
    with Wire(server) as wire:
        wire.send(b"GET /")
        assert _flood(wire, b"a" * 65536).startswith(b"HTTP/1.1 414 ")


def _flood(wire: Wire, piece: bytes) -> bytes:
    """Send until the server closes; what it said. Sixteen MiB are over every limit."""
    try:
        for _ in range((16 << 20) // len(piece)):
            wire.send(piece)
    except (ConnectionResetError, BrokenPipeError):
        pass
    else:
        wire.finish_sending()
    return wire.rest()


def test_fault_033_tls_hello_on_the_plain_port(server):
    hello = bytes.fromhex("16030100a5010000a10303") + bytes(range(160))
    with Wire(server) as wire:
        answer = wire.send(hello).rest()
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")


# -- connections ----------------------------------------------------------------------------------------------


def test_fault_029_pipelined_requests_are_answered_in_order(server):
    bodies = [b"[%d,0,0]" % index for index in range(100)]
    with Wire(server) as wire:
        wire.send(b"".join(post(body) for body in bodies))
        answers = [wire.response() for _ in bodies]
    assert [json.loads(answer.body)[0] for answer in answers] == list(range(100))


@pytest.mark.slow
def test_fault_029_ten_thousand_pipelined_requests(server):
    count = 10_000
    with Wire(server) as wire:
        wire.send(b"".join(get("/livez", f"X-Request-Id: {index}") for index in range(count)))
        ids = [wire.response().headers["x-request-id"] for _ in range(count)]
    assert ids == [str(index) for index in range(count)]


def test_fault_029_a_bad_request_behind_good_ones(server):
    with Wire(server) as wire:
        wire.send(post(ROW) + get() + b"BAD\r\n\r\n" + get())
        assert [wire.response().status for _ in range(3)] == [200, 200, 400]
        assert wire.rest() == b""


def test_fault_029_requests_of_every_shape_on_one_connection(server):
    large = post(b'"' + b"x" * 100_000 + b'"')
    with Wire(server) as wire:
        wire.send(get() + large + post(ROW) + chunked_head() + chunked(ROW, 2) + large + get("/nope"))
        assert [wire.response().status for _ in range(6)] == [200, 400, 200, 200, 400, 404]


def test_fault_034_unknown_route_and_wrong_method(server):
    assert ask(server, get("/nope")).status == 404
    wrong = ask(server, get("/predict"))
    assert (wrong.status, wrong.headers["allow"]) == (405, "POST")
    wrong = ask(server, get("/livez", "Content-Length: 0", method="DELETE"))
    assert (wrong.status, wrong.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("target", ["/livez", "/readyz", "/healthz", "/metrics", "/nope", "/predict"])
def test_fault_034_head_has_the_length_and_no_body(server, target):
    with Wire(server) as wire:
        head = wire.send(get(target, method="HEAD")).response("HEAD")
        body = wire.send(get(target)).response()
        assert head.status == body.status
        if target != "/metrics":  # which grows from one to the next
            assert int(head.headers["content-length"]) - len(body.body) in (0, 1, -1)


@pytest.mark.parametrize(
    "behind", [b"", get(), b"\0garbage", post(b"x" * 200_000)], ids=["", "get", "garbage", "large"]
)
def test_fault_035_connection_close_is_honoured(server, behind):
    with Wire(server) as wire:
        response = wire.send(get("/livez", "Connection: close") + behind).response()
        assert response.closes
        assert wire.rest() == b""


@pytest.mark.parametrize("value", ["Close", "keep-alive, close", "close, x"])
def test_fault_035_spellings_of_close(server, value):
    with Wire(server) as wire:
        assert wire.send(get("/livez", f"Connection: {value}")).response().closes
        assert wire.rest() == b""


def test_connect_makes_no_tunnel(server):
    with Wire(server) as wire:
        assert wire.send(get("test:80", method="CONNECT")).response().status in (400, 404, 405)
        assert wire.send(get()).response().body == b"ok\n"


@pytest.mark.parametrize("target", ["http://test/livez", "http://test:80/livez?a=b", "HTTP://test/livez", "/livez?"])
def test_absolute_targets(server, target):
    assert ask(server, get(target)).body == b"ok\n"


@pytest.mark.parametrize(("target", "status"), [("*", 404), ("/predict", 405)])
def test_options(server, target, status):
    with Wire(server) as wire:
        assert wire.send(get(target, method="OPTIONS")).response().status == status
        assert wire.send(get()).response().status == 200


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/%6civez", 200),
        ("/livez%00", 404),
        ("/livez%", 404),
        ("/livez%2F", 404),
        ("/%2e%2e/livez", 404),
        ("/../livez", 404),
        ("//livez", 404),
        ("/livez/", 404),
        ("/livez%0d%0aX:%201", 404),
        ("/%ff", 404),
        ("/\xe9", 404),
        ("/livez#a", 404),
    ],
)
def test_paths_are_decoded_once_and_never_normalised(server, target, status):
    assert ask(server, get(target)).status in (status, 400 if status == 404 else status)


def test_blank_lines_before_a_request_are_skipped(server):
    with Wire(server) as wire:
        assert wire.send(b"\r\n\r\n" + get() + b"\r\n" + get()).response().status == 200
        assert wire.response().status == 200
