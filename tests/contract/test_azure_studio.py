"""Studio modules behind `/execute`: the request-response JSON of Studio's web services."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.served import Answer, Served
from support.services import serving, write

pytestmark = pytest.mark.slow

MODULE = """
import pandas as pd
import helper

print("the script is evaluated")
calls = 0

def azureml_main(dataframe1=None, dataframe2=None, parameters=None):
    global calls
    calls += 1
    do = (parameters or {}).get("do")
    if do == "calls":
        return pd.DataFrame({"calls": [calls]})
    if do == "bundle":
        return pd.DataFrame({"text": [open("./Script Bundle/data.txt").read()], "helper": [helper.NAME]})
    if do == "types":
        return pd.DataFrame(
            {
                "i": pd.array([1, None], "Int64"), "f": [1.0, None], "b": [True, False],
                "d": pd.to_datetime(["2024-02-29T12:00:00", None]), "s": ["x", None], "c": pd.Categorical(["u", "v"]),
                "o": [[1], None], "n": pd.array([0.1, None], "float32"),
            }
        )
    if do == "nothing":
        return None
    if do == "twins":
        return pd.DataFrame([[1, 2]], columns=["a", "a"])
    if do == "infinity":
        return pd.DataFrame({"x": [float("inf")]})
    if do == "raise":
        raise ValueError("the module's own secret")
    if do == "dtypes":
        return pd.DataFrame({"dtypes": [str(kind) for kind in dataframe1.dtypes]})
    if dataframe1 is None:
        return ()
    return (dataframe1, dataframe2) if dataframe2 is not None else dataframe1
"""


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = write(tmp_path_factory.mktemp("studio"), clean_py=MODULE)
    with zipfile.ZipFile(folder / "clean.zip", "w") as archive:
        archive.writestr("helper.py", "NAME = 'helper'\n")
        archive.writestr("data.txt", "from the bundle")
    with serving(folder / "clean.py") as served:
        yield served


def execute(served: Served, table: Any, query: str = "&details=true", **parameters: Any) -> Answer:
    inputs = {} if table is None else {"input1": table}
    return served.post(f"/execute?api-version=2.0{query}", {"Inputs": inputs, "GlobalParameters": parameters})


def table(answer: Answer, output: str = "output1") -> dict[str, Any]:
    """The value of an output table."""
    assert answer.status == 200, answer.text
    result = answer.json["Results"][output]
    assert result["type"] == "table"
    value: dict[str, Any] = result["value"]
    return value


TEXTS = {
    "ColumnNames": ["n", "x", "b", "s", "zip"],
    "Values": [["1", "2.5", "true", "a", "01067"], ["2", "3", "False", "", "1"]],
}
TYPED = {"ColumnNames": ["n", "x", "s"], "Values": [[1, 2.5, "1"], [2, None, "2"]]}


# -- the wire ---------------------------------------------------------------------------------------------


def test_values_are_strings_and_details_have_types(studio: Served) -> None:
    assert table(execute(studio, TEXTS)) == {
        "ColumnNames": ["n", "x", "b", "s", "zip"],
        "ColumnTypes": ["Int64", "Double", "Boolean", "String", "String"],
        "Values": [["1", "2.5", "True", "a", "01067"], ["2", "3", "False", "", "1"]],
    }


def test_without_details_there_are_no_types(studio: Served) -> None:
    assert table(execute(studio, TYPED, "")) == {
        "ColumnNames": ["n", "x", "s"],
        "Values": [["1", "2.5", "1"], ["2", None, "2"]],
    }


def test_values_that_are_no_strings_keep_their_types(studio: Served) -> None:
    assert table(execute(studio, TYPED))["ColumnTypes"] == ["Int64", "Double", "String"]


def test_column_types_of_the_request_win(studio: Served) -> None:
    types = ["String", "Int32", "Boolean", "DateTime"]
    given = {"ColumnNames": list("abcd"), "ColumnTypes": types, "Values": [["1", "2", "true", "2024-02-29"]]}
    answer = table(execute(studio, given, do="dtypes"))
    assert [row[0] for row in answer["Values"]][1:3] == ["int64", "bool"]
    assert answer["Values"][3][0].startswith("datetime64")
    assert table(execute(studio, given))["Values"] == [["1", "2", "True", "2024-02-29T00:00:00"]]


def column(kind: str, *values: Any) -> dict[str, Any]:
    """A table of one column."""
    return {"ColumnNames": ["a"], "ColumnTypes": [kind], "Values": [[value] for value in values]}


@pytest.mark.parametrize(
    ("kind", "given", "answered"),
    [
        ("Int64", ["9007199254740993", "-9223372036854775808"], ["9007199254740993", "-9223372036854775808"]),
        ("UInt64", ["18446744073709551615"], ["18446744073709551615"]),
        ("Int64", [2.0, "3"], ["2", "3"]),
        ("DateTime", ["2024-07-01", "2024-07-01T12:00:00.5"], ["2024-07-01T00:00:00", "2024-07-01T12:00:00.500000"]),
        ("DateTime", ["1/31/2024 5:06:07 PM"], ["2024-01-31T17:06:07"]),
        (
            "DateTime",
            ["2024-01-01T12:00:00+01:00", "2024-07-01T12:00:00+02:00"],
            ["2024-01-01T11:00:00+00:00", "2024-07-01T10:00:00+00:00"],
        ),
        ("DateTime", [None, ""], [None, None]),
    ],
)
def test_values_at_the_edges_of_their_type(studio: Served, kind: str, given: list[Any], answered: list[Any]) -> None:
    assert [row[0] for row in table(execute(studio, column(kind, *given)))["Values"]] == answered


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        *[("Byte", "256"), ("Byte", "-1"), ("Int32", "2147483648"), ("Int64", "9" * 5000), ("Int32", "1.5")],
        *[("Int32", 1.5), ("Double", "1e400"), ("DateTime", "soon"), ("Boolean", "2")],
    ],
)
def test_values_beyond_their_type(studio: Served, kind: str, value: Any) -> None:
    status, code, said = problem(execute(studio, column(kind, None, value)))
    assert (status, code) == (400, "BadArgument")
    assert said.startswith(f"Inputs.input1.a[1]: expected {kind}, got ")


def test_numbers_that_64_bits_cannot_hold_are_text(studio: Served) -> None:
    values = ["12345678901234567890123", "1"], ["18446744073709551615", "-1"], ["1e400", "1"], ["9" * 5000, "1"]
    given = {"ColumnNames": list("abcd"), "Values": [list(row) for row in zip(*values, strict=True)]}
    answer = table(execute(studio, given))
    assert (answer["ColumnTypes"], answer["Values"]) == (["String"] * 4, given["Values"])


def test_columns_without_values_keep_their_types(studio: Served) -> None:
    types = ["Int64", "Double", "Boolean", "DateTime", "String", "UInt64"]
    given = {"ColumnNames": list("abcdef"), "ColumnTypes": types, "Values": []}
    assert table(execute(studio, given))["ColumnTypes"] == types


def test_as_objects(studio: Served) -> None:
    answer = execute(studio, [{"n": "1", "s": "a"}, {"n": "2", "x": None}], "&format=swagger")
    assert answer.json == {"Results": {"output1": [{"n": "1", "s": "a", "x": None}, {"n": "2", "s": None, "x": None}]}}


def test_two_tables(studio: Served) -> None:
    for names in (("input1", "input2"), ("cars", "prices")):
        answer = studio.post("/execute", {"Inputs": dict(zip(names, (TYPED, TEXTS), strict=True))})
        assert table(answer)["ColumnNames"] == ["n", "x", "s"]
        assert table(answer, "output2")["ColumnNames"] == ["n", "x", "b", "s", "zip"]


def test_the_addresses_of_studio(studio: Served) -> None:
    body = {"Inputs": {"input1": TYPED}, "GlobalParameters": None}
    for path in (
        "/workspaces/1a2b/services/3c4d/execute?api-version=2.0&details=true",
        "/models/clean/execute?details=true",
    ):
        assert table(studio.post(path, body))["Values"] == [["1", "2.5", "1"], ["2", None, "2"]]


@pytest.mark.parametrize("body", [{}, {"Inputs": None}, {"Inputs": {"input1": None}, "GlobalParameters": {}}])
def test_a_request_without_tables(studio: Served, body: Any) -> None:
    assert studio.post("/execute", body).json == {"Results": {}}


def test_every_type(studio: Served) -> None:
    assert table(execute(studio, None, do="types")) == {
        "ColumnNames": ["i", "f", "b", "d", "s", "c", "o", "n"],
        "ColumnTypes": ["Int64", "Double", "Boolean", "DateTime", "String", "String", "String", "Single"],
        "Values": [
            ["1", "1", "True", "2024-02-29T12:00:00", "x", "u", "[1]", "0.1"],
            [None, None, "False", None, None, "v", None, None],
        ],
    }


def test_no_rows(studio: Served) -> None:
    answer = table(execute(studio, {"ColumnNames": ["a", "b"], "Values": []}))
    assert (answer["ColumnNames"], answer["Values"]) == (["a", "b"], [])


# -- the contract -----------------------------------------------------------------------------------------


def test_globals_are_evaluated_once_and_kept(studio: Served) -> None:
    before = int(table(execute(studio, None, do="calls"))["Values"][0][0])
    after = int(table(execute(studio, None, do="calls"))["Values"][0][0])
    assert after == before + 1
    assert studio.server.output.count("the script is evaluated") == 1


def test_the_bundle_is_importable_and_under_the_working_directory(studio: Served) -> None:
    answer = table(execute(studio, None, do="bundle"))
    assert answer["Values"] == [["from the bundle", "helper"]]


def test_a_folder_beside_the_script_is_the_bundle_where_there_is_no_zip(tmp_path: Path) -> None:
    body = "t['x'] = helper.X + open('./Script Bundle/y.txt').read()"
    module = f"import helper\ndef azureml_main(t):\n    {body}\n    return t\n"
    write(tmp_path, clean_py=module)
    write(tmp_path / "Script Bundle", helper_py="X = 'x'\n", y_txt="y")
    with serving(tmp_path / "clean.py") as served:
        assert served.post("/predict", {}).json == {"x": "xy"}


def test_predict(studio: Served) -> None:
    row = {"n": 1, "s": "a"}
    assert studio.post("/predict", row).json == row
    assert studio.post("/predict", [row, {"n": 2}]).json == [row, {"n": 2, "s": None}]
    assert studio.post("/predict", {"dataframe1": [row], "dataframe2": []}).json == {"output1": [row], "output2": []}
    tables = {"dataframe1": {"columns": ["n"], "rows": [[1]]}}
    assert studio.post("/predict", tables).json == {"tables": [{"columns": ["n"], "types": ["Int64"], "rows": [[1]]}]}
    assert studio.post("/batch-predict", [row, row]).json == [row, row]


def test_one_row_has_one_row_for_an_answer(studio: Served) -> None:
    answer = studio.post("/predict", {"dataframe1": [], "parameters": {"do": "types"}})
    assert len(answer.json["output1"]) == 2
    assert studio.post("/predict", 5).status == 400
    assert studio.post("/predict", [5]).status == 400


def test_swagger(studio: Served) -> None:
    assert studio.get("/swagger.json").json["paths"].keys() == {"/execute"}
    assert studio.get("/").status == 404
    assert studio.post("/score", {}).status == 404


# -- errors, in Studio's shape ----------------------------------------------------------------------------


def problem(answer: Answer) -> tuple[int, str, str]:
    """Status, code, and message of the only detail; our own members are beside the object."""
    found = answer.json
    assert {"error", "code", "request_id"} <= found.keys()
    (detail,) = found["error"]["details"]
    return answer.status, found["error"]["code"], detail["message"]


def test_there_is_no_such_model(studio: Served) -> None:
    status, code, said = problem(studio.post("/models/other/execute", {}))
    assert (status, code) == (404, "NotFound")
    assert "other" in said


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("", "the body is empty: expected JSON (byte 0)"),
        ("{", "(byte 1)"),
        ('{"Inputs": {"input1": {"ColumnNames": ["a"], "Values": [["\\ud8"]]}}}', "byte"),
        (b'{"Inputs": {"input1": {"ColumnNames": ["a"], "Values": [["\xff"]]}}}', "not valid UTF-8"),
        ({"inputs": {"input1": TYPED}}, "the body: Object contains unknown field `inputs`"),
        ({"ColumnNames": ["a"], "Values": []}, "the body: Object contains unknown field `ColumnNames`"),
        ({"Inputs": 5}, "Inputs: Expected `object | null`, got `int`"),
        ({"Inputs": {"input1": 5}}, "Inputs.input1: Expected `object`, got `int`"),
        ({"Inputs": {"input1": {"Values": []}}}, "Inputs.input1: Object missing required field `ColumnNames`"),
        ({"Inputs": {"input1": {"ColumnNames": ["a"], "Values": [5]}}}, "Expected `array`, got `int`"),
        (
            {"Inputs": {"input1": {"ColumnNames": ["a"], "Values": [["1"], ["1", "2"]]}}},
            "Inputs.input1.Values[1]: expected 1 values, got 2",
        ),
        (
            {"Inputs": {"input1": {"ColumnNames": ["a", "a"], "Values": []}}},
            "Inputs.input1.ColumnNames: 'a' is there twice",
        ),
        (
            {"Inputs": {"input1": {"ColumnNames": ["a"], "ColumnTypes": ["Int32"], "Values": [["x"]]}}},
            "Inputs.input1.a[0]: expected Int32, got 'x'",
        ),
        (
            {"Inputs": {"input1": {"ColumnNames": ["a"], "ColumnTypes": ["int"], "Values": [["1"]]}}},
            "Inputs.input1.a: its type is unknown: expected one of",
        ),
        ({"Inputs": dict.fromkeys("abc", TYPED)}, "Inputs: a module takes two tables, got 3"),
        ({"GlobalParameters": [1]}, "GlobalParameters: Expected `object | null`, got `array`"),
    ],
)
def test_what_is_no_request(studio: Served, body: Any, message: str) -> None:
    status, code, said = problem(studio.post("/execute?api-version=2.0&details=true", body))
    assert (status, code) == (400, "BadArgument")
    assert message in said


@pytest.mark.parametrize(
    ("do", "code", "message"),
    [
        ("raise", "model_failed", "ValueError"),
        ("nothing", "bad_model_output", "azureml_main returned NoneType"),
        ("twins", "bad_model_output", "two columns 'a'"),
        ("infinity", "nonfinite_output", "Infinity"),
    ],
)
def test_what_a_module_does_wrong(studio: Served, do: str, code: str, message: str) -> None:
    answer = execute(studio, None, do=do)
    status, name, said = problem(answer)
    assert (status, name, answer.json["code"]) == (500, "ModuleExecutionError", code)
    assert message in said


def test_parameters_that_nobody_takes(tmp_path: Path) -> None:
    module = "def azureml_main(dataframe1):\n    return dataframe1\n"
    with serving(write(tmp_path, plain_py=module) / "plain.py") as plain:
        status, _, said = problem(execute(plain, TYPED, k="v"))
        assert (status, said) == (400, "GlobalParameters: 'k' is given, and no module takes `parameters`")
        answer = plain.post("/execute", {"Inputs": {"input1": TYPED, "input2": TYPED}})
        assert problem(answer)[2] == "Inputs.input2: the module takes one table"
        assert table(execute(plain, TYPED))["Values"][0] == ["1", "2.5", "1"]


@pytest.mark.skipif(shutil.which("R") is None, reason="R is not installed")
def test_a_studio_script_in_r(tmp_path: Path) -> None:
    script = 'df <- maml.mapInputPort(1)\ndf$double <- df$x * 2\nmaml.mapOutputPort("df")\n'
    with serving(write(tmp_path, twice_R=script) / "twice.R") as r:
        given = {"ColumnNames": ["x", "s"], "Values": [["1.5", "a"], ["2", "b"]]}
        answer = table(execute(r, given))
        assert (answer["ColumnNames"], answer["Values"]) == (["x", "s", "double"], [["1.5", "a", "3"], ["2", "b", "4"]])
        assert problem(r.post("/execute", json.dumps({"Inputs": 5})))[1] == "BadArgument"
