"""What is found in a folder of models?"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from paceline.core.errors import ModelLoadError
from paceline.engine.layout import ModelFiles, is_one_model, look, models_in
from paceline.runtimes.bundle import is_bundle
from support.bundles import make


def write(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"model")
    return root


def found(root: Path) -> dict[str, ModelFiles]:
    return look(models_in(root))


def test_models_and_versions(tmp_path):
    write(tmp_path, "a/1/model.onnx", "a/10/model.onnx", "a/9/model.onnx", "b/3/model.onnx", "README.md")
    models = found(tmp_path)
    assert {name: list(files.versions) for name, files in models.items()} == {"a": ["1", "9", "10"], "b": ["3"]}
    assert models["a"].versions["9"].file == tmp_path / "a/9/model.onnx"


def test_a_folder_of_versions_is_one_model(tmp_path):
    write(tmp_path, "half/1/model.onnx", "half/2/model.onnx")
    assert is_one_model(tmp_path / "half")
    assert not is_one_model(tmp_path)


def test_a_model_may_be_called_by_a_number(tmp_path):
    assert list(found(write(tmp_path, "7/1/model.onnx"))) == ["7"]
    assert not is_one_model(tmp_path)


def test_what_is_hidden_is_not_there(tmp_path):
    write(tmp_path, ".git/1/model.onnx", "a/1/model.onnx", "a/.2/model.onnx", "a/1/.model.onnx.swp")
    models = found(tmp_path)
    assert list(models) == ["a"]
    assert list(models["a"].versions) == ["1"]
    assert [name for name, *_ in models["a"].versions["1"].fingerprint[1:]] == ["model.onnx"]


def test_versions_are_numbers_without_leading_zeros(tmp_path):
    write(tmp_path, "a/007/model.onnx", "a/latest/model.onnx", f"a/{2**63 - 1}/model.onnx", f"a/{2**63}/model.onnx")
    assert list(found(tmp_path)["a"].versions) == ["7", str(2**63 - 1)]


def test_of_one_number_written_twice_the_plain_one_counts(tmp_path):
    write(tmp_path, "a/01/model.onnx", "a/1/model.onnx")
    assert found(tmp_path)["a"].versions["1"].folder == tmp_path / "a/1"


@pytest.mark.parametrize(
    ("files", "chosen"),
    [
        (("other.onnx",), "other.onnx"),
        (("other.onnx", "labels.txt"), "other.onnx"),
        (("model.onnx", "other.onnx"), "model.onnx"),
        (("model.keras", "model.onnx", "service.py"), "model.onnx"),
        (("saved_model.pb", "variables/variables.index"), ""),
        (("model.savedmodel/saved_model.pb", "labels.txt"), "model.savedmodel"),
        (("saved_model.pb", "service.py"), "service.py"),
        (("model.pkl", "score.py"), "score.py"),
        (("model.xml", "model.bin"), "model.xml"),
        (("model.json", "labels.txt"), "model.json"),
        (("MODEL.TXT", "labels.txt"), "MODEL.TXT"),
        (("forest.ubj", "config.json"), "forest.ubj"),
        (("model.pt", "first.pt"), "model.pt"),
        (("model.pt2", "model.pt"), "model.pt2"),
        (("forest.joblib",), "forest.joblib"),
    ],
)
def test_the_file_of_a_version(tmp_path, files, chosen):
    write(tmp_path, *(f"a/1/{name}" for name in files))
    assert found(tmp_path)["a"].versions["1"].file == tmp_path / "a/1" / chosen


def test_a_bundle_is_served_before_anything_else(tmp_path):
    make(tmp_path / "a/1")
    write(tmp_path, "a/1/model.onnx", "a/1/service.py", "a/1/saved_model.pb")
    assert found(tmp_path)["a"].versions["1"].file == tmp_path / "a/1"


def test_a_bundle_that_is_broken_is_one_still(tmp_path):
    file = make(tmp_path / "a/1") / "bundle.json"
    file.write_bytes(file.read_bytes()[:40])
    assert found(tmp_path)["a"].versions["1"].file == tmp_path / "a/1"


@pytest.mark.parametrize("content", ['{"name": "web", "version": 2}', "[]", '{"schema": "x", "model": 1}', "7"])
def test_another_s_file_that_is_called_like_a_bundle_s_makes_none(tmp_path, content):
    write(tmp_path, "a/1/model.onnx", "b/1/saved_model.pb")
    for name in ("a", "b"):
        (tmp_path / name / "1/bundle.json").write_text(content)
    models = found(tmp_path)
    assert models["a"].versions["1"].file == tmp_path / "a/1/model.onnx"
    assert models["b"].versions["1"].file == tmp_path / "b/1"
    assert not is_bundle(tmp_path / "b/1")


def test_a_study_beside_a_bundle_does_not_change_its_fingerprint(tmp_path):
    folder = make(tmp_path / "a/1")
    before = found(tmp_path)
    write(folder, "study/steps/1/model.onnx", "report.html", "model-2/small.onnx", ".model-3.part/small.onnx")
    assert found(tmp_path) == before
    for name in ("model-1/small.onnx", "model-1/weights.bin", "bundle.json"):
        write(folder, name)
        after = found(tmp_path)
        assert after["a"].versions["1"].fingerprint != before["a"].versions["1"].fingerprint
        before = after


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        (("a.onnx", "b.onnx"), "several models, and none is called model.onnx: a.onnx, b.onnx"),
        (("a.keras", "b.ubj"), "several models, and none is called model.*: a.keras, b.ubj"),
        (("saved_model.pbtxt",), "a TensorFlow SavedModel as text, which is not read; expected saved_model.pb"),
        (("labels.txt", "config.json", "net.xml"), "no model: expected bundle.json, saved_model.pb, a file of a"),
        (("weights.bin",), "no model: expected bundle.json, saved_model.pb, a file of a model (*.onnx, *.keras, "),
    ],
)
def test_a_version_without_a_readable_file_says_why(tmp_path, files, problem):
    write(tmp_path, *(f"a/1/{name}" for name in files))
    version = found(tmp_path)["a"].versions["1"]
    assert version.file is None
    assert version.problem.startswith(f"{tmp_path}/a/1: {problem}")


def test_a_model_without_versions_says_so(tmp_path):
    write(tmp_path, "a/model.onnx", "b/1/model.onnx")
    models = found(tmp_path)
    assert models["a"].problem.startswith(f"{tmp_path}/a: no version: ")
    assert not models["b"].problem


@pytest.mark.parametrize("name", ["a b", 'a"b', "a\nb", "ä", "-a", "x" * 129])
def test_a_name_that_may_not_stand_in_an_address_is_refused(tmp_path, name):
    write(tmp_path, f"{name}/1/model.onnx", "good/1/model.onnx")
    models = found(tmp_path)
    assert "is no name for a model" in models[name].problem
    assert "\n" not in models[name].problem
    assert list(models["good"].versions) == ["1"]


@pytest.mark.parametrize("changed", ["a/1/model.onnx", "a/1/deep/weights.bin", "a/config.pbtxt"])
@pytest.mark.parametrize("how", ["size", "time"])
def test_the_fingerprint_changes_with_any_file(tmp_path, changed, how):
    write(tmp_path, "a/1/model.onnx", "a/1/deep/weights.bin", "a/config.pbtxt", "a/2/model.onnx")
    before = found(tmp_path)["a"].versions
    assert found(tmp_path)["a"].versions == before
    if how == "size":
        (tmp_path / changed).write_bytes(b"longer than before")
    else:
        os.utime(tmp_path / changed, ns=(1, 1))
    after = found(tmp_path)["a"].versions
    assert after["1"].fingerprint != before["1"].fingerprint
    assert (after["2"].fingerprint != before["2"].fingerprint) is (changed == "a/config.pbtxt")


def test_a_file_that_is_new_changes_the_fingerprint(tmp_path):
    write(tmp_path, "a/1/model.onnx")
    before = found(tmp_path)
    write(tmp_path, "a/1/weights.bin")
    assert found(tmp_path) != before


def test_a_link_that_leads_upwards_ends(tmp_path):
    write(tmp_path, "a/1/model.onnx")
    (tmp_path / "a/1/again").symlink_to(tmp_path / "a/1")
    assert found(tmp_path)["a"].versions["1"].file is not None


def test_links_that_lead_nowhere_are_no_reason_to_find_nothing_else(tmp_path):
    write(tmp_path, "a/1/model.onnx")
    for place in (tmp_path, tmp_path / "a", tmp_path / "a/1"):
        (place / "latest").symlink_to("gone")
        (place / "circle").symlink_to("circle")
    (tmp_path / "a/config.pbtxt").symlink_to("gone")
    models = found(tmp_path)
    assert list(models) == ["a"]
    assert not models["a"].versions["1"].problem


def test_what_lies_beside_the_versions_and_is_no_configuration_changes_no_fingerprint(tmp_path):
    write(tmp_path, "a/1/model.onnx", "a/train.log")
    before = found(tmp_path)
    (tmp_path / "a/train.log").write_text("epoch 2, and so on")
    assert found(tmp_path) == before


def test_links_to_versions_are_followed(tmp_path):
    write(tmp_path, "store/v1/model.onnx")
    (tmp_path / "models/a").mkdir(parents=True)
    (tmp_path / "models/a/1").symlink_to(tmp_path / "store/v1")
    assert found(tmp_path / "models")["a"].versions["1"].file == tmp_path / "models/a/1/model.onnx"


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_folder_that_cannot_be_read_is_not_taken_for_an_empty_one(tmp_path):
    write(tmp_path, "a/1/model.onnx")
    (tmp_path / "a").chmod(0)
    try:
        assert found(tmp_path)["a"].unreadable
    finally:
        (tmp_path / "a").chmod(0o755)


def test_a_folder_that_is_gone_is_no_model(tmp_path):
    assert look({"a": tmp_path / "none"}) == {}


def test_a_repository_that_is_not_there(tmp_path):
    with pytest.raises(ModelLoadError, match="no such file or directory"):
        is_one_model(tmp_path / "none")
