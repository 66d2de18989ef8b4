"""Which .keras files are opened? Decided on their configuration, before Keras sees them."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from paceline.core.errors import ModelLoadError, UnsafeModel
from paceline.runtimes.keras_file import check

DENSE = {"module": "keras.layers", "class_name": "Dense", "config": {"units": 1}, "registered_name": None}


def model_of(*layers: Any, **more: Any) -> dict[str, Any]:
    config = {"name": "m", "layers": list(layers)}
    return {"module": "keras", "class_name": "Sequential", "config": config, **more}


def archive(path: Path, **members: bytes | str) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def saved(folder: Path, config: Any) -> Path:
    return archive(folder / "m.keras", **{"metadata.json": "{}", "config.json": json.dumps(config)})


def test_layers_of_keras_are_opened(tmp_path: Path) -> None:
    values = {"class_name": "__tuple__", "items": [1, 2]}
    activation = {"module": "builtins", "class_name": "function", "config": "relu", "registered_name": "function"}
    check(saved(tmp_path, model_of(DENSE, {**DENSE, "config": {"size": values, "activation": activation}})))


def test_what_only_training_needs_is_not_looked_at(tmp_path: Path) -> None:
    loss = {"module": "my_losses", "class_name": "function", "config": "focal"}
    check(saved(tmp_path, model_of(DENSE, compile_config={"loss": loss})))


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        ({"module": "keras.layers", "class_name": "Lambda", "config": {}}, "a Lambda layer"),
        ({"class_name": "__lambda__", "config": {"value": "code"}}, "a Lambda layer"),
        ({"module": "keras.layers", "class_name": "TFSMLayer", "config": {}}, "TFSMLayer"),
        ({"module": None, "class_name": "Mine", "config": {}}, "a class of your own: Mine"),
        ({"module": "os", "class_name": "system", "config": {}}, "a class of your own: system of os"),
        ({"module": "keras_evil", "class_name": "Dense", "config": {}}, "Dense of keras_evil"),
        ({"module": ["keras"], "class_name": "Dense", "config": {}}, "a class of your own"),
    ],
)
@pytest.mark.parametrize("depth", [0, 3])
def test_fault_102_what_could_run_code_is_refused_wherever_it_stands(
    tmp_path: Path, layer: dict[str, Any], said: str, depth: int
) -> None:
    for _ in range(depth):
        layer = model_of(DENSE, layer)
    with pytest.raises(UnsafeModel, match=said):
        check(saved(tmp_path, model_of(layer)))


@pytest.mark.parametrize("name", ["../out.h5", "/etc/out.h5", "a/../../b", "a\\..\\b"])
def test_fault_101_a_member_that_leads_out_is_refused(tmp_path: Path, name: str) -> None:
    path = archive(tmp_path / "m.keras", **{"config.json": json.dumps(model_of(DENSE)), name: b"x"})
    with pytest.raises(ModelLoadError, match="leads out of the archive"):
        check(path)


def test_fault_101_a_member_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, model_of(DENSE))
    with zipfile.ZipFile(path, "a") as file, pytest.warns(UserWarning, match="Duplicate name"):
        file.writestr("config.json", "{}")
    with pytest.raises(ModelLoadError, match="holds a file twice"):
        check(path)


def test_fault_101_a_member_that_unpacks_to_far_more_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "m.keras", **{"config.json": "{}", "model.weights.h5": bytes(80 << 20)})
    with pytest.raises(ModelLoadError, match="a bomb"):
        check(path)


@pytest.mark.parametrize(
    "config",
    ["", "{", "[]", "null", "[" * 100_000, b"\xff\xfe"],
    ids=["empty", "open", "list", "null", "deep", "bytes"],
)
def test_fault_002_a_configuration_that_is_none_is_refused(tmp_path: Path, config: str | bytes) -> None:
    with pytest.raises(ModelLoadError, match=r"m\.keras: cannot be read: config\.json is no "):
        check(archive(tmp_path / "m.keras", **{"config.json": config}))


@pytest.mark.parametrize("keep", [0, 10, 100])
def test_fault_002_a_cut_off_file_is_refused(tmp_path: Path, keep: int) -> None:
    path = saved(tmp_path, model_of(DENSE))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ModelLoadError, match="cannot be read: File is not a zip file") as raised:
        check(path)
    assert raised.value.hint


def test_an_archive_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"it has no config\.json"):
        check(archive(tmp_path / "m.keras", **{"readme.txt": "hello"}))
