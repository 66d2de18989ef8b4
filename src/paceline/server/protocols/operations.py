"""Health and metrics.

GET /livez            200 while the process and its event loop work
GET /readyz           200 once every model is warm, while the server does not drain; else 503; ?verbose: each version
GET /healthz          the same as /readyz
GET /metrics          Prometheus text
"""

from __future__ import annotations

import re
from typing import Final

from paceline.engine.engine import Phase
from paceline.server.app import App
from paceline.server.http1 import HttpRequest
from paceline.server.json_tensors import dumps
from paceline.server.later import reply_later
from paceline.server.metrics import exposition, of_all_replicas
from paceline.server.routes import Route

_TEXT: Final = b"text/plain; charset=utf-8"
_PROMETHEUS: Final = b"text/plain; version=0.0.4; charset=utf-8"


def routes(app: App) -> list[Route]:
    """The routes of this protocol."""
    operations = _Operations(app)
    return [
        Route("GET", re.compile("/livez"), operations.livez),
        Route("GET", re.compile("/readyz|/healthz"), operations.readyz),
        Route("GET", re.compile("/metrics"), operations.metrics),
    ]


class _Operations:
    def __init__(self, app: App) -> None:
        self._app = app

    def livez(self, http: HttpRequest) -> None:
        self._app.reply(http, 200, b"ok\n", _TEXT)

    def readyz(self, http: HttpRequest) -> None:
        app = self._app
        ready = app.ready
        status = 200 if ready else 503
        if b"verbose" in http.query:
            models = [
                {
                    "model": entry.name,
                    "version": entry.version,
                    "state": entry.phase.value,
                    "reason": entry.reason,
                }
                for entry in app.engine.entries()
            ]
            app.reply(http, status, dumps({"ready": ready, "draining": app.draining, "models": models}))
            return
        app.reply(http, status, f"{self._word(ready)}\n".encode(), _TEXT)

    def metrics(self, http: HttpRequest) -> None:
        supervised = self._app.supervised
        if supervised is None:
            self._app.reply(http, 200, exposition(self._app), _PROMETHEUS)
        else:
            reply_later(self._app, http, of_all_replicas(self._app, supervised), _PROMETHEUS)

    def _word(self, ready: bool) -> str:
        if ready:
            return "ok"
        if self._app.draining:
            return "draining"
        if self._app.held_back and self._app.engine.ready:
            return "waiting for the other replicas"
        entries = self._app.engine.entries()
        if len(entries) == 1:
            return entries[0].reason
        waited_for = [entry for entry in entries if entry.phase is not Phase.AVAILABLE]
        return "; ".join(f"{entry.name} {entry.version}: {entry.reason}" for entry in waited_for) or "loading"
