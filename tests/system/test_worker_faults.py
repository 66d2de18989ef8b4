"""What of a worker's misfortunes does a client notice? User code that dies, hangs, leaks and misbehaves, for real."""

import json
import os
import re
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from paceline.testing import RunningServer, run_server
from support.doing import do, doing, full_strength, is_alive, marked, request, workers
from support.load import load
from support.wire import Wire, ask, get, metric, post, until

pytestmark = pytest.mark.slow


def readiness(server: RunningServer) -> int:
    return ask(server, get("/readyz")).status


def restarts(server: RunningServer, reason: str = "") -> float:
    return metric(server, "paceline_worker_restarts_total", **({"reason": reason} if reason else {}))


# -- dying ----------------------------------------------------------------------------------------------------


def test_fault_89_an_idle_worker_that_is_killed_is_replaced(tmp_path):
    with doing(tmp_path) as server:
        victim, other = workers(server)
        os.kill(victim, signal.SIGKILL)
        until(lambda: metric(server, "paceline_workers") == 1, timeout_s=2)
        assert do(server, "pid").json == other
        full_strength(server)
        assert restarts(server, "died") == 1
        assert f"doing: worker {victim} died: killed by SIGKILL; a new one starts now" in server.output


def test_fault_89_what_a_killed_worker_was_doing_is_done_once_more_at_once(tmp_path):
    with doing(tmp_path) as server, ThreadPoolExecutor(1) as pool:
        answer = pool.submit(do, server, "sleep", 0.5, mark=tmp_path / "mark")
        victim = marked(tmp_path / "mark")
        os.kill(victim, signal.SIGKILL)
        killed = time.monotonic()
        assert answer.result().status == 200
        assert answer.result().json != victim
        assert time.monotonic() - killed < 5


def test_fault_89_without_retry_lost_the_client_is_told_at_once(tmp_path):
    with doing(tmp_path, "--no-retry-lost") as server, ThreadPoolExecutor(1) as pool:
        answer = pool.submit(do, server, "sleep", 60, mark=tmp_path / "mark", timeout_ms=100_000)
        os.kill(marked(tmp_path / "mark"), signal.SIGKILL)
        killed = time.monotonic()
        assert (answer.result().status, answer.result().json["code"]) == (503, "instance_lost")
        assert time.monotonic() - killed < 5


def test_fault_89_under_load_nothing_is_lost(tmp_path):
    with doing(tmp_path, "--no-deduplicate") as server:
        body = json.dumps({"do": "sleep", "with": [0.001]}).encode()
        with load(server.host, server.port, body) as traffic:
            for number in range(3):
                answered = traffic.answered
                until(lambda answered=answered: traffic.answered > answered + 50)
                os.kill(workers(server)[0], signal.SIGKILL)
                until(lambda number=number: restarts(server) == number + 1)
                full_strength(server)
        assert traffic.failed == []


def test_fault_89_the_only_worker_is_missed_and_waited_for(tmp_path):
    with doing(tmp_path, "--instances", "1") as server:
        (victim,) = workers(server)
        os.kill(victim, signal.SIGSTOP)  # so that what comes now waits for its successor
        with ThreadPoolExecutor(4) as pool:
            answers = [pool.submit(do, server, "pid") for _ in range(4)]
            os.kill(victim, signal.SIGKILL)
            assert {answer.result().status for answer in answers} == {200}
        assert do(server, "pid").json != victim


@pytest.mark.parametrize(("deed", "how"), [("segfault", "killed by SIGSEGV"), ("os._exit", "it exited with 3")])
def test_fault_92_93_a_worker_that_ends_itself_is_replaced_and_the_log_says_how(tmp_path, deed, how):
    with doing(tmp_path) as server:
        assert do(server, deed).json["code"] == "quarantined"
        assert do(server, "pid").status == 200
        full_strength(server)
        assert len(re.findall(rf"paceline: doing: worker \d+ died: {how}", server.output)) == 2


@pytest.mark.parametrize("deed", ["raise", "sys.exit", "recurse", "too much memory"])
def test_fault_93_what_user_code_raises_is_an_answer(tmp_path, deed):
    with doing(tmp_path) as server:
        before = workers(server)
        for _ in range(3):
            answer = do(server, deed)
            assert (answer.status, answer.json["code"]) == (500, "model_failed")
        assert workers(server) == before
        assert do(server, "pid").status == 200


@pytest.mark.parametrize("deed", ["break the protocol", "close the channel"])
def test_a_worker_that_breaks_the_protocol_ends_alone(tmp_path, deed):
    with doing(tmp_path) as server:
        assert do(server, deed).status == 422
        assert do(server, "pid").status == 200
        full_strength(server)
        how = {"break the protocol": "it broke the protocol", "close the channel": "it closed its channel"}[deed]
        assert server.output.count(f"died: {how}") == 2
        assert "Traceback" not in server.output


# -- hanging --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("deed", ["loop", "hold the gil"])
def test_fault_90_a_hang_ends_at_the_deadline_and_its_worker_at_run_timeout(tmp_path, deed):
    with doing(tmp_path, "--run-timeout-ms", "1500") as server, ThreadPoolExecutor(1) as pool:
        started = time.monotonic()
        hanging = pool.submit(do, server, deed, mark=tmp_path / "mark", timeout_ms=500)
        victim = marked(tmp_path / "mark")
        assert do(server, "pid").status == 200
        assert (hanging.result().status, hanging.result().json["code"]) == (504, "deadline_exceeded")
        assert time.monotonic() - started < 1.5
        until(lambda: not is_alive(victim))
        full_strength(server)
        assert restarts(server, "hung") == 1
        assert f"worker {victim} died: killed, for a batch ran longer than 1.5 s" in server.output


def test_fault_91_a_worker_that_is_stopped_is_replaced_within_two_seconds(tmp_path):
    with doing(tmp_path) as server:
        victim, _ = workers(server)
        os.kill(victim, signal.SIGSTOP)
        stopped = time.monotonic()
        until(lambda: not is_alive(victim))
        assert time.monotonic() - stopped < 4  # on a machine that does nothing else: 1.5 s
        full_strength(server)
        assert restarts(server, "stopped") == 1


def test_fault_91_what_a_stopped_worker_was_doing_is_done_by_another_and_blamed_on_nobody(tmp_path):
    with doing(tmp_path) as server, ThreadPoolExecutor(1) as pool:
        answer = pool.submit(do, server, "sleep", 0.3, mark=tmp_path / "mark")
        victim = marked(tmp_path / "mark")
        os.kill(victim, signal.SIGSTOP)
        assert answer.result().status == 200
        assert answer.result().json != victim
        assert metric(server, "paceline_quarantined_rows") == 0


# -- leaking --------------------------------------------------------------------------------------------------


def test_fault_94_a_worker_that_leaks_is_recycled_without_loss(tmp_path):
    flags = ["--worker-memory-mb", "250", "--no-deduplicate"]
    with doing(tmp_path, *flags) as server:
        first = set(workers(server))
        body = json.dumps({"do": "leak", "with": [10]}).encode()
        with load(server.host, server.port, body, clients=4) as traffic:
            until(lambda: restarts(server, "memory") >= 4, timeout_s=60)
            most = metric(server, "paceline_worker_resident_memory_bytes")
        assert traffic.failed == []
        assert most < 4 * 2 * (250 << 20)
        full_strength(server)
        until(lambda: len(workers(server)) == 2)
        assert not first & set(workers(server))


def test_fault_94_a_limit_that_is_too_low_from_the_start_is_an_error_that_says_so(tmp_path):
    with doing(tmp_path, "--worker-memory-mb", "5", ready=False) as server:
        until(lambda: "more than worker_memory_mb=5" in server.output)
        assert readiness(server) == 503
        assert workers(server) == []


# -- dying again and again ------------------------------------------------------------------------------------

CRASHES_WHILE = """
if os.path.exists({file!r}):
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_fault_95_a_service_that_cannot_start_again_is_tried_later_and_later(tmp_path):
    file = tmp_path / "crash"
    with doing(tmp_path, "--instances", "1", code=CRASHES_WHILE.format(file=str(file))) as server:
        file.touch()
        (victim,) = workers(server)
        os.kill(victim, signal.SIGKILL)
        until(lambda: "tried again in 1 s" in server.output)
        assert readiness(server) == 503
        refused = do(server, "pid", timeout_ms=100)
        assert (refused.status, refused.json["code"]) == (503, "no_worker")
        assert int(refused.headers["retry-after"]) >= 1
        assert server.output.count("could not be started") <= 4
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(do, server, "pid")
            file.unlink()
            assert waiting.result().status == 200
        assert readiness(server) == 200


def test_fault_95_a_service_that_dies_of_everything_is_no_busy_loop(tmp_path):
    with doing(tmp_path, "--instances", "1") as server, ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda n: do(server, "die", n, timeout_ms=4000), range(20)))
        assert {answer.status for answer in answers} <= {422, 503, 504}
        assert restarts(server) < 8
        until(lambda: do(server, "pid").status == 200, timeout_s=30)
        assert readiness(server) == 200


# -- misbehaving ----------------------------------------------------------------------------------------------


def test_fault_96_code_that_changes_its_process_changes_nothing_else(tmp_path):
    with doing(tmp_path, "--instances", "1") as server:
        before = workers(server)
        for _ in range(3):
            assert do(server, "change everything").status == 200
            assert do(server, "pid").json == before[0]
        assert "noise" in server.output
        assert server.terminate() == 0


def test_fault_97_what_a_worker_has_started_goes_with_it(tmp_path):
    with doing(tmp_path) as server:
        child = do(server, "start a child").json
        assert is_alive(child)
        for pid in workers(server):
            os.kill(pid, signal.SIGKILL)
        until(lambda: not is_alive(child))
        full_strength(server)
        child = do(server, "start a child").json
        assert server.terminate() == 0
        until(lambda: not is_alive(child))


def test_fault_97_no_worker_outlives_a_server_that_is_killed(tmp_path):
    with doing(tmp_path) as server, ThreadPoolExecutor(1) as pool:
        idle_and_busy = workers(server)
        lost = pool.submit(do, server, "loop", mark=tmp_path / "mark")
        marked(tmp_path / "mark")
        server.process.kill()
        until(lambda: not any(map(is_alive, idle_and_busy)))
        assert lost.exception() is not None


def test_fault_98_a_request_that_kills_twice_is_not_run_again(tmp_path):
    with doing(tmp_path) as server:
        answer = do(server, "die", 1)
        assert (answer.status, answer.json["code"]) == (422, "quarantined")
        until(lambda: restarts(server) == 2)
        full_strength(server)
        for _ in range(3):
            assert do(server, "die", 1).json["code"] == "quarantined"
        assert restarts(server) == 2
        assert metric(server, "paceline_quarantined_rows") == 1
        assert metric(server, "paceline_requests_total", outcome="quarantined") == 4
        assert do(server, "pid").status == 200


def test_fault_98_only_the_guilty_row_of_a_batch_is_refused(tmp_path):
    with doing(tmp_path) as server:
        items = [{"do": "sleep", "with": [0.001 * n]} for n in range(8)]
        items[5] = {"do": "die"}
        for _ in range(2):
            answer = ask(server, post(json.dumps(items).encode(), target="/batch-predict"))
            assert answer.status == 200
            codes = [row["code"] if isinstance(row, dict) else "ok" for row in json.loads(answer.body)]
            assert codes == ["ok"] * 5 + ["quarantined"] + ["ok"] * 2
            assert restarts(server) == 2


def test_fault_98_requests_that_waited_with_the_guilty_one_do_not_run_either(tmp_path):
    with doing(tmp_path, "--no-deduplicate", "--max-batch-size", "1") as server, ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda _: do(server, "die"), range(12)))
        assert {answer.json["code"] for answer in answers} == {"quarantined"}
        assert restarts(server) <= 4


def test_fault_98_a_popular_request_is_not_blamed_for_workers_that_others_killed(tmp_path):
    with doing(tmp_path, "--max-batch-size", "1", "--no-deduplicate") as server:
        body = json.dumps({"do": "sleep", "with": [0.005]}).encode()
        with load(server.host, server.port, body) as traffic:
            for number in range(3):
                os.kill(workers(server)[0], signal.SIGKILL)
                until(lambda number=number: restarts(server) == number + 1)
                full_strength(server)
                answered = traffic.answered
                until(lambda answered=answered: traffic.answered > answered + 20)
        assert traffic.failed == []


def test_fault_98_without_retry_lost_two_requests_convict(tmp_path):
    with doing(tmp_path, "--no-retry-lost") as server:
        codes = []
        for _ in range(3):
            full_strength(server)
            codes.append(do(server, "die").json["code"])
        assert codes == ["instance_lost", "quarantined", "quarantined"]


def test_fault_99_a_worker_is_a_program_of_its_own_and_told_how_many_threads_to_use(tmp_path):
    with doing(tmp_path, "--threads", "3", env={"OMP_NUM_THREADS": "2"}) as server:
        portrait = do(server, "self-portrait").json
        assert portrait["parent"] == server.process.pid
        assert portrait["threads"] == 1
        assert not portrait["server"], "it holds a copy of the server"
        assert portrait["omp"] == "2", "what the operator sets himself stands"
        assert "warning: OMP_NUM_THREADS=2 in the environment, not threads=3" in server.output
        assert "warning: 2 instances x 3 threads are more than the" in server.output


# -- starting and stopping ------------------------------------------------------------------------------------

SLOW_SETUP = """
class Doing:
    def setup(self):
        open({mark!r}, "w").write(str(os.getpid()))
        time.sleep(600)
    def predict(self, batch):
        return batch
del predict
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_fault_88_a_signal_during_the_setup_ends_everything(tmp_path, number):
    code = SLOW_SETUP.format(mark=str(tmp_path / "mark"))
    with doing(tmp_path, code=code, ready=False) as server:
        marked(tmp_path / "mark")
        started_workers = workers(server)
        assert started_workers != []
        told = time.monotonic()
        server.process.send_signal(number)
        assert server.process.wait(10) == 0
        assert time.monotonic() - told < 5
        until(lambda: not any(map(is_alive, started_workers)))


def test_fault_88_a_stop_does_not_wait_for_a_worker_that_is_being_replaced(tmp_path):
    mark = tmp_path / "mark"
    code = f"if os.path.exists({str(mark)!r}):\n    time.sleep(600)\n"
    with doing(tmp_path, code=code) as server:
        mark.touch()
        victim, _ = workers(server)
        os.kill(victim, signal.SIGKILL)
        until(lambda: restarts(server) == 1 and len(workers(server)) == 2)
        told = time.monotonic()
        assert server.terminate() == 0
        assert time.monotonic() - told < 5


@pytest.mark.parametrize(
    ("code", "flags", "why"),
    [
        ("class Doing:\n    def setup(self):\n        raise OSError('no database')\n", [], "no database"),
        (SLOW_SETUP.format(mark="/dev/null"), ["--setup-timeout-s", "1.5"], "initialising took longer than"),
        ("class Doing:\n    def setup(self):\n        os._exit(7)\n", [], "it exited with 7"),
    ],
)
def test_fault_9_a_setup_that_fails_leaves_the_server_live_not_ready_and_without_workers(tmp_path, code, flags, why):
    body = "    def predict(self, batch):\n        return batch\ndel predict\n"
    code = code if "predict" in code else code + body
    with doing(tmp_path, *flags, code=code, ready=False) as server:
        until(lambda: why in server.output)
        answer = ask(server, get("/readyz?verbose"))
        assert answer.status == 503
        assert why in answer.body.decode()
        assert ask(server, get("/livez")).status == 200
        assert workers(server) == []
        assert server.terminate() == 0


def test_a_stop_lets_busy_workers_finish_within_the_grace_time(tmp_path):
    with doing(tmp_path) as server, Wire(server) as wire:
        wire.send(request("sleep", 1, mark=tmp_path / "mark"))
        marked(tmp_path / "mark")
        server.process.send_signal(signal.SIGTERM)
        assert wire.response().status == 200
        assert server.process.wait(5) == 0


def test_a_stop_ends_workers_that_go_on_for_longer(tmp_path):
    with doing(tmp_path, "--grace-ms", "200") as server, Wire(server) as wire:
        wire.send(request("loop", mark=tmp_path / "mark"))
        pids = workers(server)
        marked(tmp_path / "mark")
        assert server.terminate() == 0
        assert wire.rest() == b""
        until(lambda: not any(map(is_alive, pids)))


def test_replicas_have_workers_of_their_own(tmp_path):
    with doing(tmp_path, "--replicas", "2", "--instances", "1") as server:
        pids = {do(server, "pid").json for _ in range(40)}
        assert len(pids) == 2
        replicas = workers(server)
        os.kill(pids.pop(), signal.SIGKILL)
        until(lambda: metric(server, "paceline_worker_restarts_total", reason="died") == 1)
        os.kill(replicas[0], signal.SIGKILL)
        until(lambda: len([pid for pid in workers(server) if workers(pid)]) == 2, timeout_s=30)
        assert do(server, "pid").status == 200


def test_fault_85_a_version_that_is_replaced_takes_its_workers_with_it(tmp_path):
    folder = tmp_path / "models" / "doing"
    (folder / "1").mkdir(parents=True)
    code = "import os\ndef predict(batch):\n    return [[{version}, os.getpid()] for _ in batch]\n"
    (folder / "1" / "service.py").write_text(code.format(version=1))
    with run_server(tmp_path / "models", ["--warmup-s", "0", "--repository-poll-s", "0.1"]) as server:
        body = post(b"0", target="/models/doing/predict")
        version, pid = json.loads(ask(server, body).body)
        assert version == 1
        before = workers(server)
        assert pid in before
        (tmp_path / "2").mkdir()
        (tmp_path / "2" / "service.py").write_text(code.format(version=2))
        (tmp_path / "2").rename(folder / "2")
        until(lambda: json.loads(ask(server, body).body)[0] == 2, timeout_s=30)
        until(lambda: not any(map(is_alive, before)))
