"""Health and metrics.

GET /livez            200 while the process and its event loop work
GET /readyz           200 when every model is warm and the server is not draining, else 503; ?verbose lists the models
GET /healthz          the same as /readyz
GET /metrics          Prometheus text
"""

from __future__ import annotations

import re
from typing import Final

from paceline.server.app import App
from paceline.server.http1 import HttpRequest
from paceline.server.json_tensors import dumps
from paceline.server.metrics import exposition
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
        ready = app.engine.ready and not app.draining
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
        self._app.reply(http, 200, exposition(self._app), _PROMETHEUS)

    def _word(self, ready: bool) -> str:
        if ready:
            return "ok"
        if self._app.draining:
            return "draining"
        return "; ".join(entry.reason for entry in self._app.engine.entries() if entry.reason) or "loading"
