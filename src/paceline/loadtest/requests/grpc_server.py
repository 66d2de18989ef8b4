"""What is a server that speaks gRPC alone, and what do its models take? As `servers` asks over HTTP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from paceline.core.errors import ConfigError
from paceline.loadtest.requests import grpc_asking
from paceline.loadtest.requests.address import Address
from paceline.loadtest.requests.servers import Model, Server, described, of_signatures, tensor_specs
from paceline.loadtest.target import Protocol, Target
from paceline.server.grpc import Status


class _Asker:
    """Calls unary methods of one service."""

    def __init__(self, address: Address, headers: Mapping[str, str], timeout_s: float) -> None:
        self._address = address
        self._headers = tuple(headers.items())
        self._timeout_s = timeout_s

    def call(self, service: str, method: str, request: str, response: str, **fields: Any) -> tuple[Any, str, int]:
        """The answer, or None; what an error says; the status."""
        from paceline.server.messages import message

        target = Target(
            host=self._address.host,
            port=self._address.port,
            wire="grpc",
            protocol="raw",
            path=f"/{service}/{method}",
            bodies=(message(request)(**fields).SerializeToString(),),
            headers=self._headers,
        )
        heard = grpc_asking.call(target, self._timeout_s)
        return (message(response).FromString(heard.message) if not heard.status else None), heard.says, heard.status

    def inference(self, method: str, **fields: Any) -> tuple[Any, str, int]:
        """Of the Open Inference Protocol."""
        names = f"inference.{method}Request", f"inference.{method}Response"
        return self.call("inference.GRPCInferenceService", method, *names, **fields)

    def serving(self, method: str, service: str = "PredictionService", **fields: Any) -> tuple[Any, str, int]:
        """Of TensorFlow Serving."""
        names = f"tensorflow.serving.{method}Request", f"tensorflow.serving.{method}Response"
        return self.call(f"tensorflow.serving.{service}", method, *names, **fields)


class _OpenInference:
    protocols: tuple[Protocol, ...] = ("oip-grpc",)

    def __init__(self, asker: _Asker, about: Any) -> None:
        self.says = f"{about.name} {about.version}".strip()
        self._asker = asker

    def names(self) -> Sequence[str]:
        index, _, _ = self._asker.inference("RepositoryIndex")
        return sorted({each.name for each in index.models}) if index is not None else []

    def not_ready(self, name: str) -> str:
        said, _, _ = self._asker.inference("ModelReady", name=name)
        return "" if said is None or said.ready or name not in self.names() else "not ready"

    def model(self, name: str, version: str) -> Model:
        said, why, _ = self._asker.inference("ModelMetadata", name=name, version=version)
        if said is None:
            raise ConfigError(f"model '{name}': {why}")
        inputs = tensor_specs([{"name": i.name, "datatype": i.datatype, "shape": i.shape} for i in said.inputs])
        return Model(name=name, version=version, signature=described(inputs) if inputs else None)


class _TensorFlowServing:
    protocols: tuple[Protocol, ...] = ("tfs-grpc",)
    says = "TensorFlow Serving"

    def __init__(self, asker: _Asker) -> None:
        self._asker = asker

    def names(self) -> Sequence[str]:
        return []

    def not_ready(self, name: str) -> str:
        _, why, status = self._asker.serving("GetModelStatus", "ModelService", model_spec={"name": name})
        return why if status == Status.UNAVAILABLE else ""

    def model(self, name: str, version: str) -> Model:
        from google.protobuf.json_format import MessageToDict

        from paceline.server.messages import message, pool

        spec = {"name": name, **({"version": {"value": int(version)}} if version.isdecimal() else {})}
        said, why, _ = self._asker.serving("GetModelMetadata", model_spec=spec, metadata_field=["signature_def"])
        if said is None:
            raise ConfigError(f"model '{name}': {why}")
        packed = message("tensorflow.serving.SignatureDefMap").FromString(said.metadata["signature_def"].value)
        signatures = MessageToDict(packed, preserving_proto_field_name=True, descriptor_pool=pool())
        return of_signatures(name, version, signatures.get("signature_def", {}))


def identify(address: Address, protocol: Protocol | None, headers: Mapping[str, str], timeout_s: float) -> Server:
    """Find out what answers there.

    Args:
        protocol: the one wanted, if it is named.

    Raises:
        Unreachable, NotGrpc: nothing does.
    """
    asker = _Asker(address, headers, timeout_s)
    if protocol != "tfs-grpc":
        about, _, status = asker.inference("ServerMetadata")
        if about is not None:
            return _OpenInference(asker, about)
        if protocol == "oip-grpc" or status != Status.UNIMPLEMENTED:
            raise ConfigError(f"{address.base}: speaks gRPC, but not the Open Inference Protocol")
    return _TensorFlowServing(asker)
