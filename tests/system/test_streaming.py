"""Does a generator reach its clients part by part, and does it end when they leave?"""

import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from paceline.testing import RunningServer, run_server
from support.events import Event, EventClient, parsed, stream
from support.frames import Frames
from support.wire import Wire, ask, get, metric, post, until

pytestmark = pytest.mark.slow

SERVICE = """
import asyncio
from pathlib import Path


def example():
    return {"count": 2}


async def predict(item: dict):
    seen = Path(item["seen"]) if "seen" in item else None
    try:
        for number in range(item["count"]):
            if number == item.get("fails_at"):
                raise ValueError("no more words")
            if "every_s" in item:
                await asyncio.sleep(item["every_s"])
            while number == item.get("waits_at") and not Path(item["gate"]).exists():
                await asyncio.sleep(0.005)
            if seen:
                seen.write_text(str(number))
            yield {"number": number, "padding": "x" * item.get("size", 0)}
    finally:
        if seen:
            seen.with_suffix(".closed").touch()
"""

PLAIN = """
from pathlib import Path


def predict(item: dict):
    try:
        yield from range(item["count"])
    finally:
        if "seen" in item:
            Path(item["seen"]).touch()
"""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("service") / "words.py"
    path.write_text(SERVICE)
    return path


@pytest.fixture(scope="module")
def server(service: Path) -> Iterator[RunningServer]:
    with run_server(service, ["--instances", "1", "--access-log"]) as running:
        yield running


def parts(*numbers: int) -> list[Event]:
    return [Event("part", {"number": number, "padding": ""}) for number in numbers]


# -- parts ----------------------------------------------------------------------------------------------------


def test_each_part_goes_out_when_it_is_made(server: RunningServer, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with EventClient(server) as client:
        client.ask({"count": 3, "waits_at": 1, "gate": str(gate)})
        assert client.headers["content-type"] == "text/event-stream"
        assert client.headers["cache-control"] == "no-cache"
        assert client.headers["transfer-encoding"] == "chunked"
        assert "content-length" not in client.headers
        events = client.events()
        assert next(events) == parts(0)[0]
        assert client.is_quiet(), "nothing more can be there before the gate opens"
        gate.touch()
        assert list(events) == [*parts(1, 2), Event("end", {"parts": 3})]


def test_a_stream_of_nothing_ends_at_once(server: RunningServer) -> None:
    assert stream(server, {"count": 0}) == [Event("end", {"parts": 0})]


@pytest.mark.parametrize(
    ("accept", "streams"),
    [
        (None, True),
        ("*/*", True),
        ("text/event-stream", True),
        ("application/json, text/event-stream", True),
        ("application/json", False),
        ("application/json, text/plain, */*", False),
    ],
)
def test_who_names_json_and_no_events_gets_a_list(server: RunningServer, accept: str | None, streams: bool) -> None:
    headers = [] if accept is None else [f"Accept: {accept}"]
    if streams:
        assert stream(server, {"count": 2}, *headers) == [*parts(0, 1), Event("end", {"parts": 2})]
    else:
        answer = ask(server, post(b'{"count": 2}', *headers))
        assert answer.headers["content-type"] == "application/json"
        assert json.loads(answer.body) == [{"number": 0, "padding": ""}, {"number": 1, "padding": ""}]


def test_streams_are_not_compressed(server: RunningServer) -> None:
    with EventClient(server) as client:
        client.ask({"count": 3, "size": 5000}, "Accept-Encoding: gzip")
        assert "content-encoding" not in client.headers
        assert [event.name for event in client.events()] == ["part"] * 3 + ["end"]


def test_more_streams_than_a_worker_runs_at_once(server: RunningServer) -> None:
    with ThreadPoolExecutor(100) as pool:
        answers = list(pool.map(lambda _: stream(server, {"count": 3, "every_s": 0.01}), range(100)))
    assert answers == [[*parts(0, 1, 2), Event("end", {"parts": 3})]] * 100


def test_openapi_says_that_it_streams(server: RunningServer) -> None:
    document = json.loads(ask(server, get("/openapi.json")).body)
    operation = document["paths"]["/predict"]["post"]
    assert operation["responses"]["200"]["content"].keys() == {"application/json", "text/event-stream"}
    assert operation["requestBody"]["content"]["application/json"]["example"] == {"count": 2}


def test_one_line_in_the_log_and_one_request_in_the_metrics(server: RunningServer) -> None:
    before = metric(server, "paceline_requests_total", outcome="ok", protocol="plain")
    stream(server, {"count": 3}, "X-Request-Id: counted-once")
    assert metric(server, "paceline_requests_total", outcome="ok", protocol="plain") == before + 1
    lines = [line for line in server.output.splitlines() if '"counted-once"' in line]
    assert [json.loads(line)["status"] for line in lines] == [200]


def test_the_example() -> None:
    path = Path(__file__).parents[2] / "examples" / "streaming" / "words.py"
    with run_server(path, ["--instances", "1"]) as server:
        words = [event.data for event in stream(server, {"words": 3})]
    assert words == [{"word": "Once"}, {"word": "upon"}, {"word": "a"}, {"parts": 3}]


# -- failing --------------------------------------------------------------------------------------------------


def test_what_fails_on_the_way_is_an_event_and_the_connection_lives(server: RunningServer) -> None:
    with EventClient(server) as client:
        *good, last = client.ask({"count": 3, "fails_at": 2}, "X-Request-Id: broken-off").events()
        assert good == parts(0, 1)
        assert last.name == "error"
        assert (last.data["code"], last.data["request_id"]) == ("model_failed", "broken-off")
        assert "ValueError" in last.data["error"]
        assert list(client.ask({"count": 1}).events()) == [*parts(0), Event("end", {"parts": 1})]


def test_what_fails_before_the_first_part_has_a_status(server: RunningServer) -> None:
    answer = ask(server, post(b'{"count": 3, "fails_at": 0}'))
    assert (answer.status, json.loads(answer.body)["code"]) == (500, "model_failed")
    assert ask(server, post(b'{"count": 3')).status == 400


def test_the_deadline_holds_for_each_part(server: RunningServer, tmp_path: Path) -> None:
    item = {"count": 2, "gate": str(tmp_path / "never"), "waits_at": 0, "seen": str(tmp_path / "first")}
    answer = ask(server, post(json.dumps(item).encode(), "X-Request-Timeout-Ms: 300"))
    assert (answer.status, json.loads(answer.body)["code"]) == (504, "deadline_exceeded")
    until((tmp_path / "first.closed").exists)

    item |= {"waits_at": 1, "seen": str(tmp_path / "second")}
    *good, last = stream(server, item, "X-Request-Timeout-Ms: 2000")
    assert good == parts(0)
    assert (last.name, last.data["code"]) == ("error", "deadline_exceeded")
    until((tmp_path / "second.closed").exists)

    # All parts together may take longer.
    names = [event.name for event in stream(server, {"count": 12, "every_s": 0.2}, "X-Request-Timeout-Ms: 2000")]
    assert names == ["part"] * 12 + ["end"]


def test_fault_089_a_worker_that_dies_ends_its_streams_and_repeats_none(service: Path, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with run_server(service, ["--instances", "1"]) as server, EventClient(server) as client:
        events = client.ask({"count": 3, "waits_at": 1, "gate": str(gate)}).events()
        assert next(events) == parts(0)[0]
        os.kill(_worker(server), signal.SIGKILL)
        gate.touch()
        last = next(events)
        assert (last.name, last.data["code"]) == ("error", "instance_lost")
        assert list(events) == []
        server.wait_ready()
        assert stream(server, {"count": 1}) == [*parts(0), Event("end", {"parts": 1})]


# -- clients that leave, or do not read -----------------------------------------------------------------------


@pytest.mark.parametrize("way", ["closes", "resets", "http/2 reset"])
def test_a_client_that_leaves_ends_the_generator(server: RunningServer, tmp_path: Path, way: str) -> None:
    seen = tmp_path / "seen"
    item = {"count": 100_000, "every_s": 0.02, "seen": str(seen)}
    before = metric(server, "paceline_requests_total", outcome="cancelled")
    if way == "http/2 reset":
        with Frames(server) as frames:
            _begin(frames, item)
            until(seen.exists)
    else:
        with EventClient(server) as client:
            next(client.ask(item).events())
            if way == "resets":
                client.reset()
    until(seen.with_suffix(".closed").exists)
    until(lambda: metric(server, "paceline_requests_total", outcome="cancelled") == before + 1)


def test_a_client_that_reads_slowly_slows_the_generator_down(server: RunningServer, tmp_path: Path) -> None:
    seen, count = tmp_path / "seen", 2000
    with EventClient(server, 60.0, receive_buffer=1 << 16) as client:
        client.ask({"count": count, "size": 20_000, "seen": str(seen)})
        until(lambda: seen.exists() and _stands_still(seen))
        assert int(seen.read_text()) < count - 1, "40 MB do not fit between the two"
        assert [event.name for event in client.events()] == ["part"] * count + ["end"]


@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/2"])
def test_fault_077_a_client_that_does_not_read_is_cut_off(service: Path, tmp_path: Path, version: str) -> None:
    seen = tmp_path / "seen"
    item = {"count": 10_000, "size": 20_000, "seen": str(seen)}
    with run_server(service, ["--instances", "1", "--write-timeout-ms", "500"]) as server:
        if version == "HTTP/2":
            with Frames(server, window=1 << 16) as frames:
                _begin(frames, item)
                until(seen.with_suffix(".closed").exists, 30)
        else:
            with EventClient(server, receive_buffer=1 << 16) as client:
                client.ask(item)
                until(seen.with_suffix(".closed").exists, 30)
        assert metric(server, "paceline_requests_total", outcome="cancelled") == 1
        assert stream(server, {"count": 1}) == [*parts(0), Event("end", {"parts": 1})]


def test_a_client_that_has_closed_its_half_gets_everything(server: RunningServer) -> None:
    with EventClient(server) as client:
        client.send(post(b'{"count": 2, "every_s": 0.1}')).finish_sending()
        while client.begin().status == 100:
            pass
        assert list(client.events()) == [*parts(0, 1), Event("end", {"parts": 2})]
        assert client.rest() == b""


def test_a_plain_generator_streams_and_is_closed_as_well(tmp_path: Path) -> None:
    seen, path = tmp_path / "seen", tmp_path / "plain.py"
    path.write_text(PLAIN)
    with run_server(path, ["--instances", "1"]) as server:
        assert stream(server, {"count": 3}) == [
            *[Event("part", number) for number in range(3)],
            Event("end", {"parts": 3}),
        ]
        with EventClient(server) as client:
            next(client.ask({"count": 10**9, "seen": str(seen)}).events())
        until(seen.exists)


# -- on the wire ----------------------------------------------------------------------------------------------


def test_requests_behind_a_stream_wait_for_its_end(server: RunningServer) -> None:
    with EventClient(server) as client:
        client.send(post(b'{"count": 2}') + post(b'{"count": 3}') + post(b'{"count": 1}', "Accept: application/json"))
        for count in (2, 3):
            assert [event.name for event in client.begin().events()] == ["part"] * count + ["end"]
        assert json.loads(client.response().body) == [{"number": 0, "padding": ""}]


def test_http_1_0_has_no_chunks(server: RunningServer) -> None:
    request = post(b'{"count": 2}').replace(b"HTTP/1.1", b"HTTP/1.0", 1)
    with Wire(server) as wire:
        head, _, body = wire.send(request).rest().partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head.lower()
    assert b"connection: close" in head.lower()
    assert [parsed(event) for event in body.split(b"\n\n")[:-1]] == [*parts(0, 1), Event("end", {"parts": 2})]


def test_http_2_streams_as_well(server: RunningServer) -> None:
    command = ["curl", "-sN", "--http2-prior-knowledge", "-H", "content-type: application/json"]
    url = f"{server.url}/predict"
    done = subprocess.run([*command, "-d", '{"count": 3}', url], capture_output=True, timeout=20, check=True)
    assert [parsed(event) for event in done.stdout.split(b"\n\n")[:-1]] == [*parts(0, 1, 2), Event("end", {"parts": 3})]
    # More than the client's windows hold.
    item = json.dumps({"count": 300, "size": 20_000})
    done = subprocess.run([*command, "-d", item, url], capture_output=True, timeout=60, check=True)
    assert len(done.stdout.split(b"\n\n")) == 302


def test_a_stream_finishes_while_the_server_drains(service: Path, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with run_server(service, ["--instances", "1"]) as server, EventClient(server) as client:
        events = client.ask({"count": 3, "waits_at": 1, "gate": str(gate)}).events()
        assert next(events) == parts(0)[0]
        ending = threading.Thread(target=server.terminate)
        ending.start()
        until(lambda: _is_draining(server))
        gate.touch()
        assert list(events) == [*parts(1, 2), Event("end", {"parts": 3})]
        ending.join(20)
        assert server.process.returncode == 0


# -- helpers --------------------------------------------------------------------------------------------------


def _worker(server: RunningServer) -> int:
    """The process id of the only worker."""
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
    children += [
        child
        for task in Path(f"/proc/{server.process.pid}/task").iterdir()
        for child in (task / "children").read_text().split()
    ]
    (only,) = set(children)
    return int(only)


def _begin(frames: Frames, item: object) -> None:
    body = json.dumps(item).encode()
    frames.send(frames.head(1, "/predict", ("content-type", "application/json")), frames.data(1, body, True))


def _stands_still(path: Path) -> bool:
    before = path.read_text()
    threading.Event().wait(0.5)
    return path.read_text() == before != ""


def _is_draining(server: RunningServer) -> bool:
    try:
        return ask(server, b"GET /readyz HTTP/1.1\r\nHost: test\r\n\r\n").status == 503
    except OSError:
        return True  # it accepts nobody any more


def test_a_stream_may_be_longer_than_the_list_of_its_parts(server: RunningServer):
    item = {"count": 17, "size": 1 << 20}
    *parts, end = stream(server, item)
    assert (len(parts), end.name) == (17, "end")
    answer = ask(server, post(json.dumps(item).encode(), "Accept: application/json"))
    assert answer.status == 500
    assert b'"stream_too_long"' in answer.body
