"""Open Inference Protocol v2 over REST, as KServe specifies it and Triton's clients expect it.

GET  /v2                                              name, version and extensions of the server
GET  /v2/health/live, /v2/health/ready
GET  /v2/models/NAME[/versions/N][/ready|config|stats]
GET  /v2/models/stats
POST /v2/models/NAME[/versions/N]/infer
POST /v2/repository/...                               see oip_repository

Rules:
- Health answers carry JSON: KServe's client reads it, Triton's looks at the status alone.
- `extensions` lists what is implemented and no more, for clients use whatever it names.
- Where Triton answers 500 to a client's mistake, this answers 400 with the same text.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Final

from paceline import __version__
from paceline.config.settings import ServeSettings
from paceline.engine.engine import Entry, Phase
from paceline.engine.model import ServedModel
from paceline.server.app import App
from paceline.server.calls import Inference, PerModel
from paceline.server.content import require_json
from paceline.server.http1 import HttpRequest
from paceline.server.json_tensors import dumps
from paceline.server.later import reply_later
from paceline.server.protocols import oip_repository
from paceline.server.protocols.oip_binary import HEADER, OCTETS
from paceline.server.protocols.oip_infer import Codec
from paceline.server.protocols.oip_metadata import config, metadata
from paceline.server.protocols.oip_statistics import answer_replicas, of_all_replicas
from paceline.server.routes import Route

_EXTENSIONS: Final = ("binary_tensor_data", "classification", "model_configuration", "statistics")
_MODEL: Final = r"/v2/models/(?P<model>[^/]+)(?:/versions/(?P<version>[0-9]+))?"
_TIMEOUT_HEADER: Final = b"x-request-timeout-ms"


def routes(app: App, settings: ServeSettings) -> list[Route]:
    """The routes of this protocol."""
    oip = _Oip(app, settings)
    answer_replicas(app)

    def route(method: str, path: str, handler: Callable[..., None]) -> Route:
        return Route(method, re.compile(path), handler)

    return [
        route("POST", _MODEL + "/infer", oip.infer),
        route("GET", "/v2/?", oip.server),
        route("GET", "/v2/health/live", oip.live),
        route("GET", "/v2/health/ready", oip.ready),
        # Before the metadata of a model, which could be called "stats".
        route("GET", "/v2/models/stats", oip.all_statistics),
        route("GET", _MODEL, oip.model),
        route("GET", _MODEL + "/ready", oip.model_ready),
        route("GET", _MODEL + "/config", oip.model_config),
        route("GET", _MODEL + "/stats", oip.model_statistics),
        *oip_repository.routes(app),
    ]


class _Oip:
    def __init__(self, app: App, settings: ServeSettings) -> None:
        self._app = app
        self._settings = settings
        self._codecs = PerModel(_codec)

    def infer(self, http: HttpRequest, model: str, version: str | None = None) -> None:
        """POST .../infer."""
        _require_readable(http)
        call = Inference(self._app, http, self._app.engine.model(model, version), "oip")
        codec = self._codecs[call.model]
        asked = codec.read(http.body, http.headers.get(HEADER))
        if asked.timeout_s:
            call.expire_after(asked.timeout_s, at_most=_TIMEOUT_HEADER in http.headers)
        call.start(asked.inputs, partial(codec.write, asked))

    def server(self, http: HttpRequest) -> None:
        """GET /v2."""
        name = self._settings.server_name
        self._app.reply(http, 200, dumps({"name": name, "version": __version__, "extensions": extensions(self._app)}))

    def live(self, http: HttpRequest) -> None:
        """GET /v2/health/live."""
        self._app.reply(http, 200, b'{"live":true}')

    def ready(self, http: HttpRequest) -> None:
        """GET /v2/health/ready."""
        ready = self._app.ready
        self._app.reply(http, 200 if ready else 503, dumps({"ready": ready}))

    def model(self, http: HttpRequest, model: str, version: str | None = None) -> None:
        """GET /v2/models/NAME."""
        entry, _ = self._served(model, version)
        self._app.reply(http, 200, dumps(metadata(entry, self._app.engine.available(entry.name))))

    def model_ready(self, http: HttpRequest, model: str, version: str | None = None) -> None:
        """GET /v2/models/NAME/ready."""
        entry = self._app.engine.entry(model, version)
        ready = entry.phase is Phase.AVAILABLE and not self._app.draining
        self._app.reply(http, 200 if ready else 503, dumps({"name": entry.name, "ready": ready}))

    def model_config(self, http: HttpRequest, model: str, version: str | None = None) -> None:
        """GET /v2/models/NAME/config."""
        entry, served = self._served(model, version)
        self._app.reply(http, 200, dumps(config(entry, served.prepared)))

    def model_statistics(self, http: HttpRequest, model: str, version: str | None = None) -> None:
        """GET /v2/models/NAME/stats."""
        _, served = self._served(model, version)
        reply_later(self._app, http, self._statistics([served]))

    def all_statistics(self, http: HttpRequest) -> None:
        """GET /v2/models/stats."""
        served = [entry.served for entry in self._app.engine.entries() if entry.served is not None]
        reply_later(self._app, http, self._statistics(served))

    async def _statistics(self, models: list[ServedModel]) -> bytes:
        return dumps({"model_stats": await of_all_replicas(self._app, models)})

    def _served(self, name: str, version: str | None) -> tuple[Entry, ServedModel]:
        """The version asked for, once its warm-up has settled what it is like."""
        return self._app.engine.entry(name, version), self._app.engine.model(name, version)


def extensions(app: App) -> list[str]:
    """What is implemented, and switched on."""
    return sorted((*_EXTENSIONS, oip_repository.EXTENSION) if oip_repository.offered(app) else _EXTENSIONS)


def _codec(model: ServedModel) -> Codec:
    return Codec(model.name, model.version, model.signature, model.nonfinite)


def _require_readable(http: HttpRequest) -> None:
    # aiohttp says octet-stream of any body in bytes, so clients send JSON under that name too.
    if http.headers.get(b"content-type") != OCTETS:
        require_json(http)
