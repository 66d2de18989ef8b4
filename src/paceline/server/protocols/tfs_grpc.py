"""TensorFlow Serving's gRPC API, without TensorFlow.

tensorflow.serving.PredictionService    Predict, Classify, Regress, GetModelMetadata
tensorflow.serving.ModelService         GetModelStatus, HandleReloadConfigRequest

Rules:
- Which model is meant, what is told about it and which of its outputs classify is as over REST.
- Answers name the version that a request without one, or with a label, got, and the signature's full name.
- Models are replaced only where `--model-control-mode explicit` lets them come and go by request.
- MultiInference and SessionRun are not there: UNIMPLEMENTED.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Final

from google.protobuf import json_format

from paceline.config.settings import ServeSettings
from paceline.core.errors import InvalidRequest, PreconditionFailed
from paceline.core.requests import InferRequest
from paceline.core.tensors import DataType, Signature, Tensors, bf16_to_float32
from paceline.engine.model import ServedModel
from paceline.engine.sources import Source
from paceline.server.app import App
from paceline.server.calls import Encoded, Inference, PerModel
from paceline.server.grpc import GrpcCall, Method
from paceline.server.messages import message, parsed
from paceline.server.protocols import item_codec, oip_repository, tfs_examples
from paceline.server.protocols.tfs_answers import classified_by, regressed_by
from paceline.server.protocols.tfs_models import SIGNATURE, find, find_served, find_versions, signatures, state
from paceline.server.protocols.tfs_requests import with_any_rows
from paceline.server.protocols.tfs_tensors import TensorWriter, to_array

_PACKAGE: Final = "tensorflow.serving"
_OUTPUTS: Final = b"\x0a"
_SIGNATURE_DEF: Final = "signature_def"


def methods(app: App, settings: ServeSettings) -> list[Method]:
    """The methods of both services."""
    predictions, models = _Predictions(app, settings), _Models(app)
    return [
        _method("PredictionService/Predict", "PredictRequest", predictions.predict),
        _method("PredictionService/Classify", "ClassificationRequest", predictions.classify),
        _method("PredictionService/Regress", "RegressionRequest", predictions.regress),
        _method("PredictionService/GetModelMetadata", "GetModelMetadataRequest", models.metadata),
        _method("ModelService/GetModelStatus", "GetModelStatusRequest", models.status),
        _method("ModelService/HandleReloadConfigRequest", "ReloadConfigRequest", models.reload),
    ]


def _method(path: str, request: str, handler: Callable[[GrpcCall, Any], None]) -> Method:
    kind = message(f"{_PACKAGE}.{request}")
    return Method(f"/{_PACKAGE}.{path}".encode(), lambda call: handler(call, parsed(kind, call.body)))


# -- inference --------------------------------------------------------------------------------------------


class _Predictions:
    def __init__(self, app: App, settings: ServeSettings) -> None:
        self._app = app
        self._strict = settings.v1_dialect == "tfs"
        self._codecs = PerModel(partial(_codec, app.limits.body_bytes))

    def predict(self, call: GrpcCall, request: Any) -> None:
        """Whole tensors in and out."""
        inference, codec = self._inference(call, request)
        inputs = codec.inputs(request.inputs)
        encode = partial(codec.predicted, codec.wanted(request.output_filter))
        inference.start(inputs, encode, size_bytes=sum(array.nbytes for array in inputs))

    def classify(self, call: GrpcCall, request: Any) -> None:
        """Examples in, a score for each class out."""
        inference, codec = self._inference(call, request)
        scores, labels = classified_by(codec.signature, codec.model)
        inputs = tfs_examples.to_inputs(request.input, codec.signature, codec.model)
        inference.start(codec.checked(inputs), partial(codec.classified, scores, labels))

    def regress(self, call: GrpcCall, request: Any) -> None:
        """Examples in, a number for each out."""
        inference, codec = self._inference(call, request)
        index = regressed_by(codec.signature, codec.model)
        inputs = tfs_examples.to_inputs(request.input, codec.signature, codec.model)
        inference.start(codec.checked(inputs), partial(codec.regressed, index))

    def _inference(self, call: GrpcCall, request: Any) -> tuple[Inference, Codec]:
        spec = _spec(request)
        served = find_served(self._app.engine, *_which(spec))
        inference = Inference(self._app.grpc, call, served, "tfs_grpc")
        inference.nonfinite_ok = self._strict
        if spec.signature_name not in ("", SIGNATURE):
            raise PreconditionFailed(f'Serving signature key "{spec.signature_name[:256]}" not found.')
        return inference, self._codecs[served]


class Codec:
    """Reads the inputs of one model and writes its answers.

    Args:
        limit_bytes: of a tensor that is larger than its message.
    """

    def __init__(self, model: str, version: str, signature: Signature, limit_bytes: int) -> None:
        self.model = model
        self.signature = signature
        self._limit_bytes = limit_bytes
        self._taken = with_any_rows(signature)
        self._writers = [TensorWriter(spec) for spec in signature.outputs]
        self._by_name = {spec.name: index for index, spec in enumerate(signature.outputs)}
        self._all = tuple(self._by_name.values())
        self._spec = {"name": model, "version": {"value": int(version)}, "signature_name": SIGNATURE}
        self._echo: bytes = message(f"{_PACKAGE}.PredictResponse")(model_spec=self._spec).SerializeToString()

    def inputs(self, named: Mapping[str, Any]) -> Tensors:
        """The inputs of a prediction.

        Raises:
            InvalidRequest: they do not fit the signature.
        """
        specs = self.signature.inputs
        # Asking a map of messages for what it lacks would create it.
        if len(named) != len(specs) or any(spec.name not in named for spec in specs):
            raise self._wrong_names(set(named))
        return self.checked(tuple([to_array(named[spec.name], spec, self._limit_bytes) for spec in specs]))

    def checked(self, inputs: Tensors) -> Tensors:
        """The same, if their shapes fit the signature.

        Raises:
            SignatureMismatch: they do not.
        """
        self._taken.check(inputs, self.model)
        return (item_codec.texts(inputs[0], self.signature.inputs[0].name),) if self.signature.items else inputs

    def wanted(self, names: Iterable[str]) -> tuple[int, ...]:
        """Indexes of the outputs of these names; of all, where there is none.

        Raises:
            InvalidRequest: there is no such output, or it is named twice.
        """
        found: list[int] = []
        for name in names:
            if name not in self._by_name:
                raise InvalidRequest(
                    f"output tensor alias not found in signature: {name[:256]} "
                    f"Outputs expected to be in the set {_names(self._by_name)}."
                )
            if self._by_name[name] in found:
                raise InvalidRequest(f"duplicate output tensor alias: {name}")
            found.append(self._by_name[name])
        return tuple(found) or self._all

    def predicted(self, wanted: tuple[int, ...], request: InferRequest) -> Encoded:
        """The response to a prediction."""
        arrays, body = request.outputs or (), [self._echo]
        for index in wanted:
            body += (_OUTPUTS, self._writers[index].entry(arrays[index]))
        return b"".join(body), b"", b""

    def classified(self, scores: int, labels: int | None, request: InferRequest) -> Encoded:
        """The response to a classification."""
        arrays, spec = request.outputs or (), self.signature.outputs[scores]
        table = arrays[scores]
        rows: list[list[Any]] = self._floats(arrays, scores).reshape(table.shape).tolist()
        if labels is None:
            names = [list(spec.labels or [""] * table.shape[1])] * len(rows)
        else:
            names = arrays[labels].tolist()
        found = [
            {"classes": [{"label": label, "score": score} for label, score in zip(named, row, strict=True)]}
            for named, row in zip(names, rows, strict=True)
        ]
        return self._encoded("ClassificationResponse", {"classifications": found})

    def regressed(self, index: int, request: InferRequest) -> Encoded:
        """The response to a regression."""
        values = self._floats(request.outputs or (), index).reshape(-1).tolist()
        return self._encoded("RegressionResponse", {"regressions": [{"value": value} for value in values]})

    def _floats(self, arrays: Tensors, index: int) -> Any:
        array = arrays[index]
        return bf16_to_float32(array) if self.signature.outputs[index].datatype is DataType.BF16 else array

    def _encoded(self, kind: str, result: dict[str, Any]) -> Encoded:
        response = message(f"{_PACKAGE}.{kind}")(model_spec=self._spec, result=result)
        return response.SerializeToString(), b"", b""

    def _wrong_names(self, came: set[str]) -> InvalidRequest:
        taken = {spec.name for spec in self.signature.inputs}
        return InvalidRequest(
            f"input size does not match signature: {len(came)}!={len(taken)} len({_names(came)}) != "
            f"len({_names(taken)}). Sent extra: {_names(came - taken)}. Missing but required: {_names(taken - came)}.",
            model=self.model,
        )


def _codec(limit_bytes: int, model: ServedModel) -> Codec:
    return Codec(model.name, model.version, model.signature, limit_bytes)


def _names(names: Iterable[str]) -> str:
    return "{" + ",".join(sorted(names)) + "}"


# -- about models -----------------------------------------------------------------------------------------


class _Models:
    def __init__(self, app: App) -> None:
        self._app = app
        self._changes = oip_repository.Changes(app.grpc)

    def metadata(self, call: GrpcCall, request: Any) -> None:
        """The signatures."""
        spec = _spec(request)
        if not request.metadata_field:
            raise InvalidRequest("GetModelMetadataRequest must specify at least one metadata_field")
        for field in request.metadata_field:
            if field != _SIGNATURE_DEF:
                raise InvalidRequest(f"Metadata field {field[:256]} is not supported")
        entry = find(self._app.engine, *_which(spec))
        found = message(f"{_PACKAGE}.SignatureDefMap")()
        json_format.ParseDict(signatures(self._app.engine, entry), found)
        response = message(f"{_PACKAGE}.GetModelMetadataResponse")()
        response.model_spec.name = entry.name
        response.model_spec.version.value = int(entry.version)
        response.metadata[_SIGNATURE_DEF].Pack(found)
        self._reply(call, response)

    def status(self, call: GrpcCall, request: Any) -> None:
        """The state of one version, or of all, newest first."""
        entries = find_versions(self._app.engine, *_which(_spec(request)))
        response = message(f"{_PACKAGE}.GetModelStatusResponse")()
        json_format.ParseDict({"model_version_status": [state(entry) for entry in entries]}, response)
        self._reply(call, response)

    def reload(self, call: GrpcCall, request: Any) -> None:
        """Serve these models and no others; answered once they are available."""
        repository = self._app.repository
        if repository is None or not oip_repository.offered(self._app):
            raise PreconditionFailed(
                "models are not replaced by request: the server was not started on a folder of models "
                "with --model-control-mode explicit"
            )
        if request.config.WhichOneof("config") != "model_config_list":
            raise InvalidRequest(
                "ServerModelConfig type not supported by HandleReloadConfigRequest. "
                "Only ModelConfigList is currently supported"
            )
        sources = [_source(config) for config in request.config.model_config_list.config]
        done = message(f"{_PACKAGE}.ReloadConfigResponse")(status={"error_code": "OK"})
        self._changes.answer(call, lambda: repository.reload(sources), done.SerializeToString())

    def _reply(self, call: GrpcCall, response: Any) -> None:
        self._app.grpc.reply(call, 200, response.SerializeToString())


def _spec(request: Any) -> Any:
    if not request.HasField("model_spec"):
        raise InvalidRequest("Missing ModelSpec")
    return request.model_spec


def _which(spec: Any) -> tuple[str, str | None, str | None]:
    """Name, version and label."""
    choice = spec.WhichOneof("version_choice")
    version = str(spec.version.value) if choice == "version" else None
    return spec.name, version, spec.version_label if choice == "version_label" else None


def _source(config: Any) -> Source:
    labels = {label: str(version) for label, version in config.version_labels.items()}
    policy = config.model_version_policy
    choice = policy.WhichOneof("policy_choice")
    if choice == "specific":
        if not policy.specific.versions or min(policy.specific.versions) < 0:
            raise InvalidRequest(f"model {config.name}: the specific versions to serve are not given")
        wanted = ",".join(map(str, policy.specific.versions))
    elif choice == "latest":
        wanted = f"latest:{policy.latest.num_versions or 1}"
    else:
        wanted = "all" if choice == "all" else "latest"
    return Source(config.name, config.base_path, wanted, labels)
