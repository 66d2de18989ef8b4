"""In which ways is a server asked, and how is its answer read?

Rules:
- A wire is what a table compares: `json`, `oip` (JSON of the Open Inference Protocol), `binary`, `grpc`.
  How a peer spells it is its own: a dialect.
- HTTP is loaded by wrk and gRPC by h2load: for every server the same client, and the cheapest there is.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from typing import Any

import numpy as np

from benchmarks.bench import BenchError, Run
from benchmarks.h2load import call
from benchmarks.peers.model import Model, Tensor
from benchmarks.processes import Server
from benchmarks.wrk import load

TITLES = {
    "json": "JSON over HTTP/1.1",
    "oip": "JSON of the Open Inference Protocol",
    "binary": "binary tensors over HTTP/1.1",
    "grpc": "gRPC, ModelInfer of the Open Inference Protocol",
}
_METHOD = "/inference.GRPCInferenceService/ModelInfer"
_DTYPES = {"FP32": "<f4", "INT64": "<i8"}
_JSON = {"content-type": "application/json"}


@dataclass(frozen=True)
class Sample:
    """What one run of a client saw.

    Attributes:
        rate: good answers per second.
        failed: share of the requests that were answered otherwise.
        client_cpu: cores that the client took.
    """

    rate: float
    p50_ms: float
    p99_ms: float
    failed: float
    client_cpu: float


class Dialect(ABC):
    """One server's spelling of a wire."""

    @abstractmethod
    def ready(self, model: Model) -> Callable[[int], bool]:
        """A readiness test: is the first item answered?"""

    @abstractmethod
    def check(self, server: Server, model: Model) -> None:
        """Compare the server's answers with the model's own.

        Raises:
            BenchError: other numbers, or no answer.
        """

    @abstractmethod
    def load(self, run: Run, server: Server, model: Model, connections: int, seconds: float) -> Sample:
        """Load the server: so many connections, each with one request under way.

        Raises:
            BenchError: the client is missing, or connections broke.
        """


class HttpDialect(Dialect):
    """What is asked with a POST."""

    headers: Mapping[str, str] = _JSON

    @abstractmethod
    def path(self, model: Model) -> str: ...

    @abstractmethod
    def body(self, model: Model, index: int) -> bytes: ...

    @abstractmethod
    def numbers(self, model: Model, answer: bytes, headers: Mapping[str, str]) -> Any: ...

    def request_headers(self, model: Model) -> Mapping[str, str]:
        return self.headers

    def bodies(self, model: Model) -> list[bytes]:
        return [self.body(model, index) for index in range(len(model.items))]

    def ready(self, model: Model) -> Callable[[int], bool]:
        body, path, headers = self.body(model, 0), self.path(model), dict(self.request_headers(model))

        def answered(port: int) -> bool:
            connection = HTTPConnection("127.0.0.1", port, timeout=10)
            try:
                connection.request("POST", path, body, headers)
                return connection.getresponse().status == 200
            except (OSError, HTTPException):
                return False
            finally:
                connection.close()

        return answered

    def check(self, server: Server, model: Model) -> None:
        for index, expected in enumerate(model.expected):
            try:
                answer, headers = server.post(self.path(model), self.body(model, index), self.request_headers(model))
            except (OSError, HTTPException) as error:
                raise BenchError(f"{server.url(self.path(model))} does not answer: {error!r}") from error
            try:
                found = self.numbers(model, answer, headers)
            except (ValueError, LookupError, TypeError) as error:
                raise BenchError(f"{server.url(self.path(model))} answers {answer[:200]!r}: {error}") from error
            _compare(server, found, expected)

    def load(self, run: Run, server: Server, model: Model, connections: int, seconds: float) -> Sample:
        url, headers = server.url(self.path(model)), self.request_headers(model)
        seen = load(run, url, self.bodies(model), connections, seconds, headers)
        return Sample(seen.rate, seen.p50_ms, seen.p99_ms, seen.failed, seen.client_cpu)


@dataclass(frozen=True)
class PlainJson(HttpDialect):
    """An item in, its answer out; or both in lists, under a name of the server's."""

    at: str
    listed_as: str | None = None

    def path(self, model: Model) -> str:
        return self.at

    def body(self, model: Model, index: int) -> bytes:
        item = model.items[index]
        return json.dumps({self.listed_as: [item]} if self.listed_as else item).encode()

    def numbers(self, model: Model, answer: bytes, headers: Mapping[str, str]) -> Any:
        return json.loads(answer)


class OipJson(HttpDialect):
    """Tensors as flat lists of numbers."""

    def path(self, model: Model) -> str:
        return f"/v2/models/{model.served_as}/infer"

    def body(self, model: Model, index: int) -> bytes:
        values = model.values(index)
        tensors = [
            {
                "name": each.name,
                "shape": [1, *each.shape],
                "datatype": each.datatype,
                # Of the item itself: a float32 has more digits than what it was made from.
                "data": np.ravel(values[each.name]).tolist(),
            }
            for each in model.inputs
        ]
        return json.dumps({"inputs": tensors}).encode()

    def numbers(self, model: Model, answer: bytes, headers: Mapping[str, str]) -> Any:
        return json.loads(answer)["outputs"][0]["data"]


class OipBinary(HttpDialect):
    """Tensors as bytes behind a short JSON, and so the answer."""

    def path(self, model: Model) -> str:
        return f"/v2/models/{model.served_as}/infer"

    def request_headers(self, model: Model) -> Mapping[str, str]:
        return binary_request(model.inputs, model.tensors(0))[1]

    def body(self, model: Model, index: int) -> bytes:
        return binary_request(model.inputs, model.tensors(index))[0]

    def bodies(self, model: Model) -> list[bytes]:
        return [self.body(model, 0)]

    def numbers(self, model: Model, answer: bytes, headers: Mapping[str, str]) -> Any:
        assert model.output is not None
        head = headers.get("inference-header-content-length")
        if head is None:
            raise BenchError(f"the answer is not binary: {answer[:200]!r}")
        return np.frombuffer(answer[int(head) :], _DTYPES[model.output.datatype])


@dataclass(frozen=True)
class MsgpackTensors(HttpDialect):
    """The bytes of each input and its shape, in MessagePack; the bytes of the output back."""

    at: str

    def path(self, model: Model) -> str:
        return self.at

    def request_headers(self, model: Model) -> Mapping[str, str]:
        return {"content-type": "application/msgpack"}

    def body(self, model: Model, index: int) -> bytes:
        import msgspec

        tensors = model.tensors(index)
        shapes = {name: list(array.shape[1:]) for name, array in tensors.items()}
        return msgspec.msgpack.encode({**{name: each.tobytes() for name, each in tensors.items()}, "shapes": shapes})

    def bodies(self, model: Model) -> list[bytes]:
        return [self.body(model, 0)]

    def numbers(self, model: Model, answer: bytes, headers: Mapping[str, str]) -> Any:
        import msgspec

        assert model.output is not None
        return np.frombuffer(msgspec.msgpack.decode(answer), _DTYPES[model.output.datatype])


class OipGrpc(Dialect):
    """ModelInfer with raw contents."""

    def ready(self, model: Model) -> Callable[[int], bool]:
        message = self.message(model, 0)

        def answered(port: int) -> bool:
            try:
                return bool(_ask(port, message))
            except BenchError:
                return False

        return answered

    def message(self, model: Model, index: int) -> bytes:
        """The serialized request."""
        from tritonclient.grpc import service_pb2 as pb

        request = pb.ModelInferRequest(model_name=model.served_as)
        for tensor, array in zip(model.inputs, model.tensors(index).values(), strict=True):
            request.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=array.shape)
            request.raw_input_contents.append(array.tobytes())
        return request.SerializeToString()

    def check(self, server: Server, model: Model) -> None:
        from tritonclient.grpc import service_pb2 as pb

        for index, expected in enumerate(model.expected):
            response = pb.ModelInferResponse.FromString(_ask(server.port, self.message(model, index)))
            _compare(server, _contents(response, model), expected)

    def load(self, run: Run, server: Server, model: Model, connections: int, seconds: float) -> Sample:
        message = self.message(model, 0)
        seen = call(
            run, server.url(_METHOD), message, _ask(server.port, message), connections, 1, max(1, round(seconds))
        )
        return Sample(seen.rate, seen.p50_ms, seen.p99_ms, 0.0, seen.client_cpu)


def binary_request(inputs: Sequence[Tensor], tensors: Mapping[str, np.ndarray]) -> tuple[bytes, Mapping[str, str]]:
    """Body and headers of a request with binary inputs that asks for binary outputs."""
    described = [
        {
            "name": tensor.name,
            "shape": list(tensors[tensor.name].shape),
            "datatype": tensor.datatype,
            "parameters": {"binary_data_size": tensors[tensor.name].nbytes},
        }
        for tensor in inputs
    ]
    head = {"inputs": described, "parameters": {"binary_data_output": True}}
    text = json.dumps(head, separators=(",", ":")).encode()
    headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(text))}
    data = b"".join(tensors[each.name].astype(_DTYPES[each.datatype]).tobytes() for each in inputs)
    return text + data, headers


def _ask(port: int, message: bytes) -> bytes:
    import grpc

    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        try:
            return bytes(channel.unary_unary(_METHOD)(message, timeout=10))
        except grpc.RpcError as error:
            raise BenchError(f"port {port} does not answer ModelInfer: {error}") from error


def _contents(response: Any, model: Model) -> np.ndarray:
    assert model.output is not None
    if response.raw_output_contents:
        return np.frombuffer(response.raw_output_contents[0], _DTYPES[model.output.datatype])
    contents = response.outputs[0].contents
    return np.array(contents.fp32_contents or contents.int64_contents)


def _compare(server: Server, found: Any, expected: Any) -> None:
    if not np.allclose(np.ravel(found), np.ravel(expected), rtol=1e-4, atol=1e-5):
        raise BenchError(f"port {server.port} says {str(found)[:100]}, the model {str(expected)[:100]}")
