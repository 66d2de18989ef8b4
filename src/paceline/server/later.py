"""Answers that take a while to make, from a coroutine."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from paceline.core.errors import PacelineError
from paceline.server.calls import Desk
from paceline.server.http_request import JSON, HttpRequest

_tasks: set[asyncio.Task[None]] = set()  # the event loop holds them weakly


def reply_later(desk: Desk, http: HttpRequest, body: Coroutine[Any, Any, bytes], content_type: bytes = JSON) -> None:
    """Answer with what `body` returns; it must have a deadline of its own."""
    task = asyncio.get_running_loop().create_task(_reply(desk, http, body, content_type))
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)


async def _reply(desk: Desk, http: HttpRequest, body: Coroutine[Any, Any, bytes], content_type: bytes) -> None:
    try:
        desk.reply(http, 200, await body, content_type)
    except PacelineError as error:
        desk.fail(http, error)
    except Exception:
        desk.crash(http)
