"""What does a client get that is silent, slow, gone, or one of very many?"""

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from paceline.testing import RunningServer, run_server
from support import models
from support.wire import Wire, ask, chunked_head, connections, get, memory_bytes, metric, post, until

TIMERS = [
    *("--header-timeout-ms", "150", "--body-timeout-ms", "200"),
    *("--keep-alive-ms", "250", "--write-timeout-ms", "300"),
]
ROW = b"[1,2,3]"


@pytest.fixture(scope="module")
def hasty(tmp_path_factory) -> Iterator[RunningServer]:
    """A server with short timers."""
    model = models.identity(tmp_path_factory.mktemp("models") / "echo.onnx")
    with run_server(model, [*TIMERS, "--warmup-s", "0"]) as running:
        yield running


@pytest.fixture(scope="module")
def busy(tmp_path_factory) -> Iterator[RunningServer]:
    """One instance, whose run takes as long as the client says: about 10 us for every unit of `n`."""
    folder = tmp_path_factory.mktemp("models")
    (folder / "examples.json").write_text("3000")
    flags = ["--instances", "1", "--threads", "1", "--max-batch-size", "1", "--warmup-s", "0"]
    flags += ["--examples", str(folder / "examples.json")]
    with run_server(models.patient(folder / "patient.onnx"), flags) as running:
        yield running


def closed_after(wire: Wire) -> float:
    """Seconds until the server closes."""
    started = time.monotonic()
    wire.rest()
    return time.monotonic() - started


# -- silent, dripping, stalled --------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("start", [b"", b"\r\n", b"G", b"GET"], ids=["nothing", "blank", "G", "GET"])
def test_fault_027_a_silent_client_is_closed_without_a_word(hasty, start):
    with Wire(hasty) as wire:
        started = time.monotonic()
        assert wire.send(start).rest() == b""
        assert 0.1 < time.monotonic() - started < 5


@pytest.mark.slow
@pytest.mark.parametrize(
    "start",
    [b"GET /li", b"GET /livez HTTP/1.1\r\nHo", post(ROW)[:-1], post(b" " * 99_999)[:-1], chunked_head() + b"3\r\n["],
    ids=["target", "header", "body", "large body", "chunk"],
)
def test_fault_027_a_client_that_stalls_in_a_request_gets_408(hasty, start):
    with Wire(hasty) as wire:
        wire.send(start)
        response = wire.response()
        assert (response.status, response.closes) == (408, True)
        assert wire.rest() == b""


@pytest.mark.slow
@pytest.mark.parametrize(
    "whole", [get("/livez", "X: " + "a" * 900), post(b"[1,2,3]" + b" " * 900)], ids=["head", "body"]
)
def test_fault_027_dripping_does_not_restart_the_timer(hasty, whole):
    with Wire(hasty) as wire:
        started = time.monotonic()
        for byte in whole:
            try:
                wire.send(bytes([byte]))
            except OSError:
                break
            time.sleep(0.02)
            if not wire.is_quiet():
                break
        assert time.monotonic() - started < 8
        assert wire.response().status == 408


@pytest.mark.slow
def test_fault_027_an_idle_connection_is_closed_at_keep_alive(hasty):
    with Wire(hasty) as wire:
        assert wire.send(get()).response().status == 200
        assert 0.2 < closed_after(wire) < 5


@pytest.mark.slow
def test_fault_027_time_spent_answering_is_not_the_clients(busy):
    """A request begun behind one that is being answered has its own time, from that answer on."""
    with Wire(busy) as wire:
        wire.send(post(b"30000") + post(b"3000")[:-1])
        assert wire.response().status == 200
        assert wire.send(b"0").response().status == 200


@pytest.mark.slow
@pytest.mark.parametrize("last", ["", "Connection: close"], ids=["kept", "closed"])
def test_fault_027_a_client_that_never_reads_is_cut_off(hasty, last):
    """Also when what it leaves unread is small enough for the server's buffer not to count as full."""
    before = metric(hasty, "paceline_connections")
    with Wire(hasty, receive_buffer=4096) as wire:
        with pytest.raises(TimeoutError):
            _stuff(wire)
        until(lambda: metric(hasty, "paceline_connections") <= before, timeout_s=5)
    with Wire(hasty, receive_buffer=4096) as wire:
        wire.send(get("/metrics") * 60, get("/metrics", *[last] if last else []))
        until(lambda: metric(hasty, "paceline_connections") <= before, timeout_s=5)


def _stuff(wire: Wire) -> None:
    wire.socket.settimeout(0.2)
    while True:
        wire.send(get("/metrics") * 100)


@pytest.mark.slow
def test_fault_077_a_slow_reader_costs_one_answer_of_memory(busy):
    before = memory_bytes(busy)
    with Wire(busy, receive_buffer=4096) as wire:
        with pytest.raises(TimeoutError):
            _stuff(wire)
        assert memory_bytes(busy) - before < 8 << 20
        assert ask(busy, get()).status == 200


# -- gone -----------------------------------------------------------------------------------------------------


@contextmanager
def occupied(server: RunningServer, units: int = 60_000) -> Iterator[Wire]:
    """The only instance runs a request for about half a second."""
    with Wire(server) as wire:
        wire.send(post(b"%d" % units))
        until(lambda: metric(server, "paceline_running_batches") == 1)
        yield wire
        assert wire.response().status == 200


@pytest.mark.slow
@pytest.mark.parametrize("leave", ["reset", "close"])
def test_fault_031_a_client_that_leaves_while_queued_is_never_served(busy, leave):
    rows = metric(busy, "paceline_rows_total")
    cancelled = metric(busy, "paceline_requests_total", outcome="cancelled")
    with occupied(busy):
        wire = Wire(busy).send(post(b"3000"))
        until(lambda: metric(busy, "paceline_queued_requests") == 1)
        wire.reset() if leave == "reset" else wire.socket.close()
        until(lambda: metric(busy, "paceline_queued_requests") == 0, timeout_s=2)
        assert metric(busy, "paceline_running_batches") == 1, "too late to prove anything"
    assert metric(busy, "paceline_requests_total", outcome="cancelled") == cancelled + 1
    assert metric(busy, "paceline_rows_total") == rows + 1


@pytest.mark.slow
def test_fault_030_half_closed_while_queued_is_served(busy):
    with occupied(busy), Wire(busy) as wire:
        wire.send(post(b"3000")).finish_sending()
        while (response := wire.response()).status < 200:
            pass
        assert (response.status, response.body) == (200, b"3000")
        assert wire.rest() == b""


@pytest.mark.slow
@pytest.mark.parametrize("leave", ["reset", "close"])
def test_fault_031_a_client_that_leaves_with_requests_pipelined(busy, leave):
    rows = metric(busy, "paceline_rows_total")
    with occupied(busy):
        wire = Wire(busy).send(post(b"3000") * 30)
        until(lambda: metric(busy, "paceline_queued_requests") == 1)
        wire.reset() if leave == "reset" else wire.socket.close()
        until(lambda: metric(busy, "paceline_queued_requests") == 0, timeout_s=2)
    assert metric(busy, "paceline_rows_total") == rows + 1


@pytest.mark.slow
@pytest.mark.parametrize("leave", ["reset", "close"])
def test_fault_032_a_client_that_leaves_in_the_middle_of_an_answer(busy, leave):
    for _ in range(20):
        wire = Wire(busy, receive_buffer=4096).send(get("/metrics") * 50)
        wire.socket.recv(100)
        wire.reset() if leave == "reset" else wire.socket.close()
    until(lambda: metric(busy, "paceline_connections") == 1)
    assert ask(busy, post(b"3000")).body == b"3000"
    assert "Traceback" not in busy.output


@pytest.mark.slow
def test_fault_032_a_client_that_leaves_while_its_request_runs(busy):
    wire = Wire(busy).send(post(b"20000"))
    until(lambda: metric(busy, "paceline_running_batches") == 1)
    wire.reset()
    until(lambda: metric(busy, "paceline_running_batches") == 0)
    assert ask(busy, post(b"3000")).body == b"3000"
    assert "Traceback" not in busy.output


# -- very many ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_fault_028_five_thousand_idle_connections(busy):
    wanted = 5000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted + 200:
        if hard != resource.RLIM_INFINITY and hard < wanted + 200:
            pytest.skip(f"only {hard} open files are allowed here, {wanted + 200} are needed")
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted + 200, hard))
    before = memory_bytes(busy)
    with connections(busy, wanted):
        until(lambda: metric(busy, "paceline_connections") > wanted)
        started = time.monotonic()
        assert ask(busy, post(b"3000")).body == b"3000"
        assert time.monotonic() - started < 2
        assert (memory_bytes(busy) - before) / wanted < 16 << 10
    until(lambda: metric(busy, "paceline_connections") == 1, timeout_s=30)


@pytest.mark.slow
def test_more_connections_than_allowed_are_told_so(tmp_path):
    model = models.identity(tmp_path / "echo.onnx")
    with run_server(model, ["--max-connections", "5", "--warmup-s", "0"]) as server:
        with connections(server, 5) as wires:
            assert [wire.send(get()).response().status for wire in wires] == [200] * 5
            response = ask(server)
            assert (response.status, response.closes, response.headers["retry-after"]) == (503, True, "1")
        until(lambda: ask(server, get("/livez", "Connection: close")).status == 200)


@pytest.mark.slow
def test_a_server_out_of_file_descriptors_recovers(tmp_path):
    model = models.identity(tmp_path / "echo.onnx")
    with run_server(model, ["--warmup-s", "0"]) as server:
        used = len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (used + 10, used + 10))
        with connections(server, 60):
            until(lambda: len(list(Path(f"/proc/{server.process.pid}/fd").iterdir())) >= used + 9)
        until(lambda: _is_served(server))
        assert server.terminate() == 0


def _is_served(server: RunningServer) -> bool:
    try:
        return ask(server, post(ROW)).status == 200
    except (OSError, AssertionError):
        return False
