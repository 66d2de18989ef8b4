"""How do values pass between JSON and R? Each as docs/how-to/r-services.md says, through a real server and real R."""

from collections.abc import Iterator

import pytest

from paceline.testing import RunningServer
from support.r_services import needs_r, predict, predictions, serving
from support.wire import ask, get

pytestmark = [pytest.mark.slow, needs_r]

SCRIPT = """
shown <- function(column) if (is.list(column)) lapply(column, deparse) else deparse(column)

give <- list(
  logical = function(n) rep(c(TRUE, NA), length.out = n),
  integer = function(n) rep(c(3L, NA), length.out = n),
  double = function(n) rep(c(1.5, NA, 3), length.out = n),
  character = function(n) rep(c("\\u00e9\\"\\\\\\n", NA), length.out = n),
  factor = function(n) factor(rep(c("no", NA), length.out = n), levels = c("yes", "no")),
  date = function(n) rep(as.Date(c("2024-02-29", NA)), length.out = n),
  time = function(n) rep(as.POSIXct("2024-02-29 12:30:00", tz = "America/New_York"), n),
  time_with_fraction = function(n) rep(as.POSIXct("2024-02-29 12:30:00.25", tz = "UTC"), n),
  time_between = function(n) rep(as.POSIXct(1700000000.1, origin = "1970-01-01"), n),
  endless_time = function(n) rep(as.POSIXct(Inf, origin = "1970-01-01"), n),
  endless_date = function(n) rep(as.Date(-Inf, origin = "1970-01-01"), n),
  broken_down_time = function(n) as.POSIXlt(rep(as.POSIXct("2024-02-29", tz = "UTC"), n)),
  difftime = function(n) rep(as.difftime(2, units = "mins"), n),
  with_names = function(n) setNames(rep(1, n), rep("row", n)),
  data_frame = function(n) data.frame(score = rep(0.5, n), label = factor(rep("a", n)), when = as.Date(NA)),
  list_column = function(n) data.frame(id = seq_len(n), near = I(rep(list(c(1L, 2L)), n))),
  named_list = function(n) list(score = rep(0.5, n), label = rep("a", n)),
  one_for_all = function(n) list(score = rep(0.5, n), version = "v3"),
  plain_list = function(n) rep(list(list(p = c(0.1, 0.9), none = NULL, one = 5, kept = I(5), empty = list())), n),
  nested_frame = function(n) rep(list(data.frame(u = 1:2, v = c("a", "b"))), n),
  matrix = function(n) matrix(rep(c(1, 2), each = n), n),
  named_matrix = function(n) matrix(0.5, n, 2, dimnames = list(NULL, c("no", "yes"))),
  twice_the_same_name = function(n) data.frame(a = rep(1, n), a = 2, check.names = FALSE),
  nan = function(n) rep(c(NaN, 1), length.out = n),
  infinity_inside = function(n) rep(list(list(p = -Inf)), n),
  tried = function(n) c(list(try(stop("no luck"), silent = TRUE)), rep(list(1), n - 1)),
  condition = function(n) c(list(simpleError("no luck")), rep(list(1), n - 1)),
  null = function(n) NULL,
  too_many = function(n) seq_len(n + 1),
  uneven = function(n) list(score = rep(1, n), label = rep("a", n + 1)),
  function_inside = function(n) rep(list(sum), n),
  complex = function(n) rep(1i, n),
  environment = function(n) globalenv(),
  no_columns = function(n) data.frame(row.names = seq_len(n))
)

predict_fn <- function(df) {
  if (is.null(df$give)) return(I(lapply(seq_len(nrow(df)), function(i) lapply(df[i, , drop = FALSE], shown))))
  if (df$give[1] == "echo") df$echo else give[[df$give[1]]](nrow(df))
}
"""

GIVEN = {
    "logical": [True, None],
    "integer": [3, None],
    "double": [1.5, None],
    "character": ['é"\\\n', None],
    "factor": ["no", None],
    "date": ["2024-02-29", None],
    "time": ["2024-02-29T17:30:00Z"] * 2,
    "time_with_fraction": ["2024-02-29T12:30:00.250000Z"] * 2,
    "time_between": ["2023-11-14T22:13:20.100000Z"] * 2,
    "endless_time": [None] * 2,
    "endless_date": [None] * 2,
    "broken_down_time": ["2024-02-29T00:00:00Z"] * 2,
    "difftime": [120.0] * 2,
    "with_names": [1.0] * 2,
    "data_frame": [{"score": 0.5, "label": "a", "when": None}] * 2,
    "list_column": [{"id": 1, "near": [1, 2]}, {"id": 2, "near": [1, 2]}],
    "named_list": [{"score": 0.5, "label": "a"}] * 2,
    "one_for_all": [{"score": 0.5, "version": "v3"}] * 2,
    "plain_list": [{"p": [0.1, 0.9], "none": None, "one": 5.0, "kept": [5.0], "empty": []}] * 2,
    "nested_frame": [[{"u": 1, "v": "a"}, {"u": 2, "v": "b"}]] * 2,
    "matrix": [[1.0, 2.0]] * 2,
    "named_matrix": [{"no": 0.5, "yes": 0.5}] * 2,
    "twice_the_same_name": [{"a": 1.0, "a.1": 2.0}] * 2,
}

REFUSED = {
    "null": "predict_fn returned NULL for 1 rows: expected a value for each",
    "too_many": "predict_fn was given 1 rows and returned 2",
    "uneven": "predict_fn returned a named list: expected 1 values in each column, got 2 in 'label'",
    "function_inside": "a prediction holds an object of class function: JSON has none",
    "complex": "a prediction holds values of type complex: JSON has none",
    "environment": "predict_fn returned an object of class environment for 1 rows: expected a value for each",
    "no_columns": "predict_fn returned a data frame without columns",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[RunningServer]:
    with serving(tmp_path_factory.mktemp("values"), SCRIPT, "--no-deduplicate", "--debug") as running:
        yield running


@pytest.mark.parametrize("what", GIVEN)
def test_fault_124_what_r_returns_is_json_as_documented(server, what):
    assert predictions(server, [{"give": what}] * 2) == GIVEN[what]


@pytest.mark.parametrize("what", REFUSED)
def test_fault_124_an_answer_of_another_shape_is_bad_model_output(server, what):
    answer = predict(server, {"give": what})
    assert (answer.status, answer.json["code"], answer.json["error"]) == (500, "bad_model_output", REFUSED[what])


def test_fault_124_what_r_is_given_is_as_documented(server):
    item = {
        "number": 1,
        "text": "2024-01-01",
        "bool": True,
        "null": None,
        "numbers": [1, None, 2.5],
        "mixed": [1, "a"],
        "object": {"a": [1]},
        "accented": "é",
    }
    assert predict(server, item).json == {
        "number": "1",
        "text": '"2024-01-01"',
        "bool": "TRUE",
        "null": "NA_real_",
        "numbers": ["c(1, NA, 2.5)"],
        "mixed": ['list(1, "a")'],
        "object": ["list(a = 1)"],
        "accented": '"é"',
    }


def test_an_item_that_is_no_object_is_the_column_x(server):
    assert predictions(server, [1, "a", [1, 2], None]) == [
        {"x": "1"},
        {"x": '"a"'},
        {"x": ["c(1, 2)"]},
        {"x": "NA_real_"},
    ]


def test_missing_keys_and_nulls_are_na(server):
    assert predictions(server, [{"a": 1, "b": "x"}, {"a": None}, {"b": "y", "a": 2}]) == [
        {"a": "1", "b": '"x"'},
        {"a": "NA_real_", "b": "NA_character_"},
        {"a": "2", "b": '"y"'},
    ]


def test_items_of_different_types_are_not_coerced(server):
    assert predictions(server, [{"a": 1}, {"a": "1"}, {"a": True}, {"a": 2}]) == [
        {"a": "1"},
        {"a": '"1"'},
        {"a": "TRUE"},
        {"a": "2"},
    ]


def test_an_item_that_r_cannot_hold_fails_alone(server):
    good, nul, large = predictions(server, [{"a": 1}, {"a": {"b": "x\0"}}, {"a": [2**53 + 1]}])
    assert good == {"a": "1"}
    assert (nul["code"], nul["error"]) == ("invalid_request", "a.b: text in R holds no NUL character (\\u0000)")
    assert large["error"] == "a[0]: numbers in R are exact up to 2^53, got 9007199254740993; send it as text"


def test_nan_fails_its_item_alone(server):
    nan, good = predictions(server, [{"give": "nan"}] * 2)
    assert (nan["code"], good) == ("nonfinite_output", 1.0)
    assert nan["error"] == "prediction is NaN: JSON has neither NaN nor infinity"
    assert predict(server, {"give": "infinity_inside"}).json["error"].startswith("prediction.p is -Infinity:")


@pytest.mark.parametrize(("chosen", "expected"), [("null", [None, 1.0]), ("string", ["NaN", 1.0])])
def test_nan_is_written_as_the_operator_chose(tmp_path, chosen, expected):
    with serving(tmp_path, SCRIPT, "--no-deduplicate", "--nonfinite", chosen) as server:
        assert predictions(server, [{"give": "nan"}] * 2) == expected


@pytest.mark.parametrize("what", ["condition", "tried"])
def test_a_row_that_is_a_condition_fails_alone(server, what):
    failed, good = predictions(server, [{"give": what}] * 2)
    assert (failed["code"], failed["error"], good) == ("model_failed", "no luck", 1.0)


def test_values_larger_than_any_pipe_pass_whole(server):
    text = "é" * 2_000_000
    assert predict(server, {"give": "echo", "echo": text}).json == text
    numbers = [number / 2 for number in range(200_000)]
    assert predict(server, {"give": "echo", "echo": numbers}).json == numbers


def test_many_rows_and_many_columns(tmp_path):
    numbers = list(range(100_000))
    with serving(tmp_path, SCRIPT) as server:  # to one that has seen slow rows only, these would be minutes of work
        assert predictions(server, [{"give": "echo", "echo": each} for each in numbers]) == numbers
        wide = {f"c{each}": each for each in range(2000)}
        assert predict(server, wide).json == {name: str(each) for name, each in wide.items()}


@pytest.mark.parametrize("example", ["c(a = 1, b = 2)", "list(a = 1, b = 2)", "function() data.frame(a = 1, b = 2)"])
def test_an_example_may_have_many_forms(tmp_path, example):
    with serving(tmp_path, f"example <- {example}\npredict_fn <- function(df) df$a + df$b\n") as server:
        assert predict(server, {"a": 1, "b": 2}).json == 3
        assert ask(server, get("/example")).body == b'{"a":1,"b":2}'


def test_an_example_gives_columns_of_nothing_their_type(tmp_path):
    script = """
    example <- data.frame(n = 1, s = "a", l = TRUE)
    predict_fn <- function(df) vapply(seq_len(nrow(df)), function(i) deparse(as.list(df[i, c("n", "s", "l")])), "")
    """
    with serving(tmp_path, script) as server:
        assert predict(server, {"n": None, "s": None}).json == "list(n = NA_real_, s = NA_character_, l = NA)"
        assert predict(server, {"n": 1, "s": "b", "l": False}).json == 'list(n = 1, s = "b", l = FALSE)'
