"""How do the packages that a script in R asks for get there? From a repository in a folder, by real R."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from paceline.testing import run_server
from support.r_services import needs_r, predict

pytestmark = [pytest.mark.slow, needs_r]

DESCRIPTION = """\
Package: tiny
Version: 0.1
Title: Doubles Numbers
Description: Doubles numbers.
Author: Paceline
Maintainer: Paceline <paceline@example.org>
License: Apache License 2.0
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("repository")
    source, built = folder / "tiny", folder / "src" / "contrib"
    (source / "R").mkdir(parents=True)
    built.mkdir(parents=True)
    (source / "DESCRIPTION").write_text(DESCRIPTION)
    (source / "NAMESPACE").write_text("export(twice)\n")
    (source / "R" / "twice.R").write_text(
        "twice <- function(x) getOption('tiny.times') * x\n.onLoad <- function(...) options(tiny.times = 2)\n"
    )
    subprocess.run(["R", "CMD", "build", str(source)], cwd=built, check=True, capture_output=True, timeout=60)
    index = 'tools::write_PACKAGES(".", type = "source")'
    subprocess.run(["Rscript", "-e", index], cwd=built, check=True, capture_output=True, timeout=60)
    return folder


@pytest.fixture
def service(tmp_path, repository) -> Path:
    (tmp_path / "model.R").write_text("library(tiny)\npredict_fn <- function(df) twice(df$x)\n")
    (tmp_path / "packages.txt").write_text("# what doubles\ntiny\nstats\n")
    (tmp_path / ".Rprofile").write_text(f'options(repos = c(local = "file://{repository}"))\n')
    return tmp_path


def refused(service: Path, **variables: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "paceline", "serve", str(service / "model.R"), "--port", "0"],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 4, done.stderr
    return done.stderr


def test_missing_packages_are_installed_once_beside_the_script(service):
    with run_server(service / "model.R", ["--warmup-s", "0"]) as server:
        assert predict(server, 4).json == 8.0
        assert "* DONE (tiny)" in server.output
    (library,) = [path for path in (service / ".paceline").glob("r-*") if path.is_dir()]
    assert (library / "tiny" / "DESCRIPTION").exists()
    assert not (library / "stats").exists()  # R has it
    with run_server(service / "model.R", ["--warmup-s", "0"]) as server:
        assert predict(server, 4).json == 8.0
        assert "installing" not in server.output


def test_a_package_that_a_call_loads_keeps_its_options_and_what_the_call_sets_is_gone(service):
    (service / "model.R").write_text(
        "predict_fn <- function(df) {\n"
        "  library(tiny)\n"
        "  seen <- getOption('digits')\n"
        "  options(digits = 3)\n"
        "  twice(df$x) + seen\n"
        "}\n"
    )
    with run_server(service / "model.R", ["--warmup-s", "0", "--instances", "1", "--no-deduplicate"]) as server:
        assert [predict(server, 4).json for _ in range(3)] == [15.0] * 3


def test_what_a_kill_left_half_installed_is_installed_anew(service):
    with run_server(service / "model.R", ["--warmup-s", "0"]):
        (library,) = [path for path in (service / ".paceline").glob("r-*") if path.is_dir()]
    (library / "installed.txt").unlink()
    (library / "tiny" / "DESCRIPTION").unlink()
    with run_server(service / "model.R", ["--warmup-s", "0"]) as server:
        assert predict(server, 4).json == 8.0


def test_fault_125_a_package_that_cannot_be_installed_is_named(service):
    (service / "packages.txt").write_text("tiny\nnosuch\n")
    stderr = refused(service)
    assert "R cannot install what it asks for" in stderr
    assert "not installed: nosuch" in stderr


def test_fault_125_without_a_repository_the_option_is_named(service):
    (service / ".Rprofile").write_text("options(repos = NULL)\n")
    assert "the option 'repos' is not set" in refused(service)


def test_a_line_that_is_no_name_is_refused(service):
    (service / "packages.txt").write_text("tiny\ntiny == 1.0\n")
    assert "packages.txt:2: expected the name of an R package, got 'tiny == 1.0'" in refused(service)
