"""Does a name from a file stay in its folder?"""

from __future__ import annotations

from pathlib import Path

import pytest

from paceline.core.paths import is_inside, names_inside


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With links in it, and something beside it."""
    (tmp_path / "beside").mkdir()
    folder = tmp_path / "folder"
    (folder / "deep").mkdir(parents=True)
    for name, place in {"out": "../beside", "up": "..", "itself": ".", "circle": "circle", "in": "deep"}.items():
        (folder / name).symlink_to(place)
    return folder


@pytest.mark.parametrize("name", ["a.bin", "deep/a.bin", "in/a.bin", "itself/a.bin", "not/there", "..a", " "])
def test_what_is_in_the_folder(folder: Path, name: str) -> None:
    assert names_inside(name, folder)
    assert is_inside(folder / name, folder)


@pytest.mark.parametrize(
    "name",
    ["../beside", "deep/../../beside", "/etc/passwd", "out", "out/a", "up", "up/beside", "circle", "a\0b", "x" * 300],
)
def test_what_leads_out_of_it(folder: Path, name: str) -> None:
    assert not names_inside(name, folder)


@pytest.mark.parametrize("name", ["", ".", "itself", "a\\b", "deep/../a.bin"])
def test_what_is_no_plain_name_of_something_in_it(folder: Path, name: str) -> None:
    assert not names_inside(name, folder)
    assert is_inside(folder / name, folder)
