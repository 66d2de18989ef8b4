"""Which versions are wanted, loaded and unloaded?"""

from __future__ import annotations

from pathlib import Path

import pytest

from paceline.engine.layout import ModelFiles, VersionFiles
from paceline.engine.policy import Tried, labels, settled, to_load, to_unload, wanted

OLD, NEW = (("model.onnx", 1, 1),), (("model.onnx", 2, 2),)


def disk(**fingerprints):
    return {version[1:]: VersionFiles(Path(version), marks) for version, marks in fingerprints.items()}


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("latest", ["10"]),
        ("latest:2", ["9", "10"]),
        ("latest:99", ["1", "2", "9", "10"]),
        ("all", ["1", "2", "9", "10"]),
        ("2,10", ["2", "10"]),
        ("02,77", ["2"]),
    ],
)
def test_policies(policy, expected):
    assert wanted(["10", "9", "1", "2"], policy) == expected


@pytest.mark.parametrize("policy", ["latest", "latest:3", "all", "1"])
def test_nothing_is_wanted_of_nothing(policy):
    assert wanted([], policy) == []


def test_labels():
    assert labels("stable=3,canary=04") == {"stable": "3", "canary": "4"}
    assert labels(None) == {}


def test_a_version_is_tried_once_for_each_state_of_its_files():
    versions = disk(v1=OLD, v2=NEW)
    assert to_load(versions, ["1", "2"], {}) == ["1", "2"]
    assert to_load(versions, ["1", "2"], {"1": Tried(OLD, True), "2": Tried(OLD, True)}) == ["2"]
    assert to_load(versions, ["2"], {"2": Tried(NEW, False)}) == []


def test_the_old_version_goes_once_the_new_one_serves():
    assert to_unload({"1", "2"}, ["2"], {"1": Tried(OLD, True), "2": Tried(OLD, True)}) == ["1"]


def test_a_version_that_failed_takes_the_place_of_none():
    assert to_unload({"1", "2"}, ["2"], {"1": Tried(OLD, True), "2": Tried(OLD, False)}) == []


def test_a_version_that_was_not_tried_yet_takes_the_place_of_none():
    assert to_unload({"1", "2"}, ["2"], {"1": Tried(OLD, True)}) == []


def test_a_version_that_has_gone_from_the_disk_goes_in_any_case():
    assert to_unload({"2"}, ["2"], {"1": Tried(OLD, True), "2": Tried(OLD, False)}) == ["1"]
    assert to_unload(set(), [], {"1": Tried(OLD, True)}) == ["1"]


def test_a_failed_version_that_is_not_wanted_any_more_is_forgotten():
    assert to_unload({"1", "2", "3"}, ["3"], {"2": Tried(OLD, False), "1": Tried(OLD, True)}) == ["2"]


def test_what_no_policy_wants_stays_while_it_is_there():
    assert to_unload({"1"}, [], {"1": Tried(OLD, True)}) == []


def test_files_that_change_are_not_settled():
    now = ModelFiles(Path("m"), disk(v1=NEW, v2=OLD))
    assert settled(now, now, ["1", "2"])
    assert settled(ModelFiles(Path("m"), disk(v1=OLD, v2=OLD)), now, ["2"])
    assert not settled(ModelFiles(Path("m"), disk(v1=OLD)), now, ["1"])
    assert not settled(ModelFiles(Path("m")), now, ["1"])
    assert not settled(None, now, ["1"])
