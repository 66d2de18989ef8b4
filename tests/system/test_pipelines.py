"""Several modules in one service: each with its own names, in one interpreter, and data passes through them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest

from support.served import Served
from support.services import serving, write

pytestmark = pytest.mark.slow
needs_r = pytest.mark.skipif(shutil.which("R") is None, reason="R is not installed")

IDENTITY = "def azureml_main(dataframe1=None, dataframe2=None):\n    return dataframe1\n"


def pipeline(folder: Path, *modules: str, top: str = "") -> Path:
    """A pipeline.toml; a module is `script` or `script+bundle`."""
    text = top
    for module in modules:
        script, _, bundle = module.partition("+")
        text += f'\n[[modules]]\nscript = "{script}"\n' + (f'bundle = "{bundle}"\n' if bundle else "")
    path = folder / "pipeline.toml"
    path.write_text(text)
    return path


def bundle(path: Path, **files: str) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            stem, _, suffix = name.rpartition("_")
            archive.writestr(f"{stem}.{suffix}", text)


def refused(path: Path, code: int) -> str:
    """What `paceline serve` says of a pipeline that it refuses."""
    command = [sys.executable, "-m", "paceline", "serve", str(path), "--port", "0", "--host", "127.0.0.1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == code, done.stderr
    assert "live on" not in done.stderr
    assert "paceline/workers" not in done.stderr
    return done.stderr


def rows(served: Served, *given: dict[str, Any]) -> list[dict[str, Any]]:
    answer = served.post("/predict", {"dataframe1": list(given)})
    assert answer.status == 200, answer.text
    found: list[dict[str, Any]] = answer.json["output1"]
    return found


# -- one interpreter, a namespace for each ----------------------------------------------------------------

USES_HELPER = """
import os
import helper
name = helper.NAME
calls = 0

def azureml_main(dataframe1=None, dataframe2=None):
    global calls
    calls += 1
    import lazy
    from pkg import inner
    dataframe1["NAME"] = " ".join(
        [name, helper.NAME, lazy.NAME, inner.NAME, open("Script Bundle/data.txt").read(), str(calls), str(os.getpid())]
    )
    return dataframe1
"""


def named_bundle(path: Path, name: str) -> None:
    code = f"NAME = {name!r}"
    with zipfile.ZipFile(path, "w") as archive:
        for file in ("helper.py", "lazy.py", "pkg/inner.py"):
            archive.writestr(file, code)
        archive.writestr("data.txt", name)


def test_equal_names_in_two_modules_and_their_bundles_do_not_collide(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.py").write_text(USES_HELPER.replace('["NAME"]', f'["{name}"]'))
        named_bundle(tmp_path / f"{name}.zip", name)
    with serving(pipeline(tmp_path, "a.py+a.zip", "b.py+b.zip")) as served:
        for call in ("1", "2", "3"):
            (row,) = rows(served, {"x": 1})
            *first, first_pid = row["a"].split()
            *second, second_pid = row["b"].split()
            assert first == ["a"] * 5 + [call]
            assert second == ["b"] * 5 + [call]
            assert first_pid == second_pid, "they share one interpreter"


def test_a_module_beside_the_scripts_is_each_one_s_own(tmp_path: Path) -> None:
    script = """
import pandas, common
common.users.append(__name__)
def azureml_main(dataframe1):
    dataframe1[__name__] = [[*common.users, id(pandas)]]
    return dataframe1
"""
    write(tmp_path, one_py=script, two_py=script, common_py="users = []\n")
    with serving(pipeline(tmp_path, "one.py", "two.py")) as served:
        (row,) = rows(served, {"x": 1})
        assert row["one"][:-1] == ["one"]
        assert row["two"][:-1] == ["two"]
        assert row["one"][-1] == row["two"][-1], "what is installed is shared"


def test_a_pickled_object_finds_the_class_of_its_own_bundle(tmp_path: Path) -> None:
    script = """
import pickle
with open("Script Bundle/model.pkl", "rb") as file:
    model = pickle.load(file)
def azureml_main(dataframe1):
    dataframe1[__name__] = model.says()
    return dataframe1
"""
    write(tmp_path, one_py=script, two_py=script)
    # An instance of `shapes.Shape` without a state, in pickle's oldest protocol.
    pickled = "(ishapes\nShape\n."
    for name in ("one", "two"):
        bundle(
            tmp_path / f"{name}.zip",
            shapes_py=f"class Shape:\n    def says(self): return {name!r}\n",
            model_pkl=pickled,
        )
    with serving(pipeline(tmp_path, "one.py+one.zip", "two.py+two.zip")) as served:
        assert rows(served, {"x": 1}) == [{"x": 1, "one": "one", "two": "two"}]


def test_a_module_that_an_earlier_one_has_imported_from_elsewhere_is_found_first(tmp_path: Path) -> None:
    script = "import colorsys\ndef azureml_main(t):\n    t[__name__] = hasattr(colorsys, 'OWN')\n    return t\n"
    for name, files in (("one", {}), ("two", {"colorsys_py": "OWN = True\n"})):
        write(tmp_path / name, **{f"{name}_py": script}, **files)
    # It lies where `import pandas` would look, were there nothing better.
    (tmp_path / "two" / "pandas").mkdir()
    with serving(pipeline(tmp_path, "one/one.py", "two/two.py")) as served:
        assert rows(served, {"x": 1}) == [{"x": 1, "one": False, "two": True}]


def test_processes_and_threads_of_a_module_see_what_it_sees(tmp_path: Path) -> None:
    script = """
import multiprocessing
from concurrent.futures import ThreadPoolExecutor

def name(_):
    import lazy
    return lazy.NAME

def azureml_main(dataframe1):
    with ThreadPoolExecutor(1) as threads:
        found = list(threads.map(name, [0]))
    for method in ("spawn", "fork"):
        with multiprocessing.get_context(method).Pool(1) as pool:
            found += pool.map(name, [0])
    dataframe1[__name__] = " ".join(found)
    return dataframe1
"""
    for each in ("one", "two"):
        write(tmp_path / each, **{f"{each}_py": script}, lazy_py=f"NAME = {each!r}\n")
    with serving(pipeline(tmp_path, "one/one.py", "two/two.py")) as served:
        assert rows(served, {"x": 1}) == [{"x": 1, "one": "one one one", "two": "two two two"}]


def test_each_script_has_the_folder_of_its_own_model(tmp_path: Path) -> None:
    script = """
import json, os
def init(): ...
def run(data):
    return json.loads(data) + [os.path.basename(os.environ["AZUREML_MODEL_DIR"])]
"""
    write(tmp_path / "a", one_py=script)
    write(tmp_path / "b", two_py=script)
    with serving(pipeline(tmp_path, "a/one.py", "b/two.py")) as served:
        assert served.post("/predict", "[]").json == ["a", "b"]


def test_the_example_of_the_first_module_and_what_is_not_deterministic(tmp_path: Path) -> None:
    write(
        tmp_path, one_py=IDENTITY + "def example():\n    return {'x': 5}\n", two_py="deterministic = False\n" + IDENTITY
    )
    with serving(pipeline(tmp_path, "one.py", "two.py"), ["--cache", "memory"]) as served:
        assert "gives no example" not in served.server.output
        assert rows(served, {"x": 1}) == [{"x": 1}]


def test_rows_pass_in_batches_of_the_size_that_a_class_takes(tmp_path: Path) -> None:
    model = (
        "class M:\n    max_batch_size = 2\n    def predict(self, batch):\n        return [len(batch) for _ in batch]\n"
    )
    write(tmp_path, first_py=IDENTITY, model_py=model)
    path = pipeline(tmp_path, "first.py", "model.py")
    with serving(path) as served:
        assert [row["prediction"] for row in rows(served, *[{"x": 1}] * 5)] == [2, 2, 2, 2, 1]


def test_tables_pass_from_port_to_port(tmp_path: Path) -> None:
    write(
        tmp_path,
        split_py="def azureml_main(dataframe1, dataframe2=None):\n    return dataframe1, dataframe2, dataframe1\n",
        join_py="import pandas as pd\ndef azureml_main(a, b):\n    return pd.concat([a, b], axis=1)\n",
    )
    with serving(pipeline(tmp_path, "split.py", "join.py")) as served:
        body = {"dataframe1": [{"x": 1}], "dataframe2": [{"y": 2}]}
        assert served.post("/predict", body).json == {"output1": [{"x": 1, "y": 2}]}
        assert served.post("/predict", {"x": 1}).json == {"x": 1}


# -- one namespace for all --------------------------------------------------------------------------------


def test_shared_globals_are_seen_by_the_next_module(tmp_path: Path) -> None:
    write(
        tmp_path,
        first_py="import pandas as pd\nLIMIT = 3\ntable = {1: 'one'}\n" + IDENTITY,
        second_py=(
            "import pandas as pd\nLIMIT = 3\n"
            "def azureml_main(dataframe1):\n    dataframe1['seen'] = table[1] * LIMIT\n    return dataframe1\n"
        ),
    )
    with serving(pipeline(tmp_path, "first.py", "second.py", top="share_globals = true\n")) as served:
        assert rows(served, {"x": 1}) == [{"x": 1, "seen": "oneoneone"}]
        assert "2 modules, those in Python sharing their globals: first -> second" in served.server.output


def test_shared_globals_of_a_function_and_a_class(tmp_path: Path) -> None:
    write(
        tmp_path,
        first_py="base = 10\n\ndef predict(batch):\n    return [base + item for item in batch]\n",
        second_py="class Model:\n    def predict(self, batch):\n        return [base * item for item in batch]\n",
    )
    with serving(pipeline(tmp_path, "first.py", "second.py", top="share_globals = true\n")) as served:
        assert served.post("/predict", "1").json == 110


def test_shared_globals_of_dataclasses_and_pickles(tmp_path: Path) -> None:
    code = """
from __future__ import annotations
from dataclasses import dataclass
import pickle

@dataclass
class {kind}:
    x: int

def azureml_main(dataframe1):
    dataframe1[__name__ + "{kind}"] = pickle.loads(pickle.dumps({kind}(3))).x
    return dataframe1
"""
    write(tmp_path, first_py=code.format(kind="A"), second_py=code.format(kind="B"))
    with serving(pipeline(tmp_path, "first.py", "second.py", top="share_globals = true\n")) as served:
        assert list(rows(served, {"x": 1})[0].values()) == [1, 3, 3]


def test_shared_scripts_are_compiled_as_they_are(tmp_path: Path) -> None:
    script = "def azureml_main(t):\n    t['kind'] = typed.__annotations__['x'].__name__\n    return t\n"
    write(tmp_path, first_py="def typed(x: int): ...\n" + script)
    with serving(pipeline(tmp_path, "first.py", top="share_globals = true\n")) as served:
        assert rows(served, {"x": 1}) == [{"x": 1, "kind": "int"}]


def test_a_shared_name_that_a_function_rebinds_is_a_collision(tmp_path: Path) -> None:
    script = "model = None\ndef load():\n    global model\n    model = object()\n" + IDENTITY
    write(tmp_path, first_py=script.replace("load", "load_first"), second_py=script.replace("load", "load_second"))
    said = refused(pipeline(tmp_path, "first.py", "second.py", top="share_globals = true\n"), 4)
    assert "'model' is bound by 'first' (first.py line 1) and 'second' (second.py line 1)" in said


def test_folders_of_data_in_two_bundles_are_no_collision(tmp_path: Path) -> None:
    write(tmp_path, first_py=IDENTITY, second_py=IDENTITY)
    for name in ("a", "b"):
        with zipfile.ZipFile(tmp_path / f"{name}.zip", "w") as archive:
            archive.writestr("data/numbers.csv", "x\n1\n")
    path = pipeline(tmp_path, "first.py+a.zip", "second.py+b.zip", top="share_globals = true\n")
    with serving(path) as served:
        assert rows(served, {"x": 1}) == [{"x": 1}]


def test_a_collision_of_shared_globals_is_named_at_start(tmp_path: Path) -> None:
    write(
        tmp_path,
        first_py="model = object()\nLIMIT = 1\n" + IDENTITY,
        second_py="LIMIT = 2\n\nif LIMIT:\n    model = object()\n\n" + IDENTITY,
    )
    said = refused(pipeline(tmp_path, "first.py", "second.py", top="share_globals = true\n"), 4)
    assert "'model' is bound by 'first' (first.py line 1) and 'second' (second.py line 4)" in said
    assert "'LIMIT' is bound by 'first' (first.py line 2) and 'second' (second.py line 1)" in said
    assert "leave share_globals out" in said


def test_a_collision_of_bundles_is_named_at_start(tmp_path: Path) -> None:
    write(tmp_path, first_py=IDENTITY, second_py=IDENTITY)
    for name in ("a", "b"):
        bundle(tmp_path / f"{name}.zip", helper_py=f"NAME = {name!r}")
    said = refused(pipeline(tmp_path, "first.py+a.zip", "second.py+b.zip", top="share_globals = true\n"), 4)
    assert "the bundles of 'first' and 'second' both have a module 'helper'" in said


# -- functions and classes --------------------------------------------------------------------------------


def test_items_pass_where_there_is_no_table(tmp_path: Path) -> None:
    write(
        tmp_path,
        parse_py="def predict(text: str):\n    return int(text)\n",
        model_py=(
            "class Model:\n    def setup(self):\n        self.by = 2\n"
            "    def predict(self, batch):\n        return [self.by * item for item in batch]\n"
        ),
    )
    with serving(pipeline(tmp_path, "parse.py", "model.py")) as served:
        assert served.post("/predict", '"21"').json == 42
        first, bad, wrong, last = served.post("/batch-predict", ["1", "x", 5, "3"]).json
        assert (first, last) == (2, 6)
        assert (bad["code"], wrong["code"]) == ("model_failed", "invalid_request")
        assert served.post("/execute", {}).status == 404


def test_rows_pass_through_a_function_between_tables(tmp_path: Path) -> None:
    write(
        tmp_path,
        first_py=IDENTITY,
        score_py="def predict(row: dict) -> float:\n    return row['x'] / 2\n",
    )
    with serving(pipeline(tmp_path, "first.py", "score.py")) as served:
        assert rows(served, {"x": 1}, {"x": 2}) == [{"prediction": 0.5}, {"prediction": 1.0}]
        answer = served.post("/predict", [{"x": 1}, {"x": "a"}])
        assert (answer.status, answer.json["error"]) == (500, "score: row 1: predict raised TypeError")
        assert "row['x'] / 2" in served.server.output


def test_what_fails_says_which_module_it_is(tmp_path: Path) -> None:
    write(tmp_path, first_py=IDENTITY, second_py="def azureml_main(t):\n    return t['missing']\n")
    with serving(pipeline(tmp_path, "first.py", "second.py")) as served:
        answer = served.post("/predict", {"x": 1})
        assert (answer.status, answer.json["error"]) == (500, "second: the code raised KeyError")
        assert 'second.py", line 2, in azureml_main' in served.server.output
        assert "paceline/workers" not in served.server.output


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("x = 1\n", "one.py holds nothing that a pipeline could call"),
        ("def predict(item: dict):\n    yield item\n", "it cannot be part of a pipeline"),
        ("class A:\n    async def fetch(self, item): ...\n    def predict(self, b): ...\n", "it cannot be part"),
        ("raise ValueError('at import')\n", "ValueError: at import"),
        ("def azureml_main(a, b, c): ...\n", "expected at most two tables"),
        ("import nowhere_to_be_found\n", "nowhere_to_be_found"),
    ],
)
def test_fault_007_a_module_that_is_none(tmp_path: Path, script: str, why: str) -> None:
    write(tmp_path, one_py=script)
    assert why in refused(pipeline(tmp_path, "one.py"), 4)


def test_fault_004_an_unknown_key(tmp_path: Path) -> None:
    write(tmp_path, one_py=IDENTITY)
    said = refused(pipeline(tmp_path, "one.py", top="share_global = true\n"), 3)
    assert "share_global: unknown key" in said
    assert "hint: did you mean 'share_globals'?" in said


def test_fault_101_a_bundle_that_leads_outside(tmp_path: Path) -> None:
    write(tmp_path, one_py=IDENTITY)
    bundle(tmp_path / "b.zip", **{"../outside_py": ""})
    assert "'../outside.py' leads outside" in refused(pipeline(tmp_path, "one.py+b.zip"), 4)
    assert not (tmp_path / "outside.py").exists()


# -- R ----------------------------------------------------------------------------------------------------

R_MODULE = """
df <- maml.mapInputPort(1)
df$r <- paste0(df$s, Sys.getpid())
maml.mapOutputPort("df")
"""


@needs_r
def test_r_between_python_modules_and_without_it_the_worker_is_replaced(tmp_path: Path) -> None:
    write(tmp_path, first_py=IDENTITY, middle_R=R_MODULE, last_py=IDENTITY)
    with serving(pipeline(tmp_path, "first.py", "middle.R", "last.py")) as served:
        (row,) = rows(served, {"s": "pid "})
        pid = int(row["r"].split()[1])
        assert rows(served, {"s": "pid "}) == [row], "the interpreter is kept"
        os.kill(pid, signal.SIGKILL)
        until = time.monotonic() + 30
        while True:
            answer = served.post("/predict", {"s": "pid "})
            if answer.status == 200 and answer.json["r"] != row["r"]:
                break
            assert time.monotonic() < until, served.server.output
        assert not Path(f"/proc/{pid}").exists()
    assert_gone(int(answer.json["r"].split()[1]))


def assert_gone(pid: int) -> None:
    until = time.monotonic() + 10
    while Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes():
        assert time.monotonic() < until, f"R ({pid}) has outlived its server"
        time.sleep(0.02)
