"""Open Inference Protocol v2 over gRPC: the service `inference.GRPCInferenceService`, with Triton's further methods.

ServerLive, ServerReady, ModelReady
ServerMetadata, ModelMetadata, ModelConfig, ModelStatistics
ModelInfer, ModelStreamInfer                                    see oip_grpc_infer, oip_grpc_stream
RepositoryIndex, RepositoryModelLoad, RepositoryModelUnload     see oip_repository

Rules:
- What is answered, and in which words it is refused, is as over REST: both wires ask the same functions.
- An empty version means that the server chooses; an empty name means a model only where all models can be meant.
- Methods for shared memory, tracing and logging are not there: UNIMPLEMENTED.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

from paceline import __version__
from paceline.config.settings import ServeSettings
from paceline.core.errors import ModelNotFound
from paceline.engine.engine import Entry, Phase
from paceline.engine.model import ServedModel
from paceline.server.app import App
from paceline.server.calls import Desk, Inference, PerModel
from paceline.server.grpc import GrpcCall, Method
from paceline.server.http_request import HttpRequest
from paceline.server.later import reply_later
from paceline.server.messages import message, parsed
from paceline.server.protocols import oip, oip_repository
from paceline.server.protocols.oip_grpc_forms import Forms
from paceline.server.protocols.oip_grpc_infer import REQUEST, Codec
from paceline.server.protocols.oip_grpc_stream import InferStream
from paceline.server.protocols.oip_metadata import config, metadata
from paceline.server.protocols.oip_statistics import of_all_replicas

SERVICE: Final = "inference.GRPCInferenceService"


def methods(app: App, settings: ServeSettings) -> list[Method]:
    """The methods of this service."""
    service = _Service(app, settings)
    answers: list[Callable[[Any], Any]] = [
        service.server_live,
        service.server_ready,
        service.model_ready,
        service.server_metadata,
        service.model_metadata,
        service.model_config,
        service.repository_index,
    ]
    return [
        Method(_path("ModelInfer"), Infer(app).unary),
        Method(_path("ModelStreamInfer"), Infer(app).stream, streaming=True),
        Method(_path("ModelStatistics"), service.model_statistics),
        Method(_path("RepositoryModelLoad"), service.repository_model_load),
        Method(_path("RepositoryModelUnload"), service.repository_model_unload),
        *[_answering(app, answer) for answer in answers],
    ]


def _path(method: str) -> bytes:
    return f"/{SERVICE}/{method}".encode()


def _answering(app: App, answer: Callable[[Any], Any]) -> Method:
    """The method that is called as its function is, and whose messages are called after it."""
    name = "".join(part.capitalize() for part in answer.__name__.split("_"))
    request = message(f"inference.{name}Request")

    def handle(call: GrpcCall) -> None:
        app.grpc.reply(call, 200, answer(parsed(request, call.body)).SerializeToString())

    return Method(_path(name), handle)


class Infer:
    """Answers inferences, one a call or many in a stream."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._codecs = PerModel(_codec)
        self._forms = Forms()

    def unary(self, call: GrpcCall) -> None:
        """ModelInfer."""
        self._start(self._app.grpc, call)

    def stream(self, call: GrpcCall) -> None:
        """ModelStreamInfer."""
        InferStream(self._app.grpc, call, self._start)

    def _start(self, desk: Desk, http: HttpRequest) -> None:
        data = http.body
        assert isinstance(data, bytes)
        form = self._forms.find(data)
        request = form or parsed(REQUEST, data)
        model = self._model(request.model_name, request.model_version)
        call = Inference(desk, http, model, "oip_grpc")
        codec = self._codecs[model]
        if form is not None and form.codec is codec:
            asked = form.read(data)
        else:
            request = parsed(REQUEST, data) if form is not None else request
            asked = codec.read(request)
            self._forms.learn(data, request, asked, codec)
        if asked.timeout_s:
            call.expire_after(asked.timeout_s, at_most=b"grpc-timeout" in http.headers)
        call.start(asked.inputs, partial(codec.write, asked))

    def _model(self, name: str, version: str) -> ServedModel:
        return self._app.engine.model(_named(name), version or None)


class _Service:
    def __init__(self, app: App, settings: ServeSettings) -> None:
        self._app = app
        self._settings = settings
        self._changes = oip_repository.Changes(app.grpc)

    def server_live(self, request: Any) -> Any:
        return message("inference.ServerLiveResponse")(live=True)

    def server_ready(self, request: Any) -> Any:
        return message("inference.ServerReadyResponse")(ready=self._app.ready)

    def model_ready(self, request: Any) -> Any:
        try:
            entry = self._app.engine.entry(_named(request.name), request.version or None)
        except ModelNotFound:  # as Triton answers: clients wait in loops for a model to come or to go
            ready = False
        else:
            ready = entry.phase is Phase.AVAILABLE and not self._app.draining
        return message("inference.ModelReadyResponse")(ready=ready)

    def server_metadata(self, request: Any) -> Any:
        return message("inference.ServerMetadataResponse")(
            name=self._settings.server_name, version=__version__, extensions=oip.extensions(self._app)
        )

    def model_metadata(self, request: Any) -> Any:
        entry, _ = self._served(request)
        document = metadata(entry, self._app.engine.available(entry.name))
        return message("inference.ModelMetadataResponse")(**document)

    def model_config(self, request: Any) -> Any:
        entry, served = self._served(request)
        return message("inference.ModelConfigResponse")(config=config(entry, served.prepared))

    def model_statistics(self, call: GrpcCall) -> None:
        request = parsed(message("inference.ModelStatisticsRequest"), call.body)
        if request.name:
            found = [self._served(request)[1]]
        else:
            found = [entry.served for entry in self._app.engine.entries() if entry.served is not None]
        reply_later(self._app.grpc, call, self._statistics(found))

    async def _statistics(self, models: list[ServedModel]) -> bytes:
        found = await of_all_replicas(self._app, models)
        encoded: bytes = message("inference.ModelStatisticsResponse")(model_stats=found).SerializeToString()
        return encoded

    def repository_index(self, request: Any) -> Any:
        rows = oip_repository.listed(oip_repository.repository_of(self._app), request.ready)
        return message("inference.RepositoryIndexResponse")(models=rows)

    def repository_model_load(self, call: GrpcCall) -> None:
        repository = oip_repository.repository_of(self._app)
        request = parsed(message("inference.RepositoryModelLoadRequest"), call.body)
        if oip_repository.offered(self._app):
            oip_repository.refuse_overrides(request.parameters)
        self._changes.answer(call, lambda: repository.load(request.model_name), b"")

    def repository_model_unload(self, call: GrpcCall) -> None:
        repository = oip_repository.repository_of(self._app)
        request = parsed(message("inference.RepositoryModelUnloadRequest"), call.body)
        self._changes.answer(call, lambda: repository.unload(request.model_name), b"")

    def _served(self, request: Any) -> tuple[Entry, ServedModel]:
        """The version asked for, once its warm-up has settled what it is like."""
        name, version = _named(request.name), request.version or None
        return self._app.engine.entry(name, version), self._app.engine.model(name, version)


def _named(name: str) -> str:
    if not name:
        raise ModelNotFound("Request for unknown model: '' is not found")
    return name


def _codec(model: ServedModel) -> Codec:
    return Codec(model.name, model.version, model.signature)
