"""pipeline.toml: what it may say, and what its mistakes are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from paceline.config.pipeline_file import read_pipeline
from paceline.core.errors import ConfigError

TWO = """
share_globals = true

[[modules]]
script = "clean.py"
bundle = "b.zip"

[[modules]]
name = "score"
script = "model.R"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("clean.py", "model.R", "b.zip", "clean.txt"):
        (tmp_path / name).touch()
    return tmp_path


def written(folder: Path, text: str) -> Path:
    path = folder / "pipeline.toml"
    path.write_text(text)
    return path


def test_names_scripts_and_bundles(folder: Path) -> None:
    file = read_pipeline(written(folder, TWO))
    assert file.share_globals
    assert [(each.name, each.script.name, each.is_r) for each in file.modules] == [
        ("clean", "clean.py", False),
        ("score", "model.R", True),
    ]
    assert [each.bundle for each in file.modules] == [folder / "b.zip", None]


def test_one_module_of_it(folder: Path) -> None:
    file = read_pipeline(written(folder, TWO))
    assert [each.name for each in file.only("score").modules] == ["score"]
    assert file.only(None) is file
    with pytest.raises(ConfigError, match="there is no module 'scores'") as caught:
        file.only("scores")
    assert caught.value.hint == "did you mean 'score'?"


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("", "needs [[modules]]", 'script = "clean.py"'),
        ("modules = []", "needs [[modules]]", "[[modules]]"),
        ("modules = [5]", "modules[0]: must be a table, got 5", ""),
        ("share_global = true", "share_global: unknown key (PATH line 1)", "did you mean 'share_globals'?"),
        ("share_globals = 1", "share_globals: must be true or false, got 1 (PATH line 1)", ""),
        ("\n[[modules]]\nscrpt = 'clean.py'", "modules[0].scrpt: unknown key (PATH line 2)", "did you mean 'script'?"),
        ("[[modules]]\nname = 'a'", "modules[0].script: is missing (PATH line 1)", ""),
        ("[[modules]]\nscript = 5", "modules[0].script: must be a string, got 5", ""),
        ("[[modules]]\nscript = 'clean.txt'", "must be a file .py or .R, got 'clean.txt'", ""),
        ("[[modules]]\nscript = 'other.py'", "other.py: no such file (PATH line 1)", ""),
        ("[[modules]]\nscript = 'clean.py'\nbundle = 'no.zip'", "modules[0].bundle: ", ""),
        ("[[modules]]\nscript = 'clean.py'\nname = 'a b'", "modules[0].name: must be letters", ""),
        (
            "[[modules]]\nscript = 'clean.py'\n\n[[modules]]\nscript = 'clean.py'",
            "modules: two are called 'clean' (PATH line 1 and PATH line 4)",
            "another `name`",
        ),
        ("[[modules]]\nscript = 'clean.py'\n" * 33, "33 modules: at most 32", ""),
        ("[[modules", "not valid TOML", ""),
    ],
)
def test_fault_004_mistakes(folder: Path, text: str, message: str, hint: str) -> None:
    path = written(folder, text)
    with pytest.raises(ConfigError) as caught:
        read_pipeline(path)
    assert message.replace("PATH", str(path)) in caught.value.message
    assert hint in (caught.value.hint or "")


def test_fault_001_no_file(folder: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        read_pipeline(folder / "other.toml")
