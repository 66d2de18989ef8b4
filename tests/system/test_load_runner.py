"""Does a load test end, and keep what it has measured, whatever becomes of its client and of itself?"""

from __future__ import annotations

import os
import signal
import time

import pytest

from paceline.core.errors import GeneratorFailed
from paceline.loadtest import plans, runner
from paceline.loadtest.runner import Run
from paceline.loadtest.samples import Samples
from paceline.loadtest.steps import Step
from paceline.loadtest.tally import Tally
from paceline.loadtest.terminal.live import QuietView
from support.load_client import open_loop, target, users
from support.odd_server import OddServer, Peer, ok

pytestmark = pytest.mark.slow


def answering(peer: Peer) -> None:
    for _ in peer.requests():
        peer.send(ok())


def silent(peer: Peer) -> None:
    for _ in peer.requests():
        pass


class Onlooker(QuietView):
    """Knows the client's process, and acts once some requests have ended."""

    def __init__(self) -> None:
        self.pid = 0
        self.begun_s = 0.0

    def began(self, step: Step, label: str, pid: int) -> None:
        self.pid, self.begun_s = pid, time.monotonic()


def test_a_client_that_is_killed_leaves_what_came_before() -> None:
    class Killer(Onlooker):
        def progress(self, tally: Tally, samples: Samples | None, elapsed_s: float) -> None:
            if tally.requests >= 10:
                os.kill(self.pid, signal.SIGKILL)

    with OddServer(answering) as server:
        test = Run(target(server), view=Killer())
        with pytest.raises(GeneratorFailed, match="ended with code -9"):
            test.follow(plans.fixed([users(1, duration_s=60.0)]))
    (step,) = test.steps
    assert step.requests >= 10
    assert 0.0 < step.duration_s < 60.0
    assert step.rate > 0.0


def test_who_was_stopped_for_long_finds_the_step_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-Z, and much later on again: all that the client has sent meanwhile is there to be read."""
    monkeypatch.setattr(runner, "_GRACE_S", 2.0)

    class Sleeper(Onlooker):
        def progress(self, tally: Tally, samples: Samples | None, elapsed_s: float) -> None:
            time.sleep(max(0.0, self.begun_s + 4.0 - time.monotonic()))

    with OddServer(answering) as server:
        test = Run(target(server), view=Sleeper())
        test.follow(plans.fixed([open_loop(100, duration_s=0.5, timeout_s=0.5)]))
    assert [step.requests for step in test.steps] == [50]


@pytest.mark.parametrize("warmup_s", [0.0, 0.4])
def test_a_server_that_never_answers_shows_timeouts_also_of_the_warm_up(warmup_s: float) -> None:
    with OddServer(silent) as server:
        test = Run(target(server))
        test.follow(plans.fixed([users(4, warmup_s=warmup_s, duration_s=0.5, timeout_s=1.5)]))
    (step,) = test.steps
    assert step.errors == {"timeout": 4}


def test_requests_that_had_no_answer_when_the_test_was_ended_are_told() -> None:
    class Ender(Onlooker):
        def progress(self, tally: Tally, samples: Samples | None, elapsed_s: float) -> None:
            if elapsed_s > 0.5:
                test.end()

    with OddServer(silent) as server:
        test = Run(target(server), view=Ender())
        test.follow(plans.fixed([users(3, duration_s=60.0)]))
    assert test.notes[0].startswith("3 users: 3 requests were under way for up to ")
    assert test.notes[0].endswith("when it was ended, and count nowhere")
