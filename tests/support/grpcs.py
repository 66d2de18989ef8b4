"""Calls gRPC methods by hand: messages of the server's own descriptors over a real grpcio channel."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import numpy as np

from paceline.server.messages import message
from paceline.testing import RunningServer

SERVICE = "inference.GRPCInferenceService"
REQUEST = message("inference.ModelInferRequest")
UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


@contextmanager
def connect(server: RunningServer) -> Iterator[grpc.Channel]:
    """A channel of its own."""
    with grpc.insecure_channel(f"{server.host}:{server.port}", options=UNLIMITED) as channel:
        yield channel


def ask(channel: grpc.Channel, method_name: str, /, *, request: Any = None, **fields: Any) -> Any:
    """Call a unary method of the inference service: its request's fields, its response."""
    kind, response = message(f"inference.{method_name}Request"), message(f"inference.{method_name}Response")
    method = channel.unary_unary(f"/{SERVICE}/{method_name}", kind.SerializeToString, response.FromString)
    return method(kind(**fields) if request is None else request, timeout=20)


def stream(channel: grpc.Channel, requests: Iterable[Any], **options: Any) -> Any:
    """Call ModelStreamInfer; the responses, one by one."""
    response = message("inference.ModelStreamInferResponse")
    method = channel.stream_stream(f"/{SERVICE}/ModelStreamInfer", REQUEST.SerializeToString, response.FromString)
    return method(iter(requests), **{"timeout": 20, **options})


def refused(channel: grpc.Channel, request: Any, code: str = "INVALID_ARGUMENT") -> str:
    """The message of a request to infer that must be an error."""
    try:
        ask(channel, "ModelInfer", request=request)
    except grpc.RpcError as error:
        assert error.code().name == code, error
        return str(error.details())
    raise AssertionError("it was answered")


def described(name: str, array: np.ndarray, datatype: str) -> dict[str, Any]:
    """An input without its contents."""
    return {"name": name, "shape": list(array.shape), "datatype": datatype}
