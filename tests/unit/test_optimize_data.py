"""Rows and labels from files of every kind, and how they are divided."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.core.errors import ConfigError
from paceline.core.tensors import DataType, TensorSpec
from paceline.optimize.data import matching
from paceline.optimize.data.rows import Rows

ROWS = np.arange(12, dtype=np.float64).reshape(4, 3)
X = (TensorSpec("X", DataType.FP32, (-1, 3)),)
IMAGE = (TensorSpec("image", DataType.FP32, (-1, 2, 2)),)
TWO = (TensorSpec("ids", DataType.INT64, (-1, -1)), TensorSpec("mask", DataType.INT64, (-1, -1)))
COLUMNS = (TensorSpec("age", DataType.FP32, (-1, 1)), TensorSpec("city", DataType.BYTES, (-1, 1)))
PERSON = ("age", "income", "tenure months")
BY_COLUMN = tuple(TensorSpec(name, DataType.FP64, (-1,)) for name in PERSON)
AS_MATRIX = (TensorSpec("input", DataType.FP64, (-1, 3), PERSON),)


def written(folder: Path, name: str, content: object) -> Path:
    path = folder / name
    if isinstance(content, str):
        path.write_text(content)
    elif isinstance(content, dict) and name.endswith(".npz"):
        np.savez(path, **content)
    elif isinstance(content, np.ndarray):
        np.save(path, content)
    else:
        path.write_text(json.dumps(content))
    return path


def parquet(folder: Path, name: str, columns: dict[str, list]) -> Path:
    pyarrow = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    tables = pytest.importorskip("pyarrow.parquet", reason="Parquet needs pyarrow")
    tables.write_table(pyarrow.table(columns), folder / name)
    return folder / name


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.npz", {"X": ROWS}),
        ("rows.npz", {"arr_0": ROWS}),
        ("rows.npy", ROWS),
        ("rows.csv", "a,b,c\n0,1,2\n3,4,5\n6,7,8\n9,10,11\n"),
        ("rows.json", ROWS.tolist()),
        ("rows.json", {"instances": ROWS.tolist()}),
        ("rows.json", {"X": ROWS.tolist()}),
        ("rows.json", [dict(zip("abc", row, strict=True)) for row in ROWS.tolist()]),
        ("rows.json", [{"X": row} for row in ROWS.tolist()]),
        ("rows.jsonl", "\n".join(json.dumps(row) for row in ROWS.tolist())),
        ("rows.npy", np.array([tuple(row) for row in ROWS], [("a", "f8"), ("b", "f8"), ("c", "f4")])),
    ],
)
def test_rows_of_one_input_from_every_kind_of_file(tmp_path: Path, name: str, content: object):
    found = matching.read(written(tmp_path, name, content), None, X)
    assert list(found.inputs) == ["X"]
    assert found.inputs["X"].dtype.kind == "f"
    assert np.array_equal(found.inputs["X"], ROWS)
    assert found.labels is None


def test_rows_from_parquet_and_labels_of_one_of_its_columns(tmp_path: Path):
    path = parquet(tmp_path, "rows.parquet", {"a": [1.5, 2.5], "b": [1, 2], "c": [0, 1], "y": ["no", "yes"]})
    found = matching.read(path, "y", X)
    assert found.inputs["X"].tolist() == [[1.5, 1.0, 0.0], [2.5, 2.0, 1.0]]
    assert found.labels is not None
    assert found.labels.tolist() == ["no", "yes"]
    nested = parquet(tmp_path, "nested.parquet", {"X": [[1.0, 2.0, 3.0]]})
    assert matching.read(nested, None, X).inputs["X"].shape == (1, 3)


def test_labels_from_wherever_they_are(tmp_path: Path):
    rows = written(tmp_path, "rows.npz", {"X": ROWS, "y": np.array([0, 1, 1, 0])})
    plain = written(tmp_path, "plain.npz", {"X": ROWS})
    written(tmp_path, "y.npy", np.array([[0], [1], [1], [0]]))
    written(tmp_path, "y.csv", "y\n0\n1\n1\n0\n")
    written(tmp_path, "more.csv", "id,species\n1,0\n2,1\n3,1\n4,0\n")
    written(tmp_path, "y.json", [0, 1, 1, 0])
    for path, labels in (
        (rows, "y"),
        *((plain, str(tmp_path / name)) for name in ("y.npy", "y.csv", "y.json", "more.csv:species")),
    ):
        found = matching.read(path, labels, X)
        assert found.labels is not None
        assert found.labels.tolist() == [0, 1, 1, 0]


def test_inputs_by_name_by_order_and_by_column(tmp_path: Path):
    ids, mask = np.arange(6).reshape(2, 3), np.ones((2, 3), bool)
    named = matching.read(written(tmp_path, "named.npz", {"mask": mask, "ids": ids, "unused": ids}), None, TWO)
    ordered = matching.read(written(tmp_path, "ordered.npz", {"first": ids, "second": mask}), None, TWO)
    for found in (named, ordered):
        assert list(found.inputs) == ["ids", "mask"]
        assert all(array.dtype == np.int64 for array in found.inputs.values())
        assert np.array_equal(found.inputs["ids"], ids)
    table = matching.read(written(tmp_path, "table.csv", "city,age\nParis,41\nOslo,\n"), None, COLUMNS)
    assert table.inputs["age"].shape == table.inputs["city"].shape == (2, 1)
    assert np.isnan(table.inputs["age"][1, 0])
    assert table.inputs["city"].dtype.kind == "U"


def test_a_flat_table_takes_the_shape_of_the_model(tmp_path: Path):
    path = written(tmp_path, "images.csv", "a,b,c,d\n1,2,3,4\n")
    assert matching.read(path, None, IMAGE).inputs["image"].tolist() == [[[1, 2], [3, 4]]]


@pytest.mark.parametrize("inputs", [BY_COLUMN, AS_MATRIX])
def test_columns_are_put_in_the_order_of_a_model_that_knows_their_names(tmp_path: Path, inputs: tuple):
    path = written(tmp_path, "people.csv", "tenure months,id,age,income,y\n1,7,31,400,no\n2,8,44,500,yes\n")
    found = matching.read(path, "y", inputs).inputs
    assert np.column_stack(list(found.values())).tolist() == [[31, 400, 1], [44, 500, 2]]


@pytest.mark.parametrize("inputs", [BY_COLUMN, AS_MATRIX])
@pytest.mark.parametrize(
    ("name", "content", "said", "hint"),
    [
        (
            "people.csv",
            "tenure months,age,salary\n1,31,400\n",
            "missing: 'income'; unknown: 'salary'",
            "columns: age,income,tenure months",
        ),
        (
            "people.csv",
            "a,b,c\n1,31,400\n",
            "missing: 'age', 'income', 'tenure months'; found: 'a', 'b', 'c'",
            "columns",
        ),
        ("people.csv", "income,age\n400,31\n", "missing: 'tenure months'; found: 'income', 'age'", "columns"),
        (
            "people.jsonl",
            '{"tenure months": 1, "age": 31, "salary": 400}\n',
            "missing: 'income'; unknown: 'salary'",
            'of each row: {"age": ..., "income": ..., "tenure months": ...}',
        ),
    ],
)
def test_columns_of_other_names_are_not_taken_by_their_place(
    tmp_path: Path, inputs: tuple, name: str, content: str, said: str, hint: str
):
    with pytest.raises(ConfigError, match=said) as caught:
        matching.read(written(tmp_path, name, content), None, inputs)
    assert str(caught.value.hint).startswith(hint)


def test_what_has_no_names_of_columns_is_taken_by_its_place(tmp_path: Path):
    matrix = matching.read(written(tmp_path, "rows.npy", ROWS), None, AS_MATRIX).inputs["input"]
    assert np.array_equal(matrix, ROWS)
    named = {"arr_0": ROWS[:, 0], "arr_1": ROWS[:, 1], "arr_2": ROWS[:, 2]}
    assert list(matching.read(written(tmp_path, "rows.npz", named), None, BY_COLUMN).inputs) == list(PERSON)


def test_arrays_of_which_some_have_the_model_s_names_are_not_taken_by_their_place(tmp_path: Path):
    path = written(tmp_path, "rows.npz", {"ids": np.ones((2, 3)), "other": np.ones((2, 3))})
    with pytest.raises(ConfigError, match="missing: 'mask'; unknown: 'other'"):
        matching.read(path, None, TWO)


def test_the_hint_about_arrays_can_be_run(tmp_path: Path):
    with pytest.raises(ConfigError, match="missing: 'age', 'income', 'tenure months'; found: 'pixels'") as caught:
        matching.read(written(tmp_path, "rows.npz", {"pixels": ROWS}), None, BY_COLUMN)
    assert caught.value.hint is not None
    ones = caught.value.hint.replace("...", "np.ones(2)")
    exec(ones, {"np": np})
    assert list(matching.read(tmp_path / "rows.npz", None, BY_COLUMN).inputs) == list(PERSON)


def test_a_model_that_says_nothing_of_its_inputs_gets_them_as_they_are_called(tmp_path: Path):
    found = matching.read(written(tmp_path, "rows.npz", {"b": ROWS, "a": ROWS}), None, ())
    assert list(found.inputs) == ["b", "a"]
    assert list(matching.read(written(tmp_path, "rows.npy", ROWS), None, ()).inputs) == ["input"]


def test_precision_is_kept(tmp_path: Path):
    assert matching.read(written(tmp_path, "r.npy", ROWS), None, X).inputs["X"].dtype == np.float64
    assert matching.read(written(tmp_path, "r.npy", ROWS.astype(np.float32)), None, X).inputs["X"].dtype == np.float32
    assert matching.read(written(tmp_path, "r.npy", ROWS.astype(np.uint8)), None, X).inputs["X"].dtype == np.float32
    assert matching.read(written(tmp_path, "r.npy", ROWS.astype(np.int64)), None, X).inputs["X"].dtype == np.float64


@pytest.mark.parametrize(
    ("name", "content", "inputs", "said"),
    [
        ("rows.txt", "a", X, "expected a file .npz"),
        ("rows.npz", {"X": ROWS[:, :2]}, X, r"expected the shape \[rows, 3\], got \[4, 2\]"),
        ("rows.npz", {"ids": ROWS}, TWO, r"missing: 'mask'; found: 'ids'"),
        (
            "rows.npz",
            {"ids": np.ones((2, 3)), "mask": np.ones((3, 3))},
            TWO,
            "different numbers of rows: ids: 2, mask: 3",
        ),
        ("rows.npz", {"ids": np.full((2, 3), 0.5), "mask": np.ones((2, 3))}, TWO, "not whole, or missing"),
        ("rows.npy", np.array([["a"] * 3]), X, "expected FP32, got text"),
        ("rows.npy", np.zeros((0, 3)), X, "there are no rows"),
        ("rows.csv", "a,b,c\n", X, "expected|no rows"),
        ("rows.csv", "a,b\n1,2\n", X, "takes 3 columns, got 2: 'a', 'b'"),
        ("rows.csv", "a,b,c,y\n1,2,3,cat\n", X, "'y' is not of numbers"),
        ("rows.csv", "a,b,c\n1,2\n", X, "line 2: expected 3 fields, got 2"),
        ("rows.json", "[1, 2", X, "rows.json"),
        ("rows.json", '"text"', X, "expected a list of items"),
        ("rows.json", [[1, 2, 3], [4, 5]], X, "lists of different lengths"),
        ("rows.json", [[1, 2, "x"]], X, "expected numbers or text, got both"),
        ("rows.json", [{"a": 1}, {"b": 2}], X, "row 2: expected a, got b"),
        ("rows.jsonl", "[1,2,3]\nnot json\n", X, "row 2"),
        ("rows.npy", "not numpy", X, "rows.npy"),
        ("rows.csv", "city,zip\nParis,3\n", (COLUMNS[1], TensorSpec("zip", DataType.BYTES, (-1, 1))), "expected text"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, name: str, content: object, inputs: tuple, said: str):
    with pytest.raises(ConfigError, match=said):
        matching.read(written(tmp_path, name, content), None, inputs)


def test_python_objects_are_never_unpickled(tmp_path: Path):
    np.save(tmp_path / "rows.npy", np.array([{"a": 1}], object), allow_pickle=True)
    with pytest.raises(ConfigError, match="Python objects is not read"):
        matching.read(tmp_path / "rows.npy", None, X)


def test_the_hint_about_python_objects_is_right_for_pandas(tmp_path: Path):
    pandas = pytest.importorskip("pandas")
    rows, labels = written(tmp_path, "rows.npy", ROWS), tmp_path / "y.npy"
    values = pandas.Series(["no", "yes", "no", "no"], dtype=object)
    np.save(labels, values, allow_pickle=True)
    with pytest.raises(ConfigError) as caught:
        matching.read(rows, str(labels), X)
    assert caught.value.hint is not None
    call = re.search(r"np\.asarray\(.*?\)", caught.value.hint)
    assert call is not None
    np.save(labels, eval(call[0], {"np": np, "values": values}))
    found = matching.read(rows, str(labels), X).labels
    assert found is not None
    assert found.tolist() == ["no", "yes", "no", "no"]


@pytest.mark.parametrize(
    ("labels", "content", "said"),
    [
        ("missing.npy", None, "no such file, and no such column"),
        ("y.npy", np.arange(3), r"--labels .*y\.npy: expected 4 labels, for as many rows as .*rows\.npz has, got 3"),
        ("y.npy", np.array([0.0, np.nan, 1.0, 0.0]), "missing, or not finite, in 1 of 4 rows, first in row 2"),
        ("y.npy", np.zeros((4, 2, 2)), "expected one label for each row"),
        ("y.csv", "id,y\n1,0\n2,1\n3,1\n4,0\n", "expected one array, or one column, got 2"),
        ("y.csv:z", "id,y\n1,0\n2,1\n3,1\n4,0\n", "has no 'z': it has 'id', 'y'"),
    ],
)
def test_labels_that_do_not_fit_are_refused(tmp_path: Path, labels: str, content: object, said: str):
    rows = written(tmp_path, "rows.npz", {"X": ROWS})
    if content is not None:
        written(tmp_path, labels.partition(":")[0], content)
    with pytest.raises(ConfigError, match=said):
        matching.read(rows, str(tmp_path / labels), X)


# -- the split --------------------------------------------------------------------------------------------------------


@given(count=st.integers(2, 300), calibration=st.none() | st.integers(1, 400), seed=st.integers(0, 5))
def test_no_row_is_in_both_and_none_is_lost(count: int, calibration: int | None, seed: int):
    rows = Rows({"X": np.arange(count)[:, None]}, np.arange(count) % 3)
    one, two = matching.split(rows, seed, calibration)
    both = np.concatenate([one.inputs["X"], two.inputs["X"]]).ravel()
    assert sorted(both) == list(range(count))
    assert one.count >= 1
    assert two.count >= 1
    assert one.count == min(calibration or -(-count // 5), count - 1)
    again = matching.split(rows, seed, calibration)
    assert again.calibration.digest() == one.digest()


def test_each_class_has_its_share_in_both():
    labels = np.array(["rare"] * 20 + ["common"] * 180)
    rows = Rows({"X": np.arange(200)[:, None]}, labels)
    for seed in range(5):
        calibration, evaluation = matching.split(rows, seed)
        for part, expected in ((calibration, 4), (evaluation, 16)):
            assert part.labels is not None
            assert int((part.labels == "rare").sum()) == expected


def test_another_seed_is_another_split():
    rows = Rows({"X": np.arange(100)[:, None]})
    assert matching.split(rows, 1).calibration.digest() != matching.split(rows, 2).calibration.digest()


def test_one_row_is_left_to_judge_on():
    calibration, evaluation = matching.split(Rows({"X": np.ones((1, 3))}), 0)
    assert (calibration.count, evaluation.count) == (0, 1)


# -- calibration ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"X": np.ones((1, 3))}, "1 rows to calibrate with: at least 2"),
        ({"X": np.ones((9, 3))}, "'X' is the same in all 9 rows"),
        ({"X": np.where(np.eye(9) > 0, np.nan, np.arange(9.0))}, "'X' is NaN or infinite in 9 of 9 rows"),
        ({"X": np.array([[1.0], [np.inf], [2.0]])}, "NaN or infinite in 1 of 3 rows"),
        ({"ids": np.ones((9, 3), int), "mask": np.ones((9, 3), int)}, "all 9 rows are the same"),
    ],
)
def test_rows_that_cannot_calibrate_are_told(inputs: dict[str, np.ndarray], said: str):
    assert said in matching.uncalibrated(Rows(inputs))


def test_rows_that_can_calibrate_pass():
    assert matching.uncalibrated(Rows({"X": np.arange(6.0).reshape(2, 3)})) == ""
    assert matching.uncalibrated(Rows({"ids": np.arange(6).reshape(2, 3), "types": np.zeros((2, 3), int)})) == ""
