"""`paceline run`: the modules of a pipeline over one table, each in a clean interpreter."""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet
import pytest

from support.services import serving, write

pytestmark = pytest.mark.slow
needs_r = pytest.mark.skipif(shutil.which("R") is None, reason="R is not installed")

DOUBLE = """
import os
print("initialised")
calls = 0

def azureml_main(dataframe1=None, dataframe2=None, parameters=None):
    global calls
    calls += 1
    dataframe1["double"] = dataframe1["x"] * int((parameters or {}).get("by", 2))
    if (parameters or {}).get("calls"):
        dataframe1["calls"] = calls
        dataframe1["pid"] = os.getpid()
    return dataframe1
"""
DROP = """
def azureml_main(dataframe1, dataframe2=None):
    return dataframe1.dropna().reset_index(), None
"""
HALF = "def predict(row: dict):\n    return {**row, 'half': (row['double'] or 0) / 2, 'ok': True}\n"
LENGTH = 'df <- maml.mapInputPort(1)\ndf$length <- nchar(df$s)\nmaml.mapOutputPort("df")\n'
TABLE = 'x,s,when\n1,a,2024-02-29\n2,"b, c",\n,grün,\n4,,2024-03-01\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path, double_py=DOUBLE, drop_py=DROP, half_py=HALF, length_R=LENGTH)
    (tmp_path / "in.csv").write_text(TABLE, encoding="utf-8")
    return tmp_path


def pipeline(folder: Path, *scripts: str) -> Path:
    path = folder / "pipeline.toml"
    path.write_text("".join(f'[[modules]]\nscript = "{script}"\n' for script in scripts))
    return path


def run(folder: Path, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "paceline", "run", *arguments]
    return subprocess.run(command, cwd=folder, input=stdin, capture_output=True, text=True, timeout=100)


def good(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout


def parsed(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text)))


@pytest.mark.parametrize(
    "scripts",
    [
        ("double.py",),
        ("drop.py", "double.py"),
        ("double.py", "drop.py", "half.py"),
        pytest.param(("length.R",), marks=needs_r),
        pytest.param(("double.py", "length.R", "half.py"), marks=needs_r),
    ],
    ids="+".join,
)
def test_the_same_table_as_over_execute(folder: Path, scripts: tuple[str, ...]) -> None:
    path = folder / scripts[0] if len(scripts) == 1 else pipeline(folder, *scripts)
    header, *offline = parsed(good(run(folder, str(path), "--input", "in.csv")))
    names, *values = parsed(TABLE)
    with serving(path) as served:
        body = {"Inputs": {"input1": {"ColumnNames": names, "Values": values}}, "GlobalParameters": {}}
        answer = served.post("/execute?api-version=2.0&details=true", body)
    assert answer.status == 200, answer.text
    table = answer.json["Results"]["output1"]["value"]
    assert table["ColumnNames"] == header
    assert [[value or "" for value in row] for row in table["Values"]] == [list(map(as_studio, row)) for row in offline]


def as_studio(field: str) -> str:
    """Studio writes 1.0 as 1."""
    return field.removesuffix(".0")


def test_each_run_initialises_a_clean_interpreter(folder: Path) -> None:
    pids = set()
    for _ in range(2):
        done = run(folder, "double.py", "--input", "in.csv", "--parameter", "calls=1")
        names, first, *_ = parsed(good(done))
        row = dict(zip(names, first, strict=True))
        assert row["calls"] == "1"
        assert done.stderr.count("initialised") >= 1
        pids.add(row["pid"])
    assert len(pids) == 2


def test_each_module_has_an_interpreter_of_its_own(folder: Path) -> None:
    shutil.copy(folder / "double.py", folder / "again.py")
    (folder / "again.py").write_text(DOUBLE.replace('["pid"]', '["other"]'))
    path = pipeline(folder, "double.py", "again.py")
    names, first, *_ = parsed(good(run(folder, str(path), "--input", "in.csv", "--parameter", "calls=1")))
    row = dict(zip(names, first, strict=True))
    assert row["pid"] != row["other"]


def test_files_parameters_and_a_summary(folder: Path) -> None:
    path = pipeline(folder, "drop.py", "double.py")
    done = run(folder, str(path), "--input", "in.csv", "--output", "out.csv", "--parameter", "by=10", "--json")
    summary = json.loads(good(done))
    assert (summary["output"], summary["rows"]) == ("out.csv", 3)
    assert [module["name"] for module in summary["modules"]] == ["drop", "double"]
    assert "paceline: drop: 3 rows in" in done.stderr
    assert parsed((folder / "out.csv").read_text())[1:] == [
        ["0", "1.0", "a", "2024-02-29", "10.0"],
        ["1", "2.0", "b, c", "", "20.0"],
        ["3", "4.0", "", "2024-03-01", "40.0"],
    ]


def test_stdin_and_stdout(folder: Path) -> None:
    assert parsed(good(run(folder, "double.py", "--input", "-", stdin="x\n3\n"))) == [["x", "double"], ["3", "6"]]


def test_two_tables(folder: Path) -> None:
    write(folder, join_py="def azureml_main(a, b):\n    return a.merge(b), b\n")
    (folder / "more.csv").write_text("x,y\n1,one\n4,four\n")
    done = run(folder, "join.py", "--input", "in.csv", "--input2", "more.csv")
    assert [row[-1] for row in parsed(good(done))] == ["y", "one", "four"]
    assert "2 tables came out; the first is written" in done.stderr


def test_parquet(folder: Path) -> None:
    write(
        folder,
        kinds_py=(
            "import pandas as pd\n"
            "def azureml_main(t):\n"
            "    t['d'] = pd.to_datetime(t['when'], errors='coerce')\n"
            "    t['i'] = pd.array([1, None, 3, 4], 'Int64')\n"
            "    t['b'] = t['i'].notna()\n"
            "    return t\n"
        ),
        told_py="def azureml_main(t):\n    return t.dtypes.astype(str).to_frame().T\n",
    )
    good(run(folder, "kinds.py", "--input", "in.csv", "--output", "out.parquet"))
    table = pyarrow.parquet.read_table(folder / "out.parquet")
    types = {field.name: str(field.type) for field in table.schema}
    assert types == {"x": "double", "s": "string", "when": "string", "d": "timestamp[us]", "i": "int64", "b": "bool"}
    assert table.column("i").to_pylist() == [1, None, 3, 4]
    names, told = parsed(good(run(folder, "told.py", "--input", "out.parquet")))
    assert dict(zip(names, told, strict=True))["d"].startswith("datetime64")


def test_rows_of_a_function_alone(folder: Path) -> None:
    assert parsed(good(run(folder, "half.py", "--input", "-", stdin="double\n3\n"))) == [
        ["double", "half", "ok"],
        ["3", "1.5", "True"],
    ]


# -- what goes wrong --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("missing.py",), 4, "missing.py: no such file"),
        (("pipeline.toml",), 3, "pipeline.toml: no such file"),
        (("double.py", "--input", "missing.csv"), 3, "--input: missing.csv: no such file"),
        (("double.py", "--input", "in.xlsx"), 3, "expected a file .csv or .parquet"),
        (("double.py", "--input", "ragged.csv"), 3, "ragged.csv: line 3: expected 2 fields, got 1"),
        (("double.py", "--input", "empty.csv"), 3, "is empty"),
        (("double.py", "--parameter", "by"), 2, "expected NAME=VALUE, got 'by'"),
        (("double.py", "--json"), 2, "both write to stdout"),
        (("drop.py", "--input", "in.csv", "--parameter", "by=2"), 3, "--parameter by: no module takes `parameters`"),
        (("half.py",), 1, "half takes rows"),
        (("half.py", "--input", "in.csv"), 1, "KeyError: 'double'"),
        (("double.py", "--input", "in.csv", "--input2", "in.csv", "--output", "no/folder/out.csv"), 3, "--output: no/"),
        (("broken.py", "--input", "in.csv"), 4, "broken.py"),
        (("exits.py", "--input", "in.csv"), 1, "SystemExit"),
        (("dies.py", "--input", "in.csv"), 1, "the worker died: killed by SIGKILL"),
    ],
)
def test_mistakes_and_failures(folder: Path, arguments: tuple[str, ...], code: int, said: str) -> None:
    (folder / "ragged.csv").write_text("a,b\n1,2\n3\n")
    (folder / "empty.csv").touch()
    main = "def azureml_main(t):\n    "
    write(folder, broken_py="def azureml_main(:\n", exits_py=f"import sys\n{main}sys.exit(3)\n")
    write(folder, dies_py=f"import os, signal\n{main}os.kill(os.getpid(), signal.SIGKILL)\n")
    done = run(folder, *arguments)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert done.stdout == ""
    assert "paceline/workers" not in done.stderr


def test_a_run_that_fails_leaves_the_output_as_it_was(folder: Path) -> None:
    (folder / "out.csv").write_text("of before")
    assert run(folder, "half.py", "--input", "in.csv", "--output", "out.csv").returncode == 1
    assert (folder / "out.csv").read_text() == "of before"
    assert not (folder / "out.csv.part").exists()
