"""`python -m benchmarks.peers`: real servers side by side, and what is left behind."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.alone,
    pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed"),
]


def peers(folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.peers", "--here", "--models", "mlp", "--connections", "1,2", *flags]
    return subprocess.run(
        [*command, "--quick", "--out", "out"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=110,
    )


def test_two_servers_are_measured_in_the_same_way(tmp_path: Path):
    done = peers(tmp_path, "--peers", "fastapi-one")
    assert done.returncode == 0, done.stderr
    assert "round 1/1: fastapi-one, mlp, json (" in done.stderr
    assert done.stdout == (tmp_path / "out" / "report.md").read_text() + "\n"
    assert "| FastAPI + uvicorn, 1 worker |" in done.stdout
    assert "<svg" in (tmp_path / "out" / "ratios.svg").read_text()

    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["schema"] == 1
    assert report["failures"] == {}
    assert report["versions"]["peers"]["fastapi"]["fastapi"]
    ours, theirs = report["cases"]
    assert (ours["server"], theirs["server"]) == ("paceline", "fastapi-one")
    for connections in ("1", "2"):
        (a,), (b,) = (each["connections"][connections]["rounds"] for each in (ours, theirs))
        assert a["rate"] > 0
        assert b["failed"] == 0
        assert theirs["connections"][connections]["ours_is"] == pytest.approx(a["rate"] / b["rate"])


@pytest.mark.skipif(shutil.which("mosec") is not None, reason="mosec is installed here")
def test_a_peer_that_does_not_start_is_told_and_the_rest_goes_on(tmp_path: Path):
    done = peers(tmp_path, "--peers", "mosec,fastapi-one")
    assert done.returncode == 1
    assert "| mosec | failed | failed |" in done.stdout
    assert "No module named 'mosec'" in done.stdout
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert set(report["failures"]) == {"mosec, mlp, json"}
    measured = [case["server"] for case in report["cases"] if case["connections"]["1"]["rounds"]]
    assert measured == ["paceline", "fastapi-one"]


def test_an_unknown_model_is_a_usage_error(tmp_path: Path):
    done = peers(tmp_path, "--models", "gpt")
    assert done.returncode == 2
    assert "unknown model 'gpt'; there are mlp, wide, forest, cnn, minilm, mileage" in done.stderr
    assert done.stdout == ""
