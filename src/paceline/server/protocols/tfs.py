"""TensorFlow Serving's REST API.

POST /v1/models/NAME:predict              rows under `instances`, or whole tensors under `inputs`
POST /v1/models/NAME:classify, :regress   named features under `examples`, where the outputs are of that kind
GET  /v1/models/NAME                      the state of its versions
GET  /v1/models/NAME/metadata             its signature
GET  /v1/models                           the models

Rules:
- `/versions/N` or `/labels/L` may follow the name. The words of the path may be in any case, the verbs not.
- What the body says about itself does not matter: `curl -d` calls everything a form.
- `merged` answers so that KServe's and OpenAI's clients find what they look for too; `tfs` answers as
  TensorFlow Serving does, which claims everything below /v1/ and writes NaN and Infinity as bare tokens.
"""

from __future__ import annotations

import re
import time
from typing import Any, Final, NamedTuple

from paceline.config.settings import ServeSettings
from paceline.core.errors import InvalidRequest
from paceline.core.requests import InferRequest
from paceline.engine.engine import Phase
from paceline.engine.model import ServedModel
from paceline.server.app import App
from paceline.server.calls import Encoded, Inference, PerModel
from paceline.server.http1 import JSON, HttpRequest
from paceline.server.json_tensors import dumps
from paceline.server.protocols import tfs_items
from paceline.server.protocols.tfs_answers import Answers, classified_by, regressed_by
from paceline.server.protocols.tfs_models import find, find_served, find_versions, signatures, state
from paceline.server.protocols.tfs_requests import RequestReader
from paceline.server.routes import ANY_METHOD, Route

_TARGET: Final = (
    r"(?i:/v1/models/)(?P<model>[^/:]+)"
    r"(?:(?i:/versions/)(?P<version>[0-9]+)|(?i:/labels/)(?P<label>[^/:]+))?"
)
_INT64_DIGITS: Final = 19
_INT64_MAX: Final = (1 << 63) - 1


def routes(app: App, settings: ServeSettings) -> list[Route]:
    """The routes of this protocol."""
    strict = settings.v1_dialect == "tfs"
    tfs = _TensorFlowServing(app, strict)
    table = [
        Route("POST", re.compile(_TARGET + ":predict"), tfs.predict),
        Route("POST", re.compile(_TARGET + ":classify"), tfs.classify),
        Route("POST", re.compile(_TARGET + ":regress"), tfs.regress),
        Route("GET", re.compile(_TARGET), tfs.status),
        Route("GET", re.compile(_TARGET + "(?i:/metadata)"), tfs.metadata),
        Route("GET", re.compile("(?i:/v1/models)"), tfs.models),
    ]
    if strict:
        table.append(Route(ANY_METHOD, re.compile("(?i:/v1/).*", re.DOTALL), tfs.malformed))
    return table


class _Codec(NamedTuple):
    reader: RequestReader
    answers: Answers


class _TensorFlowServing:
    def __init__(self, app: App, strict: bool) -> None:
        self._app = app
        self._strict = strict
        self._codecs = PerModel(self._codec)
        self._since = int(time.time())

    # -- inference ----------------------------------------------------------------------------------------

    def predict(self, http: HttpRequest, model: str, version: str | None = None, label: str | None = None) -> None:
        """POST :predict."""
        call, codec = self._call(http, model, version, label)
        if call.model.signature.items:
            inputs, encode_items = tfs_items.read(http.body)
            call.start(inputs, encode_items)
            return
        inputs, in_rows = codec.reader.predict(http.body)
        write = codec.answers.rows if in_rows else codec.answers.columns

        def encode(request: InferRequest) -> Encoded:
            return write(request.outputs or ()), JSON, b""

        call.start(inputs, encode)

    def classify(self, http: HttpRequest, model: str, version: str | None = None, label: str | None = None) -> None:
        """POST :classify."""
        call, codec = self._call(http, model, version, label)
        scores, labels = classified_by(call.model.signature, model)

        def encode(request: InferRequest) -> Encoded:
            return codec.answers.classification(request.outputs or (), scores, labels), JSON, b""

        call.start(codec.reader.examples(http.body), encode)

    def regress(self, http: HttpRequest, model: str, version: str | None = None, label: str | None = None) -> None:
        """POST :regress."""
        call, codec = self._call(http, model, version, label)
        index = regressed_by(call.model.signature, model)

        def encode(request: InferRequest) -> Encoded:
            return codec.answers.regression(request.outputs or (), index), JSON, b""

        call.start(codec.reader.examples(http.body), encode)

    # -- about models -------------------------------------------------------------------------------------

    def status(self, http: HttpRequest, model: str, version: str | None = None, label: str | None = None) -> None:
        """GET the state of one version, or of all, newest first."""
        entries = find_versions(self._app.engine, model, _number(version), label)
        body: dict[str, Any] = {"model_version_status": [state(entry) for entry in entries]}
        if not self._strict:
            available = any(entry.phase is Phase.AVAILABLE for entry in entries)
            body |= {"name": model, "ready": available and not self._app.draining}
        self._app.reply(http, 200, dumps(body))

    def metadata(self, http: HttpRequest, model: str, version: str | None = None, label: str | None = None) -> None:
        """GET the signature."""
        engine = self._app.engine
        entry = find(engine, model, _number(version), label)
        spec = {"name": entry.name, "signature_name": "", "version": entry.version}
        # Its one field has the same name: that is twice in the answer.
        body = {"model_spec": spec, "metadata": {"signature_def": signatures(engine, entry)}}
        self._app.reply(http, 200, dumps(body))

    def models(self, http: HttpRequest) -> None:
        """GET the list of models."""
        if self._strict:
            raise InvalidRequest("Missing model name in request.")
        names = self._app.engine.names()
        data = [{"id": name, "object": "model", "created": self._since, "owned_by": "paceline"} for name in names]
        self._app.reply(http, 200, dumps({"models": names, "object": "list", "data": data}))

    def malformed(self, http: HttpRequest) -> None:
        """Everything else below /v1/, as TensorFlow Serving answers it."""
        method, path = http.method.decode("latin-1"), http.path.decode("latin-1")
        raise InvalidRequest(f"Malformed request: {method} {path}")

    # -- which model --------------------------------------------------------------------------------------

    def _call(self, http: HttpRequest, model: str, version: str | None, label: str | None) -> tuple[Inference, _Codec]:
        served = find_served(self._app.engine, model, _number(version), label)
        call = Inference(self._app, http, served, "tfs")
        call.nonfinite_ok = self._strict
        return call, self._codecs[served]

    def _codec(self, model: ServedModel) -> _Codec:
        reader = RequestReader(model.signature, model.name, tokens=self._strict)
        return _Codec(reader, Answers(model.signature, "bare" if self._strict else model.nonfinite))


def _number(version: str | None) -> str | None:
    """The version without leading zeros."""
    if version is None:
        return None
    digits = version.lstrip("0") or "0"
    if len(digits) > _INT64_DIGITS or int(digits) > _INT64_MAX:
        raise InvalidRequest(f"Failed to convert version: {version} to numeric.")
    return digits
