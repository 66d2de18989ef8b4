"""Azure ML: online endpoints (`init` and `run`) and Studio web services.

POST /score           the body, as it is -> what `run` returned; any method, where `run` takes the whole request
GET  /                Healthy, where a scoring script is served and ready
GET  /swagger.json    Swagger 2.0 of what is served here; ?version=3: OpenAPI 3.0
POST /execute         {"Inputs": ..., "GlobalParameters": ...} -> {"Results": ...}; ?details=true, ?format=swagger

Rules:
- `/models/NAME/score` and `/models/NAME/execute` name the model where several are served. The addresses of Studio,
  `/workspaces/ID/services/ID/execute`, are answered, too.
- Errors have Paceline's status codes and what Azure's clients look for: `message` and the header
  `x-ms-run-function-failed` for scoring scripts, Studio's object `error` for Studio modules.
- A failure of the user's code is 500, also where Studio says 400: the client can do nothing about it.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import parse_qs

from paceline.core.errors import InstanceLost, ModelFailed, ModelNotReady, PacelineError
from paceline.core.requests import InferRequest
from paceline.core.tensors import column
from paceline.engine.hosted import HostedModel
from paceline.server.app import App
from paceline.server.calls import Body, Encoded, Inference
from paceline.server.http1 import JSON, HttpRequest
from paceline.server.json_tensors import dumps
from paceline.server.protocols import azure_raw, azure_studio, azure_swagger, item_codec
from paceline.server.routes import ANY_METHOD, Route, Unrouted
from paceline.server.status import Rejection

_MODEL: Final = r"(?:/models/(?P<model>[^/]+))?"
_STUDIO: Final = r"(?:/models/(?P<model>[^/]+)|/workspaces/[^/]+/services/[^/]+)?"
_TEXT: Final = b"text/plain; charset=utf-8"
_FAILED: Final = b"x-ms-run-function-failed: %s\r\n"


def routes(app: App) -> list[Route]:
    """The routes of this protocol."""
    azure = _Azure(app)
    return [
        Route(ANY_METHOD, re.compile(_MODEL + "/score"), azure.score),
        Route("POST", re.compile(_STUDIO + "/execute"), azure.execute),
        Route("GET", re.compile("/"), azure.healthy),
        Route("GET", re.compile(r"/swagger\.json"), azure.swagger),
    ]


class _Azure:
    def __init__(self, app: App) -> None:
        self._app = app

    def score(self, http: HttpRequest, model: str | None = None) -> None:
        """Any method on /score."""
        desk = _ScoreDesk(self._app)
        try:
            served = self._served(model, "score")
            if served.about.raw:
                azure_raw.start(desk, http, served)
            elif http.method == b"POST":
                Inference(desk, http, served, "azure").start(item_codec.one(http.body), _scored)
            else:
                raise Unrouted(Rejection(405, "method_not_allowed", "Method Not Allowed", b"allow: POST\r\n"))
        except PacelineError as error:
            desk.fail(http, error)

    def execute(self, http: HttpRequest, model: str | None = None) -> None:
        """POST /execute."""
        query = parse_qs(http.query.decode("latin-1"))
        wanted = azure_studio.Wanted(
            details=query.get("details", [""])[-1].lower() == "true",
            as_objects=query.get("format", [""])[-1].lower() == "swagger",
        )
        desk = _StudioDesk(self._app)

        def encode(request: InferRequest) -> Encoded:
            prediction = item_codec.prediction(request)
            return azure_studio.results(prediction, wanted), JSON, b""

        try:
            call = Inference(desk, http, self._served(model, "execute"), "azure")
            call.start((column([azure_studio.item(http.body)]),), encode)
        except PacelineError as error:
            desk.fail(http, error)

    def healthy(self, http: HttpRequest) -> None:
        """GET /."""
        if not any("score" in each.about.routes for each in self._hosted()):
            raise Unrouted(Rejection(404, "not_found", "Not Found"))
        if self._app.ready:
            self._app.reply(http, 200, b"Healthy", _TEXT)
        else:
            self._app.fail(http, ModelNotReady("not ready"))

    def swagger(self, http: HttpRequest) -> None:
        """GET /swagger.json."""
        hosted = [each for each in self._hosted() if each.about.routes]
        if not hosted:
            raise Unrouted(Rejection(404, "not_found", "Not Found"))
        version = parse_qs(http.query.decode("latin-1")).get("version", ["2"])[-1]
        document = azure_swagger.document(hosted, version)
        if document is None:
            known = ", ".join(azure_swagger.VERSIONS)
            raise Unrouted(Rejection(404, "not_found", f"version: expected one of {known}, got {version[:20]!r}"))
        self._app.reply(http, 200, dumps(document))

    def _served(self, model: str | None, route: str) -> HostedModel:
        """The model, if its code has this contract."""
        served = self._app.engine.model(model)
        if not isinstance(served, HostedModel) or route not in served.about.routes:
            kind = "scoring script (init and run)" if route == "score" else "Studio module"
            text = f"model '{served.name}' is no {kind}: POST to /predict"
            raise Unrouted(Rejection(404, "not_found", text))
        return served

    def _hosted(self) -> list[HostedModel]:
        found = [entry.served for entry in self._app.engine.entries()]
        return [each for each in found if isinstance(each, HostedModel)]


class _Desk:
    """Answers as `App` does; subclasses say what errors look like."""

    def __init__(self, app: App) -> None:
        self._app = app

    def deadline(self, call: HttpRequest, /) -> float:
        return self._app.deadline(call)

    def reply(
        self, call: HttpRequest, status: int, body: Body, content_type: bytes = JSON, extra: bytes = b"", /
    ) -> None:
        self._app.reply(call, status, body, content_type, extra)

    def fail(self, call: HttpRequest, error: PacelineError, /) -> None:
        raise NotImplementedError

    def crash(self, call: HttpRequest, /) -> None:
        self._app.crash(call)


class _ScoreDesk(_Desk):
    """What clients of Azure's inference server look for."""

    def fail(self, call: HttpRequest, error: PacelineError, /) -> None:
        status, body, extra = self._app.told(call, error)
        failed = isinstance(error, ModelFailed | InstanceLost)
        message = dumps(azure_raw.member(body, "error"))
        self._app.reply(
            call, status, body[:-1] + b',"message":' + message + b"}", JSON, extra + _FAILED % _word(failed)
        )


class _StudioDesk(_Desk):
    """What clients of a Studio web service look for."""

    def fail(self, call: HttpRequest, error: PacelineError, /) -> None:
        status, body, extra = self._app.told(call, error)
        self._app.reply(call, status, azure_studio.error(error, status, body), JSON, extra)


def _scored(request: InferRequest) -> Encoded:
    prediction = item_codec.prediction(request)
    return prediction, JSON, _FAILED % _word(False)


def _word(value: bool) -> bytes:
    return b"True" if value else b"False"
