"""The article's experiment, with a few requests: real servers, real Locusts, and what it writes."""

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[2]
MODEL_S = 0.3


def experiment(out: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.article", "--quick", "--out", str(out), *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110)


@pytest.mark.slow
def test_a_few_requests_of_one_user(tmp_path: Path):
    keys = ["a", "c", "d", "e"]
    done = experiment(tmp_path, "--models", "device", "--set-ups", ",".join(keys), "--users", "1", "--seconds", "6")
    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "results.json").read_text())
    assert document["schema"] == 1
    model = document["models"]["device"]
    series = {each["set_up"]: each for each in model["series"]}
    assert sorted(series) == keys
    for key, each in series.items():
        assert each["failures"] == 0
        times_s = each["rounds_s"][0]
        assert len(times_s) == each["requests"] >= 1
        # Nothing can be faster than the model, nor (c) and (d) than their wait for company.
        assert min(times_s) >= (MODEL_S + 0.5 if key in "cd" else MODEL_S)
    assert model["instances"]["e"][0].isdigit()
    assert any("locust" in line for line in document["commands"])
    report = (tmp_path / "report.md").read_text()
    assert done.stdout.strip() == report.strip()
    assert "| (e) Paceline as it comes |" in report
    chart = ElementTree.parse(tmp_path / "response-times.svg").getroot()
    assert "published" in " ".join(chart.itertext())


@pytest.mark.slow
def test_what_cannot_be_measured_is_named(tmp_path: Path):
    done = experiment(tmp_path, "--set-ups", "a,z")
    assert done.returncode == 2
    assert "unknown set-up 'z'; there are a, b, c, d, e" in done.stderr
    assert not (tmp_path / "results.json").exists()
