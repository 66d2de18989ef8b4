"""`paceline bench`: the real command against a real server."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from paceline.loadtest.result import Result
from paceline.testing import RunningServer, run_server
from support import models
from support.doing import doing, is_alive, workers
from support.wire import metric, until

pytestmark = pytest.mark.slow

WAIT_S = 90.0
SHORT = ("--duration", "0.4s", "--warm-up", "0.1s")


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    path = models.digits(tmp_path_factory.mktemp("models") / "digits.onnx")
    with run_server(path, ["--warmup-s", "0.05"]) as server:
        yield server


@contextmanager
def started(*arguments: str | Path, cwd: Path | None = None) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "paceline", "bench", *map(str, arguments)],
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def bench(*arguments: str | Path, cwd: Path | None = None, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run it to its end, which has to be this exit code."""
    with started(*arguments, cwd=cwd) as process:
        stdout, stderr = process.communicate(timeout=WAIT_S)
    assert process.returncode == code, f"exit code {process.returncode}\n{stdout}\n{stderr}"
    return subprocess.CompletedProcess(process.args, code, stdout, stderr)


def measured(*arguments: str | Path, cwd: Path | None = None, code: int = 0) -> Result:
    """Run it; the document that it prints, which is all of its stdout."""
    return msgspec.json.decode(bench("--json", *arguments, cwd=cwd, code=code).stdout, type=Result)


def under_load(server: RunningServer) -> None:
    """Wait until it is sent more than the one request that the command begins with."""

    def answered() -> float:
        return metric(server, "paceline_requests_total", outcome="ok")

    before = answered()
    until(lambda: answered() > before + 5, timeout_s=WAIT_S)


# -- what a user gets -----------------------------------------------------------------------------------------


def test_without_flags_it_finds_how_many_users_bring_the_most(digits: RunningServer):
    said = bench(digits.url, "--model", "digits", *SHORT)
    head, _, columns, *rows = said.stdout.splitlines()
    assert head.startswith(f"{digits.url}/predict  digits, plain, paceline ")
    assert {"load", "p50", "p90", "p95", "p99", "p99.9", "max"} <= set(columns.split())
    assert [row.split("  ")[0] for row in rows[:3]] == ["1 user", "2 users", "4 users"]
    assert re.search(r"^next: .*--rate \d+/s.*--find-capacity --slo p99=\S+ms", said.stdout, re.MULTILINE)
    assert re.search(r"^paceline: 1 user: \S+/s, p50 .*, p99 ", said.stderr, re.MULTILINE)


def test_the_articles_users_think_between_their_requests(digits: RunningServer):
    result = measured(digits.url, "--users", "1,3", "--think", "10ms..30ms", *SHORT)
    assert result.kind == "users"
    assert [(step.label, step.users, step.think_s) for step in result.steps] == [
        ("1 user", 1, (0.01, 0.03)),
        ("3 users", 3, (0.01, 0.03)),
    ]
    one, three = result.steps
    # A user who thinks for 20 ms sends 50 requests per second at the most.
    assert 0 < one.rate <= 100
    assert one.requests < three.requests
    assert not one.errors
    assert not three.errors


def test_the_server_says_how_long_it_took_beside_what_the_client_saw(digits: RunningServer):
    (step,) = measured(digits.url, "--users", "4", *SHORT).steps
    assert step.queue is not None
    assert step.infer is not None
    assert step.queue.count == step.infer.count == step.latency.count == sum(step.batch_rows.values())
    assert step.latency.p50_ms
    assert step.infer.p50_ms
    assert step.infer.p50_ms < step.latency.p50_ms
    assert 0 < step.client.cpu <= 1.1


@pytest.mark.parametrize(
    ("kind", "flags"),
    [
        ("constant", ()),
        ("poisson", ()),
        ("gamma", ("--cv", "3")),
        ("mmpp", ("--burst-factor", "4", "--burst-share", "0.2", "--burst-length", "100ms")),
        ("diurnal", ("--period", "1s", "--peak", "1.5")),
        ("black-friday", ("--peak", "8", "--peak-at", "0.4", "--ramp", "0.05", "--decay", "0.3")),
    ],
)
def test_every_kind_of_arrivals_comes_at_the_rate_that_was_asked_for(digits: RunningServer, kind: str, flags: Any):
    load = ("--rate", "300/s", "--arrivals", kind, "--connections", "50", "--seed", "3")
    (step,) = measured(digits.url, *load, *flags, "--duration", "1s", "--warm-up", "0s").steps
    assert step.label == ("300/s" if kind in ("constant", "poisson") else f"300/s {kind}")
    # Far outside of what chance does to any of them in a second, far inside of a unit that was mistaken.
    assert 60 < step.offered_rate < 1500
    assert not step.errors


def test_several_rates_are_several_steps_and_one_unit_is_enough(digits: RunningServer):
    result = measured(digits.url, "--rate", "3000,6000/min", "--slo", "p90=500ms", *SHORT)
    assert [step.label for step in result.steps] == ["50/s", "100/s"]
    assert result.slo is not None
    assert result.slo.latency_ms == 500
    assert all(step.goodput is not None and step.slo_met is not None for step in result.steps)


def test_a_recording_is_played_in_its_own_time_or_in_another(digits: RunningServer, tmp_path: Path):
    trace = tmp_path / "arrivals.txt"
    trace.write_text("".join(f"{at / 10}\n" for at in range(41)))
    (step,) = measured(digits.url, "--trace", trace, "--time-scale", "0.25").steps
    assert step.requests == 41
    assert step.duration_s == pytest.approx(1.0, abs=0.05)
    (step,) = measured(digits.url, "--trace", trace, "--rate", "80/s").steps
    assert step.requests == 41
    assert step.duration_s == pytest.approx(0.5, abs=0.05)


def test_requests_are_replayed_with_their_bodies(digits: RunningServer, tmp_path: Path):
    recording = tmp_path / "requests.jsonl"
    requests = [{"at": at / 20, "path": "/predict", "body": [at, 2, 3, 4]} for at in range(20)]
    recording.write_text("".join(json.dumps(request) + "\n" for request in requests))
    result = measured(digits.url, "--replay", recording, "--time-scale", "0.5")
    assert (result.protocol, result.steps[0].requests, result.steps[0].errors) == ("raw", 20, {})


@pytest.mark.parametrize("protocol", ["plain", "oip", "oip-binary", "tfs", "oip-grpc", "tfs-grpc"])
def test_every_protocol_is_answered(digits: RunningServer, protocol: str):
    result = measured(digits.url, "--protocol", protocol, "--users", "2", "--rows", "3", *SHORT)
    (step,) = result.steps
    assert (result.protocol, result.rows, step.errors) == (protocol, 3, {})
    assert step.latency.count > 0
    assert step.rows_per_s == pytest.approx(3 * step.rate)


def test_rows_and_bodies_come_from_files(digits: RunningServer, tmp_path: Path):
    rows, body = tmp_path / "rows.jsonl", tmp_path / "body"
    rows.write_text("[1, 2, 3, 4]\n[5, 6, 7, 8]\n")
    body.write_text("[1, 2, 3, 4]")
    load = ("--users", "1", *SHORT)
    assert not measured(digits.url, "--data", rows, *load).steps[0].errors
    sent = measured(f"{digits.url}/predict", "--body", body, "--content-type", "application/json", *load)
    assert (sent.protocol, sent.steps[0].errors) == ("raw", {})


def test_the_capacity_is_looked_for(digits: RunningServer):
    result = measured(digits.url, "--find-capacity", "--slo", "p50=5s", "--timeout", "5s", *SHORT)
    assert result.kind == "capacity"
    assert result.capacity is not None
    assert result.capacity.rate > 0
    assert len(result.steps) > 2


def test_no_capacity_is_exit_code_1(digits: RunningServer):
    result = measured(digits.url, "--find-capacity", "--slo", "p99=1us", *SHORT, code=1)
    assert result.capacity is not None
    assert result.capacity.rate == 0


def test_reports_are_written_and_a_later_test_is_held_to_them(digits: RunningServer, tmp_path: Path):
    load = ("--users", "2", *SHORT)
    reports = ("--output", "old.json", "--report", "report.html", "--markdown", "report.md")
    said = bench(digits.url, *load, *reports, cwd=tmp_path)
    assert {"old.json", "report.html", "report.md"} == {path.name for path in tmp_path.iterdir()}
    assert all(f"paceline: {name}: written" in said.stderr for name in reports[1::2])
    assert "<svg" in (tmp_path / "report.html").read_text()
    assert "| load |" in (tmp_path / "report.md").read_text()
    older = ("--baseline", "old.json")
    passed = bench(digits.url, *load, *older, "--fail-if", "p50+100000%", cwd=tmp_path)
    assert "passed: p50+100000%, 2 users" in passed.stdout
    rules = ("--fail-if", "p50+100000%", "--fail-if", "p50>1us")
    failed = bench(digits.url, *load, *older, *rules, cwd=tmp_path, code=1)
    assert "failed: p50>1us, 2 users" in failed.stdout


def test_a_service_is_started_tested_and_stopped(tmp_path: Path):
    service = tmp_path / "service.py"
    service.write_text(
        "import os\nfrom pathlib import Path\n"
        "class Shout:\n"
        "    def setup(self):\n        Path(__file__).with_name('pid').write_text(str(os.getppid()))\n"
        "    def predict(self, batch):\n        return [item.upper() for item in batch]\n"
        "    def example(self):\n        return 'a word'\n"
    )
    result = measured(service, "--users", "1", *SHORT, "--", "--max-batch-size", "4", "--instances", "1")
    assert (result.model, result.steps[0].errors) == ("service", {})
    pid = int((tmp_path / "pid").read_text())
    until(lambda: not Path(f"/proc/{pid}").exists())


def test_what_is_quiet_says_nothing(digits: RunningServer):
    assert bench(digits.url, "--users", "1", "--quiet", *SHORT).stderr == ""


def test_the_values_of_headers_are_in_no_document(digits: RunningServer):
    headers = ("-H", "authorization: Bearer secret", "-Hx-a: secret", "--header=x-b: secret")
    result = measured(digits.url, "--users", "1", *headers, *SHORT)
    assert result.command.count("...") == 3
    assert b"secret" not in msgspec.json.encode(result)


def test_locust_sends_what_we_would_and_gives_the_same_report(digits: RunningServer, tmp_path: Path):
    (step,) = (result := measured(digits.url, "--engine", "locust", "--users", "2", *SHORT)).steps
    assert (result.engine, step.label, step.errors) == ("locust", "2 users", {})
    assert step.latency.count > 0
    said = bench(digits.url, "--locustfile", "load.py", "--think", "1s..3s", cwd=tmp_path)
    assert said.stdout == ""
    assert "wait_time = between(1, 3)" in (tmp_path / "load.py").read_text()
    refused = bench(digits.url, "--locustfile", "load.py", cwd=tmp_path, code=3)
    assert "load.py is there already\nhint: --force writes over it" in refused.stderr
    bench(digits.url, "--locustfile", "load.py", "--force", cwd=tmp_path)
    assert "wait_time = constant(0)" in (tmp_path / "load.py").read_text()


# -- what goes wrong ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        (
            ("--users", "5", "--rate", "10/s"),
            2,
            "--users and --rate: users wait for their answers, and a rate does not",
        ),
        (("--think", "1s"), 2, "--think says nothing without --users 1,5,20 or --locustfile"),
        (("--find-capacity",), 2, "--find-capacity says nothing without --slo p99=50ms"),
        (("--find-capacity", "--slo", "p99=1s", "--users", "3"), 2, "--find-capacity chooses the rates itself"),
        (("--engine", "locust", "--rate", "3/s"), 2, "Locust has users, and no rates"),
        (("--cv", "2"), 2, "--cv says nothing without --arrivals gamma: add that"),
        (("--peak", "2"), 2, "--peak says nothing without --arrivals black-friday: add that"),
        (("--arrivals", "trace", "--rate", "1/s"), 2, "--arrivals trace says nothing without --trace FILE"),
        (("--rate", "fast"), 2, "expected a rate such as 200/s, 90/min or 12k/h, got 'fast'"),
        (("--users", "0"), 2, "expected numbers from 1 to 10000, such as 1,5,20, got '0'"),
        (("--slo", "fast"), 2, "expected a percentile and a time such as p99=50ms, got 'fast'"),
        (("--slo", "p99=50"), 2, "expected a time with its unit, such as 50ms, got '50'"),
        (("-H", "no colon"), 2, "expected 'Name: value', got 'no colon'"),
        (("--rate", "1/s", "--arrivals", "poison"), 3, "did you mean 'poisson'?"),
        (("--rate", "1/s", "--arrivals", "poisson", "--cv", "2"), 3, "cv has no meaning here"),
        (("--fail-if", "p99+10%"), 3, "'p99+10%' compares with a baseline\nhint: give one: --baseline old.json"),
        (("--fail-if", "p98>3ms"), 3, "did you mean"),
        (("--fail-if", "p99>50"), 3, "'p99>50': expected a time with its unit, such as 50ms, got '50'"),
        (("--fail-if", "goodput<9/s"), 3, "there is no goodput without an SLO\nhint: give one: --slo p99=50ms"),
        (("--fail-if", "capacity<9/s"), 3, "nothing looks for the capacity\nhint: add --find-capacity"),
        (("--report", ""), 3, ".: cannot be written: is a directory"),
        (("--trace", "none.csv"), 3, "none.csv: cannot be read: No such file or directory\n"),
        (
            ("--report", "nowhere/report.html"),
            3,
            "nowhere/report.html: cannot be written: there is no folder 'nowhere'",
        ),
        (("--baseline", "old.json", "--fail-if", "p99+1%"), 3, "old.json: cannot be read"),
        (("--model", "digit"), 3, "no model is called 'digit'\nhint: did you mean 'digits'?"),
        (("--", "--max-batch-size", "3"), 2, "flags behind -- are for a file that is served here"),
    ],
)
def test_a_mistake_is_said_before_anything_runs(
    digits: RunningServer, tmp_path: Path, flags: Any, code: int, said: str
):
    done = bench(digits.url, *flags, cwd=tmp_path, code=code)
    assert said in " ".join(done.stderr.split(" "))
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


def test_no_server_is_exit_code_5():
    done = bench("127.0.0.1:1", code=5)
    assert (
        done.stderr == "error: http://127.0.0.1:1: nothing listens there\nhint: start a server: paceline serve MODEL\n"
    )


def test_a_model_that_cannot_be_loaded_is_exit_code_4(tmp_path: Path):
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    done = bench(tmp_path / "broken.onnx", *SHORT, code=4)
    assert done.stdout == ""
    assert "broken" in done.stderr


def test_a_file_that_is_not_there_is_no_host(tmp_path: Path):
    done = bench("servce.py:Shout", cwd=tmp_path, code=4)
    assert done.stdout == ""
    assert "servce.py" in done.stderr.splitlines()[-1] or "servce.py" in done.stderr.splitlines()[-2]
    assert "resolved" not in done.stderr


def test_requests_that_fail_are_counted_by_kind(tmp_path: Path):
    with doing(tmp_path) as server:
        body = tmp_path / "body.json"
        body.write_text(json.dumps({"do": "pid"}))
        load = ("--users", "2", "--timeout", "0.3s", "--duration", "1.5s", "--warm-up", "0s", "--json")
        with started(f"{server.url}/predict", "--body", body, *load) as process:
            under_load(server)
            server.process.send_signal(signal.SIGSTOP)
            try:
                stdout, _ = process.communicate(timeout=WAIT_S)
            finally:
                server.process.send_signal(signal.SIGCONT)
    (step,) = msgspec.json.decode(stdout, type=Result).steps
    assert step.errors["timeout"] >= 2
    assert step.latency.count > 0
    assert process.returncode == 0


def test_a_client_that_dies_loses_nothing_that_was_finished(digits: RunningServer):
    load = ("--users", "1,2", "--duration", "2s", "--warm-up", "0s", "--json")
    with started(digits.url, *load) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("paceline: 1 user: ")
        for pid in workers(process.pid):
            os.kill(pid, signal.SIGKILL)
        stdout, stderr = process.communicate(timeout=WAIT_S)
    assert process.returncode == 1
    result = msgspec.json.decode(stdout, type=Result)
    assert result.steps[0].label == "1 user"
    assert any("the test broke off" in warning for warning in result.warnings)
    assert stderr.startswith("error: the client's process ended with code -9")


# -- interrupted ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interruption_reports_what_was_measured(digits: RunningServer, tmp_path: Path, number: int, code: int):
    load = ("--users", "1,2", "--duration", "30s", "--warm-up", "0s", "--output", "result.json")
    with started(digits.url, *load, "--json", cwd=tmp_path) as process:
        under_load(digits)
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=WAIT_S)
    assert process.returncode == code, stderr
    result = msgspec.json.decode(stdout, type=Result)
    assert [step.label for step in result.steps] == ["1 user"]
    assert "the test was ended by hand" in result.warnings
    assert not result.steps[0].errors
    assert msgspec.json.decode((tmp_path / "result.json").read_bytes(), type=Result) == result
    assert "Traceback" not in stderr


def test_an_interruption_while_the_result_is_printed_leaves_it_whole(digits: RunningServer):
    """Nobody reads it: a pipe holds only so much, so it is still being printed."""
    load = ("--users", "1,2,3,4", *SHORT, "--quiet", "--json")
    with started(digits.url, *load) as process:
        assert process.stdout is not None
        fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, 4096)
        first = os.read(process.stdout.fileno(), 1).decode()
        process.send_signal(signal.SIGINT)
        stdout = first + process.communicate(timeout=WAIT_S)[0]
    assert process.returncode == 130
    assert len(msgspec.json.decode(stdout, type=Result).steps) == 4


def test_interrupted_twice_it_reports_nothing_and_leaves_nobody(tmp_path: Path):
    with doing(tmp_path) as server:
        body = tmp_path / "body.json"
        body.write_text(json.dumps({"do": "pid"}))
        load = ("--users", "1", "--duration", "30s", "--output", "result.json")
        with started(f"{server.url}/predict", "--body", body, *load, cwd=tmp_path) as process:
            under_load(server)
            clients = workers(process.pid)
            server.process.send_signal(signal.SIGSTOP)
            try:
                # The request that is under way has no answer: after the first it is waited for.
                process.send_signal(signal.SIGINT)
                time.sleep(0.3)  # two at once are one
                process.send_signal(signal.SIGINT)
                stdout, stderr = process.communicate(timeout=WAIT_S)
            finally:
                server.process.send_signal(signal.SIGCONT)
    assert process.returncode == 130
    assert stdout == ""
    assert "Traceback" not in stderr
    assert not (tmp_path / "result.json").exists()
    assert clients
    until(lambda: not any(map(is_alive, clients)))
