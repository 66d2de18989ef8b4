"""`paceline run`: the modules of a pipeline over one table, each in a clean interpreter."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet
import pytest

from support.services import serving, write
from support.wire import until

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


def run(folder: Path, *arguments: str, stdin: str | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "paceline", "run", *arguments]
    return subprocess.run(
        command, cwd=folder, env={**os.environ, **env}, input=stdin, capture_output=True, text=True, timeout=100
    )


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


def test_a_table_of_predictions_in_parquet(folder: Path) -> None:
    write(
        folder, mixed_py="def predict(row: dict):\n    return {'half': row['x'] / 2, 'mixed': row['x'] % 2 or 'even'}\n"
    )
    good(run(folder, "mixed.py", "--input", "-", "--output", "out.parquet", stdin="x\n1\n2\n"))
    table = pyarrow.parquet.read_table(folder / "out.parquet")
    assert table.to_pydict() == {"half": [0.5, 1.0], "mixed": ["1", "even"]}


def test_rows_pass_in_batches_of_the_size_that_a_class_takes(folder: Path) -> None:
    model = (
        "class M:\n    max_batch_size = 3\n    def predict(self, batch):\n        return [len(batch) for _ in batch]\n"
    )
    write(folder, sizes_py=model)
    assert parsed(good(run(folder, "sizes.py", "--input", "in.csv"))) == [["prediction"], ["3"], ["3"], ["3"], ["1"]]


def test_the_output_may_be_the_input_and_a_link(folder: Path) -> None:
    (folder / "link.csv").symlink_to("in.csv")
    good(run(folder, "double.py", "--input", "link.csv", "--output", "link.csv"))
    assert (folder / "link.csv").is_symlink()
    assert parsed((folder / "in.csv").read_text())[0] == ["x", "s", "when", "double"]
    assert not list(folder.glob("*.part"))


def test_the_marks_of_other_systems(folder: Path) -> None:
    (folder / "other.csv").write_bytes(b"\xef\xbb\xbfx,s\r\n3,\xc3\xbc\r\n\r\n")
    done = run(folder, "double.py", "--input", "other.csv", PYTHONIOENCODING="ascii")
    assert parsed(good(done)) == [["x", "s", "double"], ["3", "ü", "6"]]


def test_a_number_that_64_bits_cannot_hold_is_text(folder: Path) -> None:
    write(folder, same_py="def azureml_main(t):\n    return t\n")
    text = "x\n12345678901234567890123\n"
    assert good(run(folder, "same.py", "--input", "-", stdin=text)) == text


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)])
def test_an_interrupted_run_leaves_nothing(folder: Path, number: int, code: int) -> None:
    write(
        folder,
        sleeps_py="import pathlib, time\ndef azureml_main(t):\n    pathlib.Path('runs').touch()\n    time.sleep(60)\n",
    )
    (folder / "out.csv").write_text("of before")
    before = {path.name for path in folder.iterdir()} | {"runs"}
    command = [sys.executable, "-m", "paceline", "run", "sleeps.py", "--input", "in.csv", "--output", "out.csv"]
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True) as process:
        until(lambda: (folder / "runs").exists(), 30.0)
        process.send_signal(number)
        _, said = process.communicate(timeout=30)
    assert process.returncode == code
    assert "Traceback" not in said
    assert (folder / "out.csv").read_text() == "of before"
    assert {path.name for path in folder.iterdir()} - {"__pycache__"} == before - {"__pycache__"}


# -- what goes wrong --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("missing.py",), 4, "missing.py: no such file"),
        (("pipeline.toml",), 3, "pipeline.toml: no such file"),
        (("double.py", "--input", "missing.csv"), 3, "--input: missing.csv: no such file"),
        (("in.csv", "--input", "in.csv"), 3, "in.csv: expected pipeline.toml, or a module .py or .R"),
        (("double.py", "--input", "in.xlsx"), 3, "expected a file .csv or .parquet"),
        (("double.py", "--input", "ragged.csv"), 3, "ragged.csv: line 3: expected 2 fields, got 1"),
        (("double.py", "--input", "empty.csv"), 3, "the first line is empty: it has to name the columns"),
        (("double.py", "--input", "blank.csv"), 3, "the first line is empty"),
        (("double.py", "--input", "twice.csv"), 3, "--input: twice.csv: the column 'x' is there twice"),
        (("double.py", "--input", "semicolons.csv"), 3, "fields are separated by commas, and the header has none"),
        (("double.py", "--input", "latin.csv"), 3, "latin.csv: line 2: is not UTF-8; save the file in that encoding"),
        (("double.py", "--input", "quote.csv"), 3, "quote.csv: line 2: unexpected end of data"),
        (("double.py", "--input", "other.csv"), 1, "hint: its table has the columns miles"),
        (("needs.py",), 1, "hint: it was given no table: name a file with --input"),
        (("double.py", "--input", "in.csv", "--output", "."), 3, "--output: .: expected a file .csv"),
        (("double.py", "--input", "in.csv", "--output", "folder.csv"), 3, "--output: folder.csv: is a directory"),
        (("dies.py", "--input", "in.csv", "--output", "no/out.csv"), 3, "--output: no/out.csv: there is no folder"),
        (("double.py", "--timeout-s", "0.001"), 4, "hint: --timeout-s allows more"),
        (("sleeps.py", "--timeout-s", "5"), 1, "error: sleeps: it ran longer than 5 s\nhint: --timeout-s allows more"),
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
    (folder / "blank.csv").write_text("\n\n")
    (folder / "twice.csv").write_text("x,x\n1,2\n")
    (folder / "semicolons.csv").write_text("x;s\n1;2\n")
    (folder / "latin.csv").write_bytes(b"x,s\n1,\xfc\n")
    (folder / "quote.csv").write_text('x\n"1\n')
    (folder / "other.csv").write_text("miles\n1\n")
    (folder / "folder.csv").mkdir()
    main = "def azureml_main(t):\n    "
    write(folder, broken_py="def azureml_main(:\n", exits_py=f"import sys\n{main}sys.exit(3)\n")
    write(folder, needs_py=f"{main}return t['x']\n", sleeps_py=f"import time\n{main}time.sleep(60)\n")
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
    assert not list(folder.glob("*.part"))


def test_a_full_disk(folder: Path) -> None:
    command = [sys.executable, "-m", "paceline", "run", "double.py", "--input", "in.csv"]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(command, cwd=folder, stdout=full, stderr=subprocess.PIPE, text=True, timeout=100)
    assert done.returncode == 3
    assert done.stderr.splitlines()[-1] == "error: --output: -: no space left on device"
