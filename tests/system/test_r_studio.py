"""How is a script of Studio's "Execute R Script" served? On /execute and /predict, with its bundle, by real R."""

from collections.abc import Iterator
from zipfile import ZipFile

import pytest

from paceline.testing import RunningServer
from support.r_services import needs_r, predict, serving

pytestmark = [pytest.mark.slow, needs_r]

# As the practitioners do it: the environment is attached once, and everything else is gone at the end of a call.
SCRIPT = """
table <- maml.mapInputPort(1)
again <- exists("left_behind")
left_behind <- 1
if (!("my_env" %in% search())) {
  my_env <- new.env()
  my_env$scale <- 10
  attach(my_env)
  cat("initialised\\n")
}
answer <- data.frame(y = table$x * scale, again = again, f = factor("a"), d = as.Date("2024-02-29"))
maml.mapOutputPort("answer")
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[RunningServer]:
    with serving(tmp_path_factory.mktemp("studio"), SCRIPT, "--no-deduplicate") as running:
        yield running


def execute(server: RunningServer, names: list[str], values: list[list[object]], query: str = "") -> object:
    body = {"Inputs": {"input1": {"ColumnNames": names, "Values": values}}, "GlobalParameters": {}}
    return predict(server, body, f"/execute?api-version=2.0{query}").json


def test_fault_123_a_studio_script_initialises_once_and_leaves_nothing_else(server):
    for x in ("1", "2", "3"):
        answer = execute(server, ["x"], [[x]])
        assert answer["Results"]["output1"]["value"]["Values"] == [[f"{x}0", "False", "a", "2024-02-29"]]
    assert server.output.count("initialised") == 1


def test_details_name_the_types_of_columns(server):
    value = execute(server, ["x"], [["1"], ["2"]], "&details=true")["Results"]["output1"]["value"]
    assert value["ColumnNames"] == ["y", "again", "f", "d"]
    assert value["ColumnTypes"] == ["Double", "Boolean", "String", "DateTime"]


ROW = {"y": 10.0, "again": False, "f": "a", "d": "2024-02-29"}


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ({"x": 1}, ROW),
        ([{"x": 1}, {"x": 1}], [ROW, ROW]),
        ({"dataframe1": [{"x": 1}]}, {"output1": [ROW]}),
        (
            {"dataframe1": {"columns": ["x"], "rows": [[1]]}},
            {"tables": [{"columns": [*ROW], "types": ["Double", "Boolean", "String", "DateTime"],
                         "rows": [[*ROW.values()]]}]},
        ),
    ],
    ids=["row", "rows", "rows by port", "table"],
)  # fmt: skip
def test_predict_answers_in_the_form_that_it_was_asked_in(server, item, expected):
    assert predict(server, item).json == expected


@pytest.mark.parametrize(
    ("item", "why"),
    [
        ({"dataframe1": {"columns": ["x"], "rows": [[1, 2]]}}, "dataframe1.rows[0]: expected 1 values, got 2"),
        ({"dataframe1": {"columns": ["x"]}}, "dataframe1: Object missing required field `rows`"),
        (3, "expected a row (an object of values by column), a list of rows, or tables by name"),
    ],
)
def test_what_is_no_table_is_refused(server, item, why):
    answer = predict(server, item)
    assert (answer.status, answer.json["error"]) == (400, why)


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("x <- maml.mapInputPort(1)\n", 'no output: expected a call of maml.mapOutputPort("name")'),
        ('x <- 1\nmaml.mapOutputPort("x")\n', "maml.mapOutputPort: 'x' is no data frame but numeric"),
        ('x <- maml.mapInputPort(2)\nmaml.mapOutputPort("x")\n', "the request has no table for port 2"),
    ],
)
def test_a_script_without_a_table_to_give_or_take_says_so(tmp_path, script, why):
    with serving(tmp_path, script, "--debug") as server:
        answer = predict(server, {"x": 1})
        assert answer.status == 500
        assert why in answer.json["error"]


def test_types_parameters_and_the_second_table_reach_the_script(tmp_path):
    script = """
    one <- maml.mapInputPort(1)
    two <- maml.mapInputPort(2)
    out <- data.frame(whole = class(one$n), time = format(one$t, "%H:%M"), two = two$x, p = maml.parameters$p)
    maml.mapOutputPort("out")
    """
    item = {
        "dataframe1": {"columns": ["n", "t"], "types": ["Int32", "DateTime"], "rows": [["1", "2024-02-29T12:30:00"]]},
        "dataframe2": [{"x": "second"}],
        "parameters": {"p": "given"},
    }
    with serving(tmp_path, script) as server:
        row = {"whole": "integer", "time": "12:30", "two": "second", "p": "given"}
        assert predict(server, item).json == {"output1": [row]}


def test_the_bundle_lies_under_src(tmp_path):
    with ZipFile(tmp_path / "bundle.zip", "w") as bundle:
        bundle.writestr("helpers.R", "twice <- function(x) 2 * x\n")
    script = """
    source("src/helpers.R")
    out <- data.frame(y = twice(maml.mapInputPort(1)$x))
    maml.mapOutputPort("out")
    """
    with serving(tmp_path, script, "--no-deduplicate") as server:
        assert [predict(server, {"x": 2}).json for _ in range(2)] == [{"y": 4.0}] * 2


def test_fault_123_a_studio_script_that_attaches_at_every_call_is_told(tmp_path):
    script = """
    attach(list(scale = 2), name = "my_env")
    out <- data.frame(y = maml.mapInputPort(1)$x * scale, n = length(search()))
    maml.mapOutputPort("out")
    """
    with serving(tmp_path, script, "--no-deduplicate") as server:
        first = predict(server, {"x": 1}).json["n"]
        assert [predict(server, {"x": 1}).json["n"] for _ in range(4)] == [first + 1] * 4
        assert server.output.count('if (!("my_env" %in% search())) attach(...)') == 1
