"""Which changes of a service's folder make another fingerprint?"""

from __future__ import annotations

from pathlib import Path

import pytest

from paceline.engine import fingerprint as module
from paceline.engine.fingerprint import fingerprint


@pytest.fixture
def code(tmp_path: Path) -> Path:
    folder = tmp_path / "service"
    folder.mkdir()
    (folder / "service.py").write_text("def predict(batch): return batch")
    return folder / "service.py"


def test_every_file_counts_but_hidden_ones_and_caches(code: Path) -> None:
    before = fingerprint(code)
    assert fingerprint(code, "Other") != before
    for hidden in (".git", "__pycache__"):
        (code.parent / hidden).mkdir()
        (code.parent / hidden / "file").write_text("1")
    assert fingerprint(code) == before
    (code.parent / "weights.bin").write_bytes(b"1")
    assert fingerprint(code) != before


def test_what_a_link_points_to_counts(code: Path, tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    weights.mkdir()
    (weights / "model.bin").write_bytes(b"1")
    (code.parent / "weights").symlink_to(weights)
    before = fingerprint(code)
    (weights / "model.bin").write_bytes(b"2")
    assert fingerprint(code) != before


def test_a_link_in_a_circle_ends(code: Path) -> None:
    (code.parent / "self").symlink_to(code.parent)
    assert fingerprint(code) == fingerprint(code)


def test_of_too_many_files_there_are_no_two_alike(code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_FILES", 2)
    for index in range(3):
        (code.parent / f"{index}").touch()
    assert fingerprint(code) != fingerprint(code)
