"""TensorFlow Serving's gRPC API against real server processes: about models, and how they are replaced."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from paceline.server.messages import message
from paceline.testing import RunningServer, run_server
from support import grpcs
from support.repositories import put
from support.served import ServedModels
from support.tfs_grpcs import array_of, ask, refused, typed

WARM = ["--warmup-s", "0.05"]
HALF = {"name": "half_plus_two"}


@pytest.fixture(scope="module")
def half(served: ServedModels) -> Iterator[grpc.Channel]:
    with grpcs.connect(served["half_plus_two"].server) as channel:
        yield channel


@pytest.fixture(scope="module")
def two(served: ServedModels) -> Iterator[grpc.Channel]:
    with grpcs.connect(served["two"].server) as channel:
        yield channel


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tfs") / "models"
    for version in (3, 10):
        put(root, "times", version)
    put(root, "other", 1)
    return root


@pytest.fixture
def explicit(folder: Path) -> Iterator[RunningServer]:
    flags = ["--model-control-mode", "explicit", "--load-model", "times", "--version-policy", "all"]
    with run_server(folder, [*flags, *WARM]) as server:
        yield server


def signatures(channel: grpc.Channel, name: str) -> Any:
    answer = ask(channel, "GetModelMetadata", model_spec={"name": name}, metadata_field=["signature_def"])
    found = message("tensorflow.serving.SignatureDefMap")()
    assert answer.metadata["signature_def"].Unpack(found)
    assert list(found.signature_def) == ["serving_default"]
    return found.signature_def["serving_default"]


def test_metadata_is_the_signature(two: grpc.Channel):
    signature = signatures(two, "two")
    assert {name: info.dtype for name, info in signature.inputs.items()} == {"a": 1, "b": 9}
    assert [dim.size for dim in signature.outputs["sum"].tensor_shape.dim] == [-1, 2]
    assert signature.method_name == "tensorflow/serving/predict"


def test_metadata_must_be_asked_for_by_its_one_name(half: grpc.Channel):
    text = refused(half, "GetModelMetadata", model_spec=HALF)
    assert text == "GetModelMetadataRequest must specify at least one metadata_field"
    text = refused(half, "GetModelMetadata", model_spec=HALF, metadata_field=["x"])
    assert text == "Metadata field x is not supported"


def test_the_status_of_a_model(half: grpc.Channel):
    answer = ask(half, "GetModelStatus", model_spec=HALF)
    (status,) = answer.model_version_status
    assert (status.version, status.state, status.status.error_code) == (1, 30, 0)
    text = refused(half, "GetModelStatus", code="NOT_FOUND", model_spec={"name": "nothing"})
    assert text == "Could not find any versions of model nothing"


def test_models_are_not_replaced_unless_that_is_enabled(half: grpc.Channel):
    text = refused(half, "HandleReloadConfigRequest", code="FAILED_PRECONDITION", config={"model_config_list": {}})
    assert "--model-control-mode explicit" in text


@pytest.mark.slow
def test_a_reload_replaces_models_versions_and_labels(explicit: RunningServer, folder: Path):
    x = {"x": typed(np.float32([[1]]))}

    def answer(channel: grpc.Channel, name: str, **spec: Any) -> tuple[float, int]:
        response = ask(channel, "Predict", model_spec={"name": name, **spec}, inputs=x)
        return array_of(response.outputs["y"]).item(), response.model_spec.version.value

    def reload(channel: grpc.Channel, *configs: dict[str, Any]) -> Any:
        return ask(channel, "HandleReloadConfigRequest", config={"model_config_list": {"config": configs}})

    config = {"name": "times", "base_path": str(folder / "times")}
    with grpcs.connect(explicit) as channel:
        assert answer(channel, "times") == (10, 10)
        assert answer(channel, "times", version={"value": 3}) == (3, 3)
        other = {"name": "other", "base_path": str(folder / "other")}
        both = {"specific": {"versions": [3, 10]}}
        labels = {"stable": 3, "canary": 10}
        done = reload(channel, {**config, "model_version_policy": both, "version_labels": labels}, other)
        assert done.status.error_code == 0
        assert answer(channel, "times", version_label="stable") == (3, 3)
        assert answer(channel, "times", version_label="canary") == (10, 10)
        assert answer(channel, "other") == (1, 1)
        reload(channel, {**config, "model_version_policy": {"latest": {"num_versions": 1}}})
        text = refused(channel, "Predict", code="NOT_FOUND", model_spec={"name": "other"}, inputs=x)
        assert text == "Servable not found for request: Latest(other)"


@pytest.mark.slow
def test_a_reload_that_is_wrong_changes_nothing(explicit: RunningServer, folder: Path):
    config = {"name": "times", "base_path": str(folder / "times")}
    with grpcs.connect(explicit) as channel:
        text = refused(channel, "HandleReloadConfigRequest")
        assert text.startswith("ServerModelConfig type not supported by HandleReloadConfigRequest.")
        none = {**config, "model_version_policy": {"specific": {}}}
        for configs in ([config, config], [none], [{"name": "times", "base_path": "/etc"}]):
            refused(channel, "HandleReloadConfigRequest", config={"model_config_list": {"config": configs}})
        (status, *_) = ask(channel, "GetModelStatus", model_spec={"name": "times"}).model_version_status
        assert (status.version, status.state) == (10, 30)
