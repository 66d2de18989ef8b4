"""examples/azure_score, examples/studio_python and examples/pipeline do what they say."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.services import serving

EXAMPLES = Path(__file__).parents[2] / "examples"

pytestmark = pytest.mark.slow


def copied(name: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(EXAMPLES / name, tmp_path / name))


def test_azure_score(tmp_path: Path) -> None:
    with serving(copied("azure_score", tmp_path) / "score.py") as served:
        answer = served.post("/score", {"data": [{"rooms": 3, "area": 80}, {"rooms": 1, "area": 20}]})
        assert answer.json == [250000, 80000]
        assert served.get("/example").json == {"data": [{"rooms": 3, "area": 80}]}


def test_studio_python(tmp_path: Path) -> None:
    folder = copied("studio_python", tmp_path)
    zipped = [sys.executable, "-m", "zipfile", "-c", "fares.zip", "bundle/zones.py", "bundle/fees.csv"]
    subprocess.run(zipped, cwd=folder, check=True, timeout=30)
    with serving(folder / "fares.py") as served:
        assert served.post("/predict", {"zone": "A", "km": 3}).json == {"zone": "A", "km": 3, "fee": 1.5, "fare": 6.5}
        body = {"Inputs": {"input1": {"ColumnNames": ["zone", "km"], "Values": [["B", "10"]]}}}
        value = served.post("/execute?details=true", body).json["Results"]["output1"]["value"]
        assert value["Values"] == [["B", "10", "0.5", "7"]]


def test_pipeline(tmp_path: Path) -> None:
    folder = copied("pipeline", tmp_path)
    with serving(folder / "pipeline.toml") as served:
        assert served.post("/predict", [{"km": 4}, {"km": 400}]).json == [{"km": 4, "fare": 5.0}]
    command = [
        sys.executable,
        "-m",
        "paceline",
        "run",
        "pipeline.toml",
        "--input",
        "rides.csv",
        "--output",
        "fares.csv",
    ]
    subprocess.run(command, cwd=folder, check=True, timeout=100)
    assert (folder / "fares.csv").read_text() == "km,fare\n4,5.0\n10,7.0\n"
