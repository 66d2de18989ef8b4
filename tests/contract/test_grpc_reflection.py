"""Server reflection with the standard client, under both of its names; and the descriptors that it tells of."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

import paceline.server
from paceline.server.messages import message, pool
from paceline.testing import run_server
from support import grpcs, models

SERVICES = {
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
    "inference.GRPCInferenceService",
}


@pytest.fixture(scope="module")
def channel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[grpc.Channel]:
    path = models.identity(tmp_path_factory.mktemp("grpc") / "same.onnx")
    with run_server(path, ["--warmup-s", "0.05"]) as server, grpcs.connect(server) as channel:
        yield channel


def ask(channel: grpc.Channel, package: str, *questions: dict[str, Any]) -> list[Any]:
    request = message(f"{package}.ServerReflectionRequest")
    response = message(f"{package}.ServerReflectionResponse")
    method = channel.stream_stream(
        f"/{package}.ServerReflection/ServerReflectionInfo", request.SerializeToString, response.FromString
    )
    return list(method(iter([request(**question) for question in questions]), timeout=20))


def test_the_standard_client_learns_the_services(channel: grpc.Channel) -> None:
    database = ProtoReflectionDescriptorDatabase(channel)
    assert set(database.get_services()) >= SERVICES
    learned = DescriptorPool(database)
    service = learned.FindServiceByName("inference.GRPCInferenceService")
    own = pool().FindServiceByName("inference.GRPCInferenceService")
    assert [method.name for method in service.methods] == [method.name for method in own.methods]
    config = learned.FindMessageTypeByName("inference.ModelConfigResponse").fields_by_name["config"].message_type
    assert config.fields_by_name["model_transaction_policy"].number == 19


@pytest.mark.parametrize("package", ["grpc.reflection.v1", "grpc.reflection.v1alpha"])
def test_every_question_is_answered_in_its_place(channel: grpc.Channel, package: str) -> None:
    extension = {"containing_type": "inference.ModelConfig", "extension_number": 1}
    listed, file, missing, extended, numbers, nothing = ask(
        channel,
        package,
        {"list_services": ""},
        {"file_by_filename": "inference.proto"},
        {"file_containing_symbol": "no.Such"},
        {"file_containing_extension": extension},
        {"all_extension_numbers_of_type": "inference.ModelConfig"},
        {"host": "h"},
    )
    assert {each.name for each in listed.list_services_response.service} >= SERVICES
    assert len(file.file_descriptor_response.file_descriptor_proto) == 2  # with what it imports
    assert missing.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]
    assert missing.original_request.file_containing_symbol == "no.Such"
    assert extended.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]
    assert list(numbers.all_extension_numbers_response.extension_number) == []
    assert nothing.error_response.error_code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert nothing.valid_host == "h"


def test_every_listed_service_can_be_described(channel: grpc.Channel) -> None:
    (listed,) = ask(channel, "grpc.reflection.v1", {"list_services": ""})
    names = [each.name for each in listed.list_services_response.service]
    answers = ask(channel, "grpc.reflection.v1", *[{"file_containing_symbol": name} for name in names])
    assert all(answer.HasField("file_descriptor_response") for answer in answers)


@pytest.mark.slow
def test_the_descriptors_are_what_the_files_say() -> None:
    folder = Path(paceline.server.__file__).parent / "protos"
    spec = spec_from_file_location("compile_protos", folder / "compile.py")
    assert spec is not None
    assert spec.loader is not None
    compiler = module_from_spec(spec)
    spec.loader.exec_module(compiler)
    assert compiler.compiled() == (folder / "descriptors.binpb").read_bytes(), "run `make protos`"


@pytest.mark.parametrize("module", ["service_pb2", "model_config_pb2"])
def test_field_numbers_are_those_of_tritons_client(module: str) -> None:
    """What a field of ours is called and how it is written, the client knows too."""
    theirs = import_module(f"tritonclient.grpc.{module}").DESCRIPTOR.pool
    ours = pool().FindFileByName("inference.proto" if module == "service_pb2" else "inference_config.proto")
    for name, kind in ours.message_types_by_name.items():
        other = theirs.FindMessageTypeByName(f"inference.{name}")
        for own, their in _pairs(kind, other):
            assert {(each.name, each.number, each.type) for each in own.fields} <= {
                (each.name, each.number, each.type) for each in their.fields
            }
    for name, kind in ours.enum_types_by_name.items():
        assert kind.values_by_name.keys() == theirs.FindEnumTypeByName(f"inference.{name}").values_by_name.keys()


def _pairs(own: Any, their: Any) -> Iterator[tuple[Any, Any]]:
    yield own, their
    for nested in own.nested_types:
        yield from _pairs(nested, their.nested_types_by_name[nested.name])
