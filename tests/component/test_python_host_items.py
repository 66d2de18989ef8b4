"""Functions and classes that take items: what they are given, what fails alone, and what is answered."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from paceline.core.errors import InvalidRequest, ModelFailed, ModelLoadError
from support.hosts import hosted

pytestmark = pytest.mark.slow


def invalid(outcome: Any) -> str:
    assert isinstance(outcome, InvalidRequest), outcome
    return outcome.message


def broken(outcome: Any, code: str = "model_failed") -> str:
    assert isinstance(outcome, ModelFailed), outcome
    assert outcome.code == code
    return outcome.message


# -- what predict is given --------------------------------------------------------------------------------------


def test_one_item_where_it_is_annotated_so_and_each_fails_alone(tmp_path: Path):
    code = """
    def predict(item: dict):
        return 10 / item["x"]
    """
    with hosted(tmp_path, dedent(code)) as host:
        assert host.says == ["function predict: predict item by item"]
        one, zero, other, text = host.predict({"x": 1}, {"x": 0}, {"x": 4}, "no dict")
        assert (one, other) == (10.0, 2.5)
        assert broken(zero) == "predict raised ZeroDivisionError"
        assert zero.detail.splitlines()[-1] == "ZeroDivisionError: division by zero"
        assert 'return 10 / item["x"]' in zero.detail
        assert "paceline" not in zero.detail
        assert invalid(text) == "the item: Expected `object`, got `str`"


@pytest.mark.parametrize(
    "declaration",
    [
        "@dataclasses.dataclass\nclass Person:\n    name: str\n    age: int = 0\n",
        "class Person(msgspec.Struct):\n    name: str\n    age: int = 0\n",
    ],
)
@pytest.mark.parametrize(
    "function",
    [
        "def predict(person: Person):\n    return person.name * person.age\n",
        "def predict(people: list[Person]):\n    return [each.name * each.age for each in people]\n",
        "def predict(people: 'Sequence[Person]'):\n    return [each.name * each.age for each in people]\n",
        "async def predict(person: Person):\n    await asyncio.sleep(0)\n    return person.name * person.age\n",
    ],
)
def test_items_of_a_declared_type_are_checked_with_the_path_of_what_is_wrong(
    tmp_path: Path, declaration: str, function: str
):
    imports = "import asyncio, dataclasses, msgspec\nfrom collections.abc import Sequence\n"
    with hosted(tmp_path, imports + declaration + function) as host:
        good, wrong, lacking = host.predict({"name": "a", "age": 2}, {"name": "b", "age": "2"}, {})
        assert good == "aa"
        assert invalid(wrong) == "age: Expected `int`, got `str`"
        assert invalid(lacking) == "the item: Object missing required field `name`"


def test_a_typed_dict_is_checked_and_stays_a_dict(tmp_path: Path):
    code = """
    from __future__ import annotations
    from typing import TypedDict
    class Row(TypedDict):
        x: float
    def predict(rows: list[Row]):
        return [type(row).__name__ for row in rows]
    """
    with hosted(tmp_path, dedent(code)) as host:
        good, wrong = host.predict({"x": 1.5}, {"x": None})
        assert good == "dict"
        assert invalid(wrong) == "x: Expected `float`, got `null`"


def test_an_array_stacks_the_items(tmp_path: Path):
    code = """
    import numpy as np
    from numpy.typing import NDArray
    def predict(rows: NDArray[np.float32]):
        return [[str(rows.dtype), list(rows.shape)]] * len(rows)
    """
    with hosted(tmp_path, dedent(code)) as host:
        assert host.says == ["function predict: predict in batches, stacked into an array"]
        assert host.predict([1, 2], [3, 4.5]) == [["float32", [2, 2]]] * 2


def test_items_that_do_not_fit_an_array_fail_alone_and_shapes_are_not_mixed(tmp_path: Path):
    code = """
    import numpy as np
    def predict(rows: np.ndarray):
        return rows.sum(axis=1)
    """
    with hosted(tmp_path, dedent(code)) as host:
        first, ragged, text, none, longer, last = host.predict(
            [1, 2], [[1], [1, 2]], ["1", "2"], [1, None], [1, 2, 3], [3, 4]
        )
        assert (first, longer, last) == (3, 6, 7)
        assert invalid(ragged) == "the item: expected numbers, got [[1],[1,2]]"
        assert invalid(text) == 'the item: expected numbers, got ["1","2"]'
        assert invalid(none) == "the item: expected numbers, got [1,null]"


def test_a_data_frame_has_the_items_as_rows(tmp_path: Path):
    pytest.importorskip("pandas")
    code = """
    import pandas as pd
    def predict(frame: pd.DataFrame):
        frame["z"] = frame["x"] + frame["y"]
        return frame
    """
    with hosted(tmp_path, dedent(code)) as host:
        assert host.predict({"x": 1, "y": 2}, {"x": 3, "y": 4}) == [{"x": 1, "y": 2, "z": 3}, {"x": 3, "y": 4, "z": 7}]
        assert invalid(host.predict([1])[0]) == "the item: Expected `object`, got `array`"


def test_rows_with_other_keys_are_no_part_of_a_frame(tmp_path: Path):
    pytest.importorskip("pandas")
    code = """
    import pandas as pd
    def predict(frame: pd.DataFrame):
        return [f"{sorted(frame)} {row.x} {len(frame)}" for row in frame.itertuples()]
    def example():
        return pd.DataFrame({"x": [1]})
    """
    with hosted(tmp_path, dedent(code)) as host:
        assert host.examples == [{"x": 1}]
        answers = host.predict({"x": 1, "y": 2}, {"x": 3}, {"y": 4, "x": 5})
        assert answers == ["['x', 'y'] 1 2", "['x'] 3 1", "['x', 'y'] 5 2"]


def test_items_may_be_models_of_pydantic(tmp_path: Path):
    code = """
    from __future__ import annotations
    from pydantic import BaseModel, Field, field_validator
    class Person(BaseModel):
        name: str
        age: int = Field(0, ge=0)
    def predict(people: list[Person]):
        return [[each.name, each] for each in people]
    """
    with hosted(tmp_path, dedent(code)) as host:
        good, wrong, lacking, other = host.predict({"name": "a"}, {"name": "b", "age": -1}, {}, 1)
        assert good == ["a", {"name": "a", "age": 0}]
        assert invalid(wrong) == "the item: age: Input should be greater than or equal to 0"
        assert invalid(lacking) == "the item: name: Field required"
        assert invalid(other).startswith("the item: Input should be a valid dictionary")


def test_items_that_fetch_made_need_not_be_json(tmp_path: Path):
    code = """
    import numpy as np
    class Service:
        def fetch(self, item): return object() if item == "object" else [item, 1.5]
        def predict(self, rows: np.ndarray): return rows.sum(axis=1)
    """
    with hosted(tmp_path, dedent(code)) as host:
        good, bad = host.predict(1, "object")
        assert good == 2.5
        assert invalid(bad).startswith("the item: expected numbers, got ")


def test_an_array_of_integers_says_what_it_expects(tmp_path: Path):
    code = """
    import numpy as np
    from numpy.typing import NDArray
    def predict(rows: NDArray[np.int64]): return rows.sum(axis=1)
    """
    with hosted(tmp_path, dedent(code)) as host:
        good, bad = host.predict([1, 2], [1.5, 2])
        assert good == 3
        assert invalid(bad) == "the item: expected numbers of int64, got [1.5,2]"


@pytest.mark.parametrize("statement", ["return item['x']", "return item.get('x')"])
def test_who_expects_one_item_and_gets_the_batch_is_told(tmp_path: Path, statement: str):
    with hosted(tmp_path, f"def predict(item):\n    {statement}\n") as host:
        with pytest.raises(ModelFailed) as caught:
            host.predict({"x": 1})
        assert (caught.value.detail or "").endswith("parameter is annotated as one: def predict(item: dict)")


def test_an_async_predict_of_items_runs_for_all_at_once(tmp_path: Path):
    code = """
    import asyncio
    waiting = 0
    async def predict(item: int):
        global waiting
        waiting += 1
        while waiting < item:
            await asyncio.sleep(0.001)
        if item == 2:
            raise SystemExit(1)
        return waiting
    """
    with hosted(tmp_path, dedent(code)) as host:
        three, two, one = host.predict(3, 2, 1)
        assert (three, one) == (3, 3)
        assert broken(two) == "predict raised SystemExit"


# -- a class ----------------------------------------------------------------------------------------------------


def test_validate_refuses_an_item_and_replaces_nothing(tmp_path: Path):
    code = """
    class Mute(ValueError):
        def __str__(self): raise RuntimeError
    class Service:
        def validate(self, item):
            if item == "raise": raise ValueError("too small")
            if item == "assert": assert False, "not now"
            if item == "key": return {}["age"] > 1
            if item == "bug": return undefined
            if item == "mute": raise Mute
            return {"false": False, "text": "a message", "none": None, "true": True}.get(item, [item])
        def predict(self, batch): return batch
    """
    with hosted(tmp_path, dedent(code)) as host:
        answers = host.predict("raise", "assert", "key", "bug", "false", "text", "none", "true", "other", "mute")
        assert [invalid(answers[index]) for index in (0, 1, 2, 4, 5)] == [
            "too small",
            "not now",
            "KeyError: 'age'",
            "the item is not valid",
            "a message",
        ]
        assert broken(answers[3]) == "validate raised NameError"
        assert answers[6:8] == ["none", "true"]
        text = "validate returned list: expected None, True, False or a message"
        assert broken(answers[8], "bad_model_output") == text
        assert "Mute" in invalid(answers[9])


def test_clean_and_format_stand_before_and_behind_predict(tmp_path: Path):
    code = """
    class Service:
        def clean(self, items):
            return tuple(item.strip() for item in items)
        def predict(self, batch):
            assert isinstance(batch, list)
            return [len(each) for each in batch]
        def format(self, output):
            return {"length": 10 // output}
    """
    with hosted(tmp_path, dedent(code)) as host:
        two, none = host.predict(" ab ", "  ")
        assert two == {"length": 5}
        assert broken(none) == "format raised ZeroDivisionError"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("return None", "predict: expected 2 predictions, one for each item; got nothing (None)"),
        ("return batch[:1]", "predict: expected 2 predictions, one for each item; got 1"),
        ("return {'a': 1, 'b': 2}", "predict: expected 2 predictions, one for each item; got dict"),
        ("return 'ab'", "predict: expected 2 predictions, one for each item; got str"),
        ("return 1.5", "predict: expected 2 predictions, one for each item; got float"),
        ("return (each for each in batch)", "predict: expected 2 predictions, one for each item; got generator"),
        (
            "return [1, 2], [0.5, 0.5]",
            "predict: expected 2 predictions, one for each item; got a tuple of 2: of several outputs, make one value "
            "for each item",
        ),
        ("return np.float64(1)", "predict: expected 2 predictions, one for each item; got float64"),
        ("return np.array(1)", "predict: expected 2 predictions, one for each item; got an array without axes"),
    ],
)
def test_fault_55_a_wrong_number_of_predictions_is_told_as_what_it_is(tmp_path: Path, code: str, said: str):
    with hosted(tmp_path, f"import numpy as np\ndef predict(batch):\n    {code}\n") as host:
        with pytest.raises(ModelFailed) as caught:
            host.predict(1, 2)
        assert caught.value.message == said
        assert caught.value.code == "bad_model_output"


def test_a_client_is_blamed_where_the_code_says_so(tmp_path: Path):
    code = """
    from paceline.core.errors import InvalidRequest
    def predict(batch):
        if "bad" in batch:
            raise InvalidRequest("no such customer")
        return batch
    """
    with hosted(tmp_path, dedent(code)) as host:
        assert invalid(host.predict("bad")[0]) == "no such customer"


def test_setup_runs_once_and_health_is_asked_after_it(tmp_path: Path):
    code = """
    class Service:
        def __init__(self): self.log = []
        async def setup(self): self.log.append("setup")
        def health(self): self.log.append("health")
        def predict(self, batch): return [self.log for _ in batch]
    """
    with hosted(tmp_path, dedent(code)) as host:
        assert host.predict(1) == [["setup", "health"]]


@pytest.mark.parametrize(
    ("health", "said"),
    [("return False", "health() returned False"), ("raise OSError('no GPU')", "health() raised: OSError: no GPU")],
)
def test_code_that_is_not_well_at_the_start_does_not_serve(tmp_path: Path, health: str, said: str):
    code = f"class A:\n    def predict(self, batch): return batch\n    def health(self): {health}\n"
    with pytest.raises(ModelLoadError) as caught, hosted(tmp_path, code):
        pass
    assert said in str(caught.value)
