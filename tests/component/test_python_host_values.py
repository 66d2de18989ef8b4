"""What is answered: every kind of value as JSON, no NaN in silence, and what cannot be written fails alone."""

from __future__ import annotations

import math
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from paceline.core.errors import ModelFailed
from support.hosts import hosted

pytestmark = pytest.mark.slow


def broken(outcome: Any, code: str) -> str:
    assert isinstance(outcome, ModelFailed), outcome
    assert outcome.code == code
    return outcome.message


VALUES = """
import dataclasses, datetime, decimal, enum, uuid
import msgspec
import numpy as np

@dataclasses.dataclass
class Point:
    x: float
    y: object = None

class Pair(msgspec.Struct, rename="camel"):
    first_one: int
    second: object

class Color(enum.Enum):
    RED = "red"

class Model:
    def model_dump(self, mode): return {"mode": mode}

VALUES = {
    "scalar": np.float32(0.1),
    "integer": np.int64(-3),
    "bool": np.bool_(True),
    "array": np.array([[0.1, 0.2]], np.float32),
    "column": np.arange(6).reshape(2, 3).T[0],
    "longlong": np.array([2**62], np.longlong),
    "half": np.array([0.5], np.float16),
    "texts": np.array(["a", "b"]),
    "objects": np.array(["a", {"b": 1}], object),
    "no_axes": np.array(2.5),
    "dataclass": Point(1.5, [Point(2.0)]),
    "struct": Pair(1, np.array([1, 2])),
    "date": datetime.date(2024, 2, 29),
    "time": datetime.datetime(2024, 2, 29, 12, tzinfo=datetime.timezone.utc),
    "datetime64": np.datetime64("2024-02-29T12:00:00"),
    "decimal": decimal.Decimal("12345678901234567890.10"),
    "set": {3, 1, 2},
    "mixed_set": frozenset(["a"]),
    "uuid": uuid.UUID(int=1),
    "enum": Color.RED,
    "keys": {1: "a", False: "b", None: "c"},
    "tuple": (1, (2, 3)),
    "pydantic": Model(),
    "null": None,
    "word": "null",
    "nested_null": [None, {"a": None}],
}

def predict(names):
    return [VALUES[name] for name in names]
"""

WRITTEN: dict[str, Any] = {
    "scalar": 0.1,
    "integer": -3,
    "bool": True,
    "array": [[0.1, 0.2]],
    "column": [0, 3],
    "longlong": [2**62],
    "half": [0.5],
    "texts": ["a", "b"],
    "objects": ["a", {"b": 1}],
    "no_axes": 2.5,
    "dataclass": {"x": 1.5, "y": [{"x": 2.0, "y": None}]},
    "struct": {"firstOne": 1, "second": [1, 2]},
    "date": "2024-02-29",
    "time": "2024-02-29T12:00:00+00:00",
    "datetime64": "2024-02-29T12:00:00",
    "decimal": 12345678901234567890.10,
    "set": [1, 2, 3],
    "mixed_set": ["a"],
    "uuid": "00000000-0000-0000-0000-000000000001",
    "enum": "red",
    "keys": {"1": "a", "false": "b", "null": "c"},
    "tuple": [1, [2, 3]],
    "pydantic": {"mode": "json"},
    "null": None,
    "word": "null",
    "nested_null": [None, {"a": None}],
}


def test_values_of_every_kind_are_written(tmp_path: Path):
    with hosted(tmp_path, VALUES) as host:
        assert dict(zip(WRITTEN, host.predict(*WRITTEN), strict=True)) == WRITTEN


def test_an_array_of_predictions_is_cut_into_rows(tmp_path: Path):
    code = """
    import numpy as np
    def predict(batch):
        return np.array([[0.1, each] for each in batch], np.float32) if batch[0] else np.array(batch, np.float32)
    """
    with hosted(tmp_path, dedent(code)) as host:
        assert host.predict(1, 2.2) == [[0.1, 1.0], [0.1, 2.2]]
        assert host.predict(0, 0.1) == [0.0, 0.1]
        deep = host.predict(*range(1, 100))
        assert deep == [[0.1, float(each)] for each in range(1, 100)]


@pytest.mark.parametrize("kind", ["float('nan')", "np.float32('nan')", "decimal.Decimal('NaN')"])
def test_fault_54_nan_anywhere_in_an_output_fails_its_prediction(tmp_path: Path, kind: str):
    code = f"""
    import dataclasses, decimal
    import numpy as np
    @dataclasses.dataclass
    class Point:
        x: object
    BAD = {kind}
    def predict(batch):
        return [1.5, BAD, [0, BAD], {{"a": {{"b": BAD}}}}, np.array([1, BAD], object), Point(BAD), None]
    """
    with hosted(tmp_path, dedent(code)) as host:
        good, *bad, null = host.predict(*range(7))
        assert (good, null) == (1.5, None)
        places = ["prediction", "prediction[1]", "prediction.a.b", "prediction[1]", "prediction.x"]
        told = [broken(each, "nonfinite_output") for each in bad]
        assert told == [f"{place} is NaN: JSON has neither NaN nor infinity" for place in places]


def test_fault_54_a_row_of_an_array_that_is_not_finite_fails_alone(tmp_path: Path):
    code = """
    import numpy as np
    def predict(batch):
        return np.array([[1, each] for each in batch], float) / 0.0 if 3 in batch else np.log(np.array(batch, float))
    """
    with hosted(tmp_path, f"import warnings\nwarnings.simplefilter('ignore')\n{dedent(code)}") as host:
        first, second, third = host.predict(1, 0, 1)
        assert (first, third) == (0.0, 0.0)
        assert broken(second, "nonfinite_output").startswith("prediction is -Infinity")
        infinite = host.predict(3)[0]
        assert broken(infinite, "nonfinite_output").startswith("prediction[0] is Infinity")


@pytest.mark.parametrize(
    ("policy", "written"),
    [("null", [None, {"a": [1.0, None]}, None]), ("string", ["NaN", {"a": [1.0, "-Infinity"]}, "Infinity"])],
)
def test_fault_54_the_operator_may_let_them_through(tmp_path: Path, policy: str, written: list[Any]):
    code = """
    import numpy as np
    def predict(batch):
        return [float("nan"), {"a": np.array([1, -np.inf])}, np.float64("inf")]
    """
    with hosted(tmp_path, dedent(code), nonfinite=policy) as host:
        assert host.predict(1, 2, 3) == written


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("object()", "no way to write a value of type object"),
        ("{'a': [b'bytes']}", "no way to write a value of type bytes"),
        ("predict", "no way to write a value of type function"),
        ("1j", "no way to write a value of type complex"),
        ("2**70", "Integer exceeds 64-bit range"),
        ("'\\ud800'", "str is not valid UTF-8: surrogates not allowed"),
        ("loop", "Recursion limit reached"),
    ],
)
def test_a_prediction_that_cannot_be_written_fails_alone(tmp_path: Path, value: str, said: str):
    code = f"loop = []\nloop.append(loop)\ndef predict(batch):\n    return [1, {value}, 3]\n"
    with hosted(tmp_path, code) as host:
        first, bad, last = host.predict(1, 2, 3)
        assert (first, last) == (1, 3)
        assert broken(bad, "bad_model_output") == f"a prediction cannot be written as JSON: {said}"


def test_pandas_values_are_written(tmp_path: Path):
    pytest.importorskip("pandas")
    code = """
    import pandas as pd
    FRAME = pd.DataFrame({"a": [1, 2], "b": ["x", None]})
    def predict(batch):
        return [FRAME, FRAME["a"], FRAME.iloc[0], pd.Timestamp("2024-02-29"), pd.NA]
    """
    with hosted(tmp_path, dedent(code)) as host:
        assert host.predict(*range(5)) == [
            [{"a": 1, "b": "x"}, {"a": 2, "b": None}],
            [1, 2],
            {"a": 1, "b": "x"},
            "2024-02-29T00:00:00",
            None,
        ]


def test_what_pandas_has_beside_numbers_and_texts(tmp_path: Path):
    pytest.importorskip("pandas")
    code = """
    import pandas as pd
    MIXED = pd.DataFrame({"bin": pd.cut([1, 99], [0, 5, 10]), "day": pd.to_datetime(["2024-02-29", None])})
    def predict(batch):
        return [pd.NaT, pd.Interval(0, 5), pd.Period("2024-02"), pd.Index([1, 2]), MIXED]
    """
    with hosted(tmp_path, dedent(code)) as host:
        *plain, frame = host.predict(*range(5))
        assert plain == [None, "(0, 5]", "2024-02", [1, 2]]
        assert frame == [{"bin": "(0.0, 5.0]", "day": "2024-02-29T00:00:00"}, {"bin": None, "day": None}]


def test_a_dataclass_has_all_its_fields(tmp_path: Path):
    code = """
    from dataclasses import dataclass, field
    @dataclass
    class Person:
        name: str
        age: int | None = None
        level: str = "low"
        tags: list = field(default_factory=list)
        _secret: int = 1
    @dataclass(slots=True)
    class Pair:
        left: Person
    def predict(people: list[Person]):
        return [Pair(each) for each in people]
    """
    with hosted(tmp_path, dedent(code)) as host:
        (pair,) = host.predict({"name": "a"})
        assert pair == {"left": {"name": "a", "age": None, "level": "low", "tags": []}}


def test_what_numpy_can_make_an_array_of_is_one(tmp_path: Path):
    code = """
    import numpy as np
    class Tensor:
        def __array__(self, dtype=None, copy=None): return np.array([[1.5, 2], [3, 4]])
    def predict(batch):
        return Tensor() if batch[0] == "all" else [Tensor(), np.ma.masked_array([1, 2], [False, True])]
    """
    with hosted(tmp_path, dedent(code)) as host:
        assert host.predict("all", 1) == [[1.5, 2.0], [3.0, 4.0]]
        assert host.predict("each", 1) == [[[1.5, 2.0], [3.0, 4.0]], [1, None]]


def test_floats_keep_their_digits(tmp_path: Path):
    code = "import math\ndef predict(batch):\n    return [math.pi, 1e-300, -0.0, 1e22]\n"
    with hosted(tmp_path, code) as host:
        assert host.predict(*range(4)) == [math.pi, 1e-300, -0.0, 1e22]
