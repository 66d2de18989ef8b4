"""How does the client's process of a load test start, end, and fail?"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from paceline.core.errors import GeneratorFailed
from paceline.loadtest.generator import Generator
from paceline.loadtest.samples import Outcome
from paceline.loadtest.steps import Change
from paceline.testing import run_server
from support import models
from support.load_client import held, hold, open_loop, target, users
from support.odd_server import OddServer, Peer, ok
from support.wire import until

pytestmark = pytest.mark.slow
HAPROXY = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")
PARENT = """
import sys, time
from paceline.loadtest.generator import Generator
from paceline.loadtest.steps import Step, Users
from paceline.loadtest.target import Target

to = Target(host="127.0.0.1", port=int(sys.argv[1]), protocol="raw", path="/", bodies=(b"",))
interrupted = 0
with Generator(to) as generator:
    generator.begin(Step(load=Users(count=1), warmup_s=0.0, duration_s=60.0))
    try:
        print(generator.pid, flush=True)
        while generator.ended is None:
            generator.poll(1.0)
    except KeyboardInterrupt:
        interrupted += 1
        generator.stop()
    while generator.ended is None:
        generator.poll(1.0)
    print("ended after", interrupted, flush=True)
"""


def answering(peer: Peer) -> None:
    for _ in peer.requests():
        peer.send(ok())


def silent(peer: Peer) -> None:
    for _ in peer.requests():
        pass


def is_gone(pid: int) -> bool:
    """Ended, or about to be collected by whoever has adopted it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@contextmanager
def parent(server: OddServer) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A process that tests `server`, and the number of its client."""
    command = [sys.executable, "-c", PARENT, str(server.port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, process_group=0) as process:
        try:
            assert process.stdout is not None
            yield process, int(process.stdout.readline())
        finally:
            process.kill()


def test_steps_follow_one_another() -> None:
    with OddServer(answering) as server, Generator(target(server)) as generator:
        one = hold(generator, open_loop(100))
        other = hold(generator, users(2))
        last = hold(generator, open_loop(50, duration_s=0.4))
    assert one.outcomes == {Outcome.OK: 50}
    assert other.outcomes.keys() == {Outcome.OK}
    assert last.outcomes == {Outcome.OK: 20}


def test_the_client_ends_with_its_handle() -> None:
    with OddServer(answering) as server:
        with Generator(target(server)) as generator:
            generator.begin(users(1, duration_s=60.0))
            assert not is_gone(generator.pid)
        assert is_gone(generator.pid)
        generator.close()


def test_the_client_ends_when_its_parent_is_killed() -> None:
    with OddServer(answering) as server, parent(server) as (process, pid):
        assert not is_gone(pid)
        process.kill()
        until(lambda: is_gone(pid))


def test_ctrl_c_is_the_parents() -> None:
    with OddServer(answering) as server, parent(server) as (process, _):
        os.killpg(process.pid, signal.SIGINT)
        out, _ = process.communicate(timeout=30)
    assert out == "ended after 1\n"


def test_a_client_that_dies_is_told() -> None:
    with OddServer(answering) as server, Generator(target(server)) as generator:
        generator.begin(users(1, duration_s=60.0))
        os.kill(generator.pid, signal.SIGKILL)
        with pytest.raises(GeneratorFailed, match="ended with code -9"):
            until(lambda: generator.poll(1.0) is None)


def test_a_target_that_takes_no_connections_is_told() -> None:
    with OddServer(answering) as server:
        gone = target(server)
    with pytest.raises(GeneratorFailed, match=r"127\.0\.0\.1: connection refused"):
        Generator(gone)


def test_a_host_that_does_not_exist_is_told() -> None:
    class Nowhere:
        host, port = "no-such-host.invalid", 80

    with pytest.raises(GeneratorFailed, match=r"no-such-host\.invalid: "):
        Generator(target(Nowhere))


def test_a_header_that_cannot_be_sent_is_told() -> None:
    with OddServer(answering) as server, pytest.raises(GeneratorFailed, match="header 'x' cannot be sent"):
        Generator(target(server, headers=(("x", "a\r\nb: c"),)))


def test_a_step_that_is_ended_says_what_it_left() -> None:
    with OddServer(silent) as server, Generator(target(server)) as generator:
        generator.begin(open_loop(100, duration_s=60.0, connections=4))
        until(lambda: server.connections >= 5)
        generator.stop()
        rows = 0
        outcomes: set[int] = set()
        while generator.ended is None:
            part = generator.poll(1.0)
            if part is not None:
                rows += part.size
                outcomes |= set(part["outcome"].tolist())
    assert rows >= 4
    assert outcomes == {Outcome.ABANDONED}
    assert 0.0 < generator.ended.wall_s < 60.0


def test_what_is_said_right_after_the_begin_is_heard() -> None:
    with OddServer(answering) as server, Generator(target(server)) as generator:
        generator.begin(users(1, duration_s=60.0))
        generator.change(Change(users=3))
        generator.stop()
        until(lambda: generator.poll(0.1) is None and generator.ended is not None)
        generator.stop()  # too late for that step, and not meant for the next
        assert hold(generator, open_loop(100, duration_s=0.2)).outcomes == {Outcome.OK: 20}


def test_a_step_that_is_ended_in_its_warm_up_has_counted_no_time() -> None:
    with OddServer(answering) as server, Generator(target(server)) as generator:
        found = hold(generator, users(1, warmup_s=60.0), lambda samples: generator.stop() if samples.size else None)
    assert found.ended.wall_s == 0.0
    assert found.outcomes.keys() == {Outcome.OK}


def test_what_our_server_says_of_each_request_is_in_its_sample(tmp_path: Path) -> None:
    model = models.mlp(tmp_path / "mlp.onnx", sizes=(8, 16, 3))
    with run_server(model) as server:
        headers = (("content-type", "application/json"),)
        found = held(target(server, b"[1, 2, 3, 4, 5, 6, 7, 8]", path="/predict", headers=headers), users(4))
    assert found.outcomes.keys() == {Outcome.OK}
    samples = found.samples
    assert (samples["queue_s"] >= 0).all()
    assert (samples["infer_s"] > 0).all()
    assert (samples["queue_s"] + samples["infer_s"] <= samples["latency_s"]).all()
    assert set(samples["batch_rows"].tolist()) <= {1, 2, 3, 4}
    assert samples["batch_rows"].min() >= 1


@pytest.mark.skipif(HAPROXY is None, reason="haproxy is not installed")
def test_haproxy_is_asked(tmp_path: Path) -> None:
    with OddServer(answering) as free:
        port = free.port
    config = tmp_path / "haproxy.cfg"
    config.write_text(
        "defaults\n mode http\n timeout client 60s\n timeout server 60s\n timeout connect 5s\n"
        f"frontend f\n bind 127.0.0.1:{port}\n http-request return status 200 content-type text/plain string ok\n"
    )
    with subprocess.Popen([str(HAPROXY), "-q", "-f", str(config)], stderr=subprocess.DEVNULL) as process:
        try:
            to = target(type("Haproxy", (), {"host": "127.0.0.1", "port": port}))
            until(lambda: _can_be_asked(to))
            found = held(to, users(8))
        finally:
            process.kill()
    assert found.outcomes.keys() == {Outcome.OK}
    assert np.isnan(found.samples["infer_s"]).all()


def _can_be_asked(to: object) -> bool:
    try:
        Generator(to).close()  # type: ignore[arg-type]
    except GeneratorFailed:
        return False
    return True


def test_ipv6_is_spoken() -> None:
    with OddServer(answering, host="::1") as server:
        found = held(target(server), users(1))
    assert found.outcomes.keys() == {Outcome.OK}


def test_a_name_with_two_addresses_leads_to_the_one_that_answers() -> None:
    with OddServer(answering) as server:
        server.host = "localhost"
        found = held(target(server), users(1))
    assert found.outcomes.keys() == {Outcome.OK}
