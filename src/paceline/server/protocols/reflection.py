"""Which services and messages are there? Server reflection for grpcurl and other clients that bring no stubs.

grpc.reflection.v1.ServerReflection/ServerReflectionInfo, and v1alpha, its older name with the same messages

Rules:
- Each question gets its answer at once, in order; what cannot be answered is said in the answer, and the call goes on.
- A file comes with all that it imports, so that one question is enough.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

from google.protobuf.descriptor import FileDescriptor

from paceline.server.grpc import GrpcCall, Method, Status
from paceline.server.messages import message, parsed, pool

_PACKAGES: Final = ("grpc.reflection.v1", "grpc.reflection.v1alpha")
SERVICES: Final = tuple(f"{package}.ServerReflection" for package in _PACKAGES)


def methods(services: set[str]) -> list[Method]:
    """The methods of both services.

    Args:
        services: full names of the others.
    """
    names = sorted({*services, *SERVICES})
    return [
        Method(f"/{package}.ServerReflection/ServerReflectionInfo".encode(), partial(_begin, package, names), True)
        for package in _PACKAGES
    ]


def _begin(package: str, names: list[str], call: GrpcCall) -> None:
    request = message(f"{package}.ServerReflectionRequest")
    response = message(f"{package}.ServerReflectionResponse")

    def on_message(data: bytes) -> None:
        asked = parsed(request, data)
        answer = response(valid_host=asked.host, original_request=asked, **_answer(asked, names))
        call.send(answer.SerializeToString())

    def end() -> None:
        let_go()
        call.finish()

    def let_go() -> None:
        call.on_message = call.on_end = call.on_disconnect = None  # they refer to the call

    call.on_message, call.on_end, call.on_disconnect = on_message, end, let_go


def _answer(asked: Any, names: list[str]) -> dict[str, Any]:
    """The field of the response that answers."""
    kind = asked.WhichOneof("message_request")
    questions: dict[str, Callable[[Any], dict[str, Any]]] = {
        "list_services": lambda _: {"list_services_response": {"service": [{"name": name} for name in names]}},
        "file_by_filename": lambda name: _files(pool().FindFileByName(name)),
        "file_containing_symbol": lambda name: _files(pool().FindFileContainingSymbol(name)),
        "file_containing_extension": _extension,
        "all_extension_numbers_of_type": _extension_numbers,
    }
    if kind is None:
        return _error(Status.INVALID_ARGUMENT, "the request asks nothing")
    value = getattr(asked, kind)
    try:
        return questions[kind](value)
    except KeyError:
        return _error(Status.NOT_FOUND, f"{kind}: not found: {str(value).strip()[:200]}")


def _files(file: FileDescriptor) -> dict[str, Any]:
    found: dict[str, bytes] = {}
    _collect(file, found)
    return {"file_descriptor_response": {"file_descriptor_proto": list(found.values())}}


def _collect(file: FileDescriptor, found: dict[str, bytes]) -> None:
    if file.name not in found:
        found[file.name] = file.serialized_pb
        for imported in file.dependencies:
            _collect(imported, found)


def _extension(asked: Any) -> dict[str, Any]:
    extended = pool().FindMessageTypeByName(asked.containing_type)
    extension: Any = pool().FindExtensionByNumber(extended, asked.extension_number)
    return _files(extension.file)


def _extension_numbers(name: str) -> dict[str, Any]:
    found = pool().FindAllExtensions(pool().FindMessageTypeByName(name))
    numbers = sorted(extension.number for extension in found)
    return {"all_extension_numbers_response": {"base_type_name": name, "extension_number": numbers}}


def _error(status: Status, text: str) -> dict[str, Any]:
    return {"error_response": {"error_code": int(status), "error_message": text}}
