"""The model repository extension of the Open Inference Protocol over REST, as Triton's clients use it.

POST /v2/repository/index                   what there is, and in what state
POST /v2/repository/models/NAME/load        load it, or load again what has changed; answered once it is available
POST /v2/repository/models/NAME/unload      take it out of service; answered at once

Rules:
- Only `--model-control-mode explicit` lets models come and go by request. The index can be read wherever there is a
  repository: what could not be loaded stands there.
- Models come from the repository alone: files and configurations in a request are refused, not ignored.
- A client that does not wait any longer does not stop what it has begun.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec

from paceline.core.errors import DeadlineExceeded, InvalidRequest, ModelNotReady, PacelineError
from paceline.engine.engine import Phase
from paceline.server.app import App
from paceline.server.calls import Desk
from paceline.server.http1 import HttpRequest
from paceline.server.json_tensors import decode, dumps
from paceline.server.routes import Route
from paceline.server.shared_repository import AnyRepository

EXTENSION: Final = "model_repository"

_ROOT: Final = r"/v2/repository(?:/[^/]+)?"
_MODEL: Final = _ROOT + r"/models/(?P<model>[^/]+)"
_STATES: Final = {
    Phase.AVAILABLE: "READY",
    Phase.LOADING: "LOADING",
    Phase.UNLOADING: "UNLOADING",
    Phase.FAILED: "UNAVAILABLE",
}


class _IndexBody(msgspec.Struct, gc=False):
    ready: bool = False


class _LoadBody(msgspec.Struct, gc=False):
    parameters: dict[str, Any] | None = None


_INDEX: Final = msgspec.json.Decoder(_IndexBody)
_LOAD: Final = msgspec.json.Decoder(_LoadBody)


def routes(app: App) -> list[Route]:
    """The routes of this extension."""
    pages = _RepositoryPages(app)
    return [
        Route("POST", re.compile(_ROOT + "/index"), pages.index),
        Route("POST", re.compile(_MODEL + "/load"), pages.load),
        Route("POST", re.compile(_MODEL + "/unload"), pages.unload),
    ]


def offered(app: App) -> bool:
    """True when models come and go by request."""
    return app.repository is not None and app.repository.mode == "explicit"


def repository_of(app: App) -> AnyRepository:
    """The repository.

    Raises:
        ModelNotReady: there is none.
    """
    if app.repository is None:
        raise ModelNotReady("explicit model load / unload is not allowed if polling is enabled")
    return app.repository


def listed(repository: AnyRepository, ready_only: bool) -> list[dict[str, str]]:
    """The index as clients see it; of a model that was never loaded, the name alone."""
    rows = []
    for row in repository.index():
        state = _STATES[row.state] if row.state is not None else "UNAVAILABLE"
        if ready_only and state != "READY":
            continue
        if row.version:
            rows.append({"name": row.name, "version": row.version, "state": state, "reason": row.reason})
        else:
            rows.append({"name": row.name, **({"reason": row.reason} if row.reason else {})})
    return rows


def refuse_overrides(parameters: Any) -> None:
    """Check that a request to load brings no model of its own.

    Raises:
        InvalidRequest: it does.
    """
    for key in parameters or ():
        if key == "config" or key.startswith("file:"):
            raise InvalidRequest(f"load parameter '{key[:80]}' is not supported: models come from the repository alone")


class _RepositoryPages:
    def __init__(self, app: App) -> None:
        self._app = app
        self._changes = Changes(app)

    def index(self, http: HttpRequest) -> None:
        repository = repository_of(self._app)
        asked = decode(http.body, _INDEX) if http.body else _IndexBody()
        self._app.reply(http, 200, dumps(listed(repository, asked.ready)))

    def load(self, http: HttpRequest, model: str) -> None:
        repository = repository_of(self._app)
        if offered(self._app):
            refuse_overrides((decode(http.body, _LOAD) if http.body else _LoadBody()).parameters)
        # KServe's server answers so; Triton's clients do not look.
        self._changes.answer(http, lambda: repository.load(model), dumps({"name": model, "load": True}))

    def unload(self, http: HttpRequest, model: str) -> None:
        repository = repository_of(self._app)
        self._changes.answer(http, lambda: repository.unload(model), dumps({"name": model, "unload": True}))


class Changes:
    """Answers requests that change the repository, once that is done.

    Args:
        desk: gives the answers.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._tasks: set[asyncio.Task[None]] = set()

    def answer(self, http: HttpRequest, change: Callable[[], Awaitable[None]], body: bytes) -> None:
        """Make the change; answer with `body`, or with what went wrong."""
        self._keep(self._change(http, self._desk.deadline(http), change, body))

    async def _change(
        self, http: HttpRequest, deadline: float, change: Callable[[], Awaitable[None]], body: bytes
    ) -> None:
        desk, work = self._desk, asyncio.ensure_future(change())
        await asyncio.wait((work,), timeout=max(0.0, deadline - time.monotonic()))
        try:
            if not work.done():
                self._keep(_finished(work))
                raise DeadlineExceeded("the deadline has passed; what was asked for goes on")
            work.result()
        except PacelineError as error:
            desk.fail(http, error)
        except Exception:
            desk.crash(http)
        else:
            desk.reply(http, 200, body)

    def _keep(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _finished(work: asyncio.Future[None]) -> None:
    """Let it end; what comes of it is said by the repository."""
    await asyncio.wait((work,))
    if not work.cancelled():
        work.exception()
