"""Is the time that a request lay unread charged to its deadline, and only then?"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

import pytest

from paceline.engine.engine import Engine
from paceline.server.app import App
from paceline.server.http_request import HttpRequest, Limits


class Connection:
    """As much of a connection as a deadline depends on."""

    peer = ""

    def __init__(self, answered_at: float = 0.0) -> None:
        self.answered_at = answered_at

    def write_response(self, *answer) -> None:
        self.answer = answer


def request(connection: Connection | None = None) -> HttpRequest:
    made = HttpRequest(connection or Connection(), b"GET", b"/none", {b"x-request-timeout-ms": b"1000"}, True)
    made.received = time.monotonic()
    return made


def slack_s(app: App, connection: Connection | None = None) -> float:
    """Deadline of a request that is read now, from when it was read."""
    asked = request(connection)
    app.handle(asked)
    return app.deadline(asked) - asked.received


class Disturbed(Exception):
    """Another process had the core meanwhile."""


def compute(seconds: float) -> None:
    began, until = time.monotonic(), time.thread_time() + seconds
    while time.thread_time() < until:
        pass
    if time.monotonic() - began > 1.3 * seconds:
        raise Disturbed


async def warm_app() -> App:
    app = App(Engine(), Limits())
    app.handle(request())
    await asyncio.sleep(0)
    return app


def run(scenario) -> float:
    async def main() -> float:
        return await scenario(await warm_app())

    for _ in range(100):
        with suppress(Disturbed):
            return asyncio.run(main())
    raise Disturbed


def test_a_request_read_after_a_long_pass_has_less_time():
    async def scenario(app: App) -> float:
        compute(0.03)
        return slack_s(app)

    assert run(scenario) == pytest.approx(1.0 - 2 * 0.03, abs=0.02)


def test_an_idle_loop_left_nothing_unread_whatever_it_computed_before():
    async def scenario(app: App) -> float:
        compute(0.03)
        await asyncio.sleep(0.2)
        return slack_s(app)

    assert run(scenario) == pytest.approx(1.0)


def test_a_client_that_was_just_answered_cannot_have_asked_earlier():
    async def scenario(app: App) -> float:
        compute(0.03)
        return slack_s(app, Connection(answered_at=time.monotonic()))

    assert run(scenario) == pytest.approx(1.0, abs=0.005)


def test_the_first_request_is_not_charged_for_the_start():
    async def main() -> float:
        with suppress(Disturbed):  # then it is longer, and charged no more
            compute(0.03)
        return slack_s(App(Engine(), Limits()))

    assert asyncio.run(main()) == pytest.approx(1.0)
