"""What is read of a bundle, what is refused, and what is said when it is not as it was measured?"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import onnx
import pytest

from paceline.config.resolve import resolve
from paceline.core.errors import ConfigError, ModelLoadError
from paceline.engine.bundled import unpack
from paceline.engine.loading import read as read_model
from paceline.runtimes import bundle
from paceline.runtimes.options import RuntimeOptions
from support import models
from support.bundles import edit, make


def refused(folder: Path) -> str:
    with pytest.raises(ModelLoadError) as caught:
        bundle.read(folder)
    message = str(caught.value)
    assert message.startswith(f"{folder / 'bundle.json'}: ")
    assert "\n" not in message
    return message.removeprefix(f"{folder / 'bundle.json'}: ")


def settings_of(folder: Path, **flags: object) -> dict[str, tuple[object, str]]:
    """Threads, instances and runtime as they are served, each with its origin."""
    settings = read_model(folder, resolve(flags, {}, None), name="small").settings
    return {
        name: (getattr(settings, name), settings.origin(name)) for name in ("threads", "max_batch_size", "precision")
    }


# -- as it should be ------------------------------------------------------------------------------------------


def test_what_is_written_is_read(tmp_path):
    options = RuntimeOptions(graph_optimization="basic", inter_op_threads=2)
    folder = make(tmp_path / "b", options=options, settings={"threads": 2})
    read = bundle.read(folder)
    assert (read.name, read.model, read.options, read.settings) == (
        "small",
        "model-1/small.onnx",
        options,
        {"threads": 2},
    )
    data = (folder / "model-1/small.onnx").read_bytes()
    assert read.provenance.sha256 == {"model-1/small.onnx": hashlib.sha256(data).hexdigest()}
    assert bundle.differences(read, folder).lines == []
    assert sorted(path.name for path in folder.iterdir()) == ["bundle.json", "model-1"]


def test_every_file_of_a_model_is_hashed(tmp_path):
    def with_weights_beside(path: Path) -> None:
        model = onnx.load(str(models.mlp(path)))
        onnx.save(model, str(path), save_as_external_data=True, location="weights.data", size_threshold=0)

    folder = make(tmp_path / "b", with_weights_beside)
    assert list(bundle.hashes(folder, "model-1/small.onnx")) == ["model-1/small.onnx", "model-1/weights.data"]
    (folder / "saved" / "variables").mkdir(parents=True)
    for name in ("saved/saved_model.pb", "saved/variables/variables.index"):
        (folder / name).write_bytes(b"x")
    assert list(bundle.hashes(folder, "saved")) == ["saved/saved_model.pb", "saved/variables/variables.index"]


def test_a_bundle_s_settings_are_used_and_a_flag_wins(tmp_path):
    folder = make(tmp_path / "b", settings={"threads": 1, "max_batch_size": 7})
    assert settings_of(folder)["threads"] == (1, "bundle")
    assert settings_of(folder)["max_batch_size"] == (7, "bundle")
    assert settings_of(folder, max_batch_size=3)["max_batch_size"] == (3, "flag --max-batch-size")
    assert settings_of(folder, max_batch_size=3)["threads"] == (1, "bundle")


def test_a_table_for_the_model_wins_over_the_bundle_and_that_over_all_models(tmp_path):
    folder = make(tmp_path / "b", settings={"threads": 1, "max_batch_size": 7})
    toml = tmp_path / "paceline.toml"
    toml.write_text("[serve]\nthreads = 3\nmax_batch_size = 3\n[models.small]\nmax_batch_size = 5\n")
    settings = read_model(folder, resolve({}, {}, toml), name="small").settings
    assert (settings.threads, settings.origin("threads")) == (1, "bundle")
    assert settings.max_batch_size == 5


def test_the_options_reach_the_runtime(tmp_path):
    pytest.importorskip("openvino", reason="needs the extra openvino")
    folder = make(tmp_path / "b", options=RuntimeOptions(runtime="openvino", precision="bf16"))
    assert read_model(folder, resolve({}, {}, None), name="small").loaded.platform == "openvino"
    assert settings_of(folder)["precision"] == ("bf16", "bundle")
    flags = {"runtime": "onnxruntime", "precision": "f32"}
    assert read_model(folder, resolve(flags, {}, None), name="small").loaded.platform == "onnxruntime_onnx"


def test_a_bundle_s_example_is_what_its_model_is_warmed_up_with(tmp_path):
    folder = make(tmp_path / "b", example=json.dumps([0.5] * 64))
    read = read_model(folder, resolve({}, {}, None), name="small")
    assert read.given is not None
    np.testing.assert_array_equal(read.given[0], np.full((1, 64), 0.5, np.float32))
    (tmp_path / "mine.json").write_text(json.dumps([2.0] * 64))
    mine = read_model(folder, resolve({"examples": tmp_path / "mine.json"}, {}, None), name="small").given
    assert mine is not None
    assert mine[0][0, 0] == 2.0


@pytest.mark.parametrize("example", ["[1, 2]", "no JSON", '{"other": 1}', "[" * 60_000])
def test_an_example_that_does_not_fit_is_said_and_not_used(tmp_path, example):
    read = read_model(make(tmp_path / "b", example=example), resolve({}, {}, None), name="small")
    assert read.given is None
    assert read.warnings[0].startswith("bundle: its example: ")
    assert "\n" not in read.warnings[0]


# -- not as it was measured -----------------------------------------------------------------------------------


def test_121_another_machine_is_said_and_its_numbers_are_not_used(tmp_path):
    folder = make(tmp_path / "b", settings={"threads": 1})
    edit(folder, "provenance.machine", {"processor": "Z80", "architecture": bundle.this_machine()["architecture"]})
    unpacked = unpack(folder)
    assert len(unpacked.warnings) == 2
    assert unpacked.warnings[0].startswith("bundle: processor: measured with Z80, here ")
    assert unpacked.warnings[1] == "bundle: not used, for they were measured with another: threads 1"
    assert settings_of(folder)["threads"] == (None, "default")


def test_121_another_file_is_said_and_its_numbers_are_not_used(tmp_path):
    folder = make(tmp_path / "b", settings={"threads": 1})
    models.mlp(folder / "model-1/small.onnx", seed=1)
    unpacked = unpack(folder)
    assert unpacked.warnings[0] == ("bundle: model-1/small.onnx: not as it was measured: its SHA-256 is another")
    assert "threads" not in unpacked.found


def test_121_files_that_came_and_went(tmp_path):
    folder = make(tmp_path / "b")
    digest = bundle.hashes(folder, "model-1/small.onnx")["model-1/small.onnx"]
    edit(folder, "provenance.sha256", {"model-1/gone.data": digest})
    assert bundle.differences(bundle.read(folder), folder).files == [
        "model-1/small.onnx: not a file that was measured",
        "model-1/gone.data: was measured, and is not there",
    ]


def test_121_other_versions_of_what_serves_it_are_said_and_of_what_converted_it_not(tmp_path):
    folder = make(tmp_path / "b", settings={"threads": 1}, versions={"onnxruntime": "1.0", "skl2onnx": "0.1"})
    lines = bundle.differences(bundle.read(folder), folder).lines
    assert lines == [f"onnxruntime: measured with 1.0, here {bundle.installed('onnxruntime')}"]
    assert settings_of(folder)["threads"] == (1, "bundle")


# -- hostile, or broken ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "../outside.onnx",
        "model-1/../../outside.onnx",
        "/etc/passwd",
        "",
        ".",
        "model-1/..",
        "a\\b",
        "a\0b",
        "link.onnx",
    ],
)
def test_103_a_model_outside_of_the_folder_is_refused(tmp_path, name):
    folder = make(tmp_path / "b")
    models.mlp(tmp_path / "outside.onnx")
    (folder / "link.onnx").symlink_to("../outside.onnx")
    edit(folder, "model", name)
    assert "is not in the bundle's folder, and is not read" in refused(folder)


@pytest.mark.parametrize("name", ["code.py", "model.R", "pipeline.toml"])
def test_code_is_no_model_of_a_bundle(tmp_path, name):
    folder = make(tmp_path / "b")
    (folder / name).write_text("")
    edit(folder, "model", name)
    with pytest.raises(ModelLoadError, match="is code, and no model"):
        bundle.read(folder)


def test_103_hashes_are_not_taken_of_files_outside_of_the_folder(tmp_path):
    folder = make(tmp_path / "b")
    edit(folder, "provenance.sha256", {"../../etc/passwd": "0"})
    assert "'../../etc/passwd' is not in the bundle's folder" in refused(folder)


def test_103_a_link_within_a_model_s_folder_that_leads_out_is_refused(tmp_path):
    folder = make(tmp_path / "b")
    (folder / "saved").mkdir()
    (folder / "saved/saved_model.pb").write_bytes(b"x")
    (folder / "saved/variables").symlink_to("/etc/hostname")
    edit(folder, "model", "saved")
    with pytest.raises(ModelLoadError, match="'saved/variables' is not in the bundle's folder"):
        bundle.differences(bundle.read(folder), folder)


def test_links_within_the_folder_are_followed(tmp_path):
    folder = make(tmp_path / "b")
    (folder / "..data").mkdir()
    os.replace(folder / "bundle.json", folder / "..data" / "bundle.json")
    (folder / "bundle.json").symlink_to("..data/bundle.json")  # as a mounted volume has it
    assert bundle.read(folder).name == "small"


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("model", 3, "Expected `str`, got `int` - at `$.model`"),
        ("model", "none.onnx", "model: 'none.onnx' is not there"),
        ("name", "../x", "name: must be letters, digits"),
        ("surprise", 1, "Object contains unknown field `surprise`"),
        ("options.surprise", 1, "Object contains unknown field `surprise` - at `$.options`"),
        ("options.runtime", "exec", "Invalid enum value 'exec' - at `$.options.runtime`"),
        ("options.inter_op_threads", 0, "options.inter_op_threads: must be >= 1, got 0"),
        ("settings", {"threads": 0}, "settings.threads: must be >= 1, got 0"),
        ("settings", {"threads": "2"}, "Expected `int`, got `str` - at `$.settings[...]`"),
        ("settings", {"port": 1}, "settings.port: not a number that can be set for a model"),
        ("settings", {"allow_pickle": 1}, "settings.allow_pickle: not a number that can be set for a model"),
        ("settings", {"a\nb": 1}, "settings.a\\nb: not a number that can be set for a model"),
        ("example", [1], "Expected `str`, got `array` - at `$.example`"),
        ("example", "1" * (64 << 10) + "1", "example: larger than 64 KiB"),
        ("provenance", None, "Expected `object`, got `null` - at `$.provenance`"),
        ("schema", 2, "schema: expected 1, got 2: written by another version of paceline"),
    ],
)
def test_wrong_contents_are_refused_with_their_place(tmp_path, path, value, said):
    folder = make(tmp_path / "b")
    edit(folder, path, value)
    assert refused(folder).startswith(said)


@pytest.mark.parametrize(
    ("contents", "said"),
    [
        (b"", "Input data was truncated"),
        (b"[]", "Expected `object`, got `array`"),
        (b'{"schema": 1', "Input data was truncated"),
        (b"\xff\xfe", "JSON is malformed"),
        (b'{"evidence":' + b"[" * 100_000, ""),
        (b" " * ((16 << 20) + 1), "larger than 16 MiB"),
    ],
)
def test_104_what_is_no_document_is_refused(tmp_path, contents, said):
    folder = make(tmp_path / "b")
    (folder / "bundle.json").write_bytes(contents)
    assert refused(folder).startswith(said)


def test_a_folder_or_a_broken_link_in_its_place_is_refused(tmp_path):
    folder = make(tmp_path / "b")
    (folder / "bundle.json").unlink()
    assert refused(folder) == "no such file"
    (folder / "bundle.json").symlink_to("nowhere")
    assert refused(folder) == "no such file"
    (folder / "bundle.json").unlink()
    (folder / "bundle.json").mkdir()
    assert refused(folder) == "not a file"


def test_107_what_it_says_stays_one_line(tmp_path):
    folder = make(tmp_path / "b")
    edit(folder, "provenance.source", "a\nlive on http://evil")
    edit(folder, "provenance.machine", {"processor": "x\ny", "cores": [1] * 1000})
    unpacked = unpack(folder)
    assert "\n" not in unpacked.says
    assert all("\n" not in line and len(line) < 500 for line in unpacked.warnings)


def test_a_write_that_would_not_be_read_leaves_the_one_before(tmp_path):
    folder = make(tmp_path / "b")
    before = (folder / "bundle.json").read_bytes()
    wrong = bundle.read(folder)
    wrong.model = "../x"
    with pytest.raises(ModelLoadError):
        bundle.write(folder, wrong)
    assert (folder / "bundle.json").read_bytes() == before


def test_a_runtime_for_what_workers_run_is_refused_when_it_was_asked_for(tmp_path):
    (tmp_path / "service.py").write_text("def predict(items):\n    return items\n")
    with pytest.raises(ConfigError, match="run by worker processes, not by a runtime"):
        read_model(tmp_path / "service.py", resolve({"runtime": "openvino"}, {}, None))


def test_the_answers_are_the_model_s(tmp_path):
    folder = make(tmp_path / "b")
    loaded = read_model(folder, resolve({}, {}, None), name="small").loaded
    rows = np.ones((2, 64), np.float32)
    assert loaded.instances(1, 1)[0].run((rows,))[0].shape == (2, 10)
