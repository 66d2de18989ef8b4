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
from paceline.core.errors import InvalidRequest, ModelNotFound
from paceline.core.requests import InferRequest
from paceline.core.tensors import Signature, TensorSpec
from paceline.engine.engine import Entry, Phase
from paceline.engine.model import ServedModel
from paceline.server.app import App
from paceline.server.calls import Encoded, Inference, PerModel
from paceline.server.http1 import JSON, HttpRequest
from paceline.server.json_tensors import dumps
from paceline.server.protocols.tfs_answers import Answers, classified_by, regressed_by
from paceline.server.protocols.tfs_faults import type_name
from paceline.server.protocols.tfs_requests import SIGNATURE, RequestReader
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
        entries = self._versions(model, self._number(model, version, label))
        body: dict[str, Any] = {"model_version_status": [_state(entry) for entry in entries]}
        if not self._strict:
            available = any(entry.phase is Phase.AVAILABLE for entry in entries)
            body |= {"name": model, "ready": available and not self._app.draining}
        self._app.reply(http, 200, dumps(body))

    def metadata(self, http: HttpRequest, model: str, version: str | None = None, label: str | None = None) -> None:
        """GET the signature."""
        entry = self._entry(model, version, label)
        if not entry.platform:
            self._app.engine.model(entry.name, entry.version)  # says why its file has not been read
        spec = {"name": entry.name, "signature_name": "", "version": entry.version}
        signature = {SIGNATURE: _signature_def(entry.signature)}
        # Twice: the map of signatures is a message with one field of that name.
        body = {"model_spec": spec, "metadata": {"signature_def": {"signature_def": signature}}}
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
        entry = self._entry(model, version, label)
        served = entry.served or self._app.engine.model(entry.name, entry.version)
        call = Inference(self._app, http, served, "tfs")
        call.nonfinite_ok = self._strict
        return call, self._codecs[served]

    def _codec(self, model: ServedModel) -> _Codec:
        reader = RequestReader(model.signature, model.name, tokens=self._strict)
        return _Codec(reader, Answers(model.signature, "bare" if self._strict else model.nonfinite))

    def _entry(self, model: str, version: str | None, label: str | None) -> Entry:
        number = self._number(model, version, label)
        try:
            return self._app.engine.entry(model, number)
        except ModelNotFound as error:
            wanted = f"Latest({model})" if number is None else f"Specific({model}, {number})"
            raise ModelNotFound(f"Servable not found for request: {wanted}", model=model) from error

    def _number(self, model: str, version: str | None, label: str | None) -> str | None:
        """The version that a label or a number asks for; None: the latest."""
        return _number(version) if label is None else self._app.engine.labelled(model, label)

    def _versions(self, model: str, version: str | None) -> list[Entry]:
        engine = self._app.engine
        known = engine.versions(model)
        if not known:
            raise ModelNotFound(f"Could not find any versions of model {model}", model=model)
        if version is not None and version not in known:
            raise ModelNotFound(f"Could not find version {version} of model {model}", model=model)
        wanted = [version] if version is not None else reversed(known)
        return [engine.entry(model, each) for each in wanted]


def _number(version: str | None) -> str | None:
    """The version without leading zeros."""
    if version is None:
        return None
    digits = version.lstrip("0") or "0"
    if len(digits) > _INT64_DIGITS or int(digits) > _INT64_MAX:
        raise InvalidRequest(f"Failed to convert version: {version} to numeric.")
    return digits


def _state(entry: Entry) -> dict[str, Any]:
    failed = entry.phase is Phase.FAILED
    status = {"error_code": "INTERNAL" if failed else "OK", "error_message": entry.reason if failed else ""}
    return {"version": entry.version, "state": entry.phase.value, "status": status}


def _signature_def(signature: Signature) -> dict[str, Any]:
    return {
        "inputs": {spec.name: _tensor_info(spec) for spec in signature.inputs},
        "outputs": {spec.name: _tensor_info(spec) for spec in signature.outputs},
        "method_name": "tensorflow/serving/predict",
        "defaults": {},
    }


def _tensor_info(spec: TensorSpec) -> dict[str, Any]:
    return {
        "dtype": f"DT_{type_name(spec.datatype).upper()}",
        "tensor_shape": {
            "dim": [{"size": str(size), "name": ""} for size in spec.shape],
            "unknown_rank": False,
        },
        "name": f"{spec.name}:0",
    }
