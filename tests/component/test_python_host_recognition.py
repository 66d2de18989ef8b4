"""What is recognised in a file of Python, and what its author is told when nothing can be."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from paceline.core.errors import ModelLoadError, RuntimeUnavailable
from support.hosts import hosted

pytestmark = pytest.mark.slow

DOUBLE = "def predict(batch):\n    return [2 * each for each in batch]\n"


def refused(folder: Path, code: str, name: str = "service.py", **options: object) -> ModelLoadError:
    with pytest.raises((ModelLoadError, RuntimeUnavailable)) as caught, hosted(folder, dedent(code), name, **options):
        pass
    assert "paceline/" not in str(caught.value), "the frames are the user's own"
    return caught.value


def test_a_function_is_a_service(tmp_path: Path):
    with hosted(tmp_path, DOUBLE) as host:
        assert host.says == ["function predict: predict in batches"]
        assert host.predict(1, 2, 3) == [2, 4, 6]


def test_a_class_is_a_service_and_its_parts_are_told(tmp_path: Path):
    code = """
    class Digits:
        def setup(self): self.factor = 2
        async def fetch(self, item): return item
        def clean(self, items): return items
        def predict(self, batch): return [self.factor * each for each in batch]
        def example(self): return 1
    """
    with hosted(tmp_path, dedent(code)) as host:
        assert host.says == ["class Digits: setup, fetch (async), clean, predict in batches, example"]
        assert host.examples == [1]
        assert host.predict(4) == [8]


def test_one_of_several_is_chosen_by_name(tmp_path: Path):
    code = """
    class One:
        def predict(self, batch): return [1 for _ in batch]
    class Two:
        def predict(self, batch): return [2 for _ in batch]
    class _Helper:
        def predict(self, batch): return []
    def third(batch): return [3 for _ in batch]
    fourth = Two()
    """
    error = refused(tmp_path, code)
    assert "service.py: several things here have a predict: One, Two" in str(error)
    assert error.hint == "name the one to serve, such as service.py:One"
    for name, answer in (("One", 1), ("Two", 2), ("third", 3), ("fourth", 2)):
        with hosted(tmp_path, dedent(code), f"service.py:{name}") as host:
            assert host.predict(0) == [answer]
    missing = refused(tmp_path, code, "service.py:Three")
    assert str(missing) == "service.py has no 'Three'"
    assert missing.hint == "it has One, Two, third"


def test_a_class_that_others_derive_from_is_not_the_service(tmp_path: Path):
    code = """
    class Base:
        def predict(self, batch): return [self.answer for _ in batch]
    class Leaf(Base):
        answer = 7
    """
    with hosted(tmp_path, dedent(code)) as host:
        assert host.says == ["class Leaf: predict in batches"]
        assert host.predict(0) == [7]


def test_a_class_that_was_imported_is_not_the_service(tmp_path: Path):
    (tmp_path / "models.py").write_text("class Other:\n    def predict(self, batch): return []\n")
    with hosted(tmp_path, f"from models import Other\n{DOUBLE}") as host:
        assert host.says == ["function predict: predict in batches"]


def test_nothing_to_serve_says_what_was_looked_for(tmp_path: Path):
    error = refused(tmp_path, "x = 1\n")
    assert str(error) == "service.py holds nothing to serve"
    assert "a class with a method predict, a function predict, init() and run(data)" in (error.hint or "")


def test_a_module_is_imported_as_itself(tmp_path: Path):
    code = """
    import dataclasses, pickle, sys
    import beside
    @dataclasses.dataclass
    class Point:
        x: int
    def predict(batch):
        import my_service
        copy = pickle.loads(pickle.dumps(Point(1)))
        return [[__name__, my_service is sys.modules[__name__], copy.x, beside.NAME] for _ in batch]
    """
    (tmp_path / "beside.py").write_text("NAME = 'beside'\n")
    with hosted(tmp_path, dedent(code), "my_service.py") as host:
        assert host.predict(0) == [["my_service", True, 1, "beside"]]


def test_a_file_called_like_a_library_does_not_take_its_place(tmp_path: Path):
    code = "import json\n\ndef predict(batch):\n    return [[json.loads('[1]'), __name__] for _ in batch]\n"
    with hosted(tmp_path, code, "json.py") as host:
        assert host.predict(0) == [[[1], "json_service"]]


def test_fault_7_an_error_at_import_shows_the_users_frames_only(tmp_path: Path):
    (tmp_path / "helper.py").write_text("def load():\n    return 1 / 0\n")
    error = refused(tmp_path, "import helper\n\nmodel = helper.load()\n")
    text = str(error)
    assert text.startswith("service.py: ZeroDivisionError: division by zero")
    assert "helper.py" in text
    assert "model = helper.load()" in text
    assert "importlib" not in text


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import sys\nsys.exit(3)\n", "service.py: SystemExit: 3"),
        ("raise KeyboardInterrupt\n", "service.py: KeyboardInterrupt"),
        ("def predict(batch:\n", "service.py: SyntaxError: "),
        ("def f(): f()\nf()\n", "service.py: RecursionError: "),
    ],
)
def test_fault_7_whatever_an_import_raises_is_told(tmp_path: Path, code: str, said: str):
    assert str(refused(tmp_path, code)).startswith(said)


def test_a_library_that_is_missing_is_named(tmp_path: Path):
    error = refused(tmp_path, f"import no_such_library\n{DOUBLE}")
    assert isinstance(error, RuntimeUnavailable)
    assert "No module named 'no_such_library'" in str(error)
    assert error.hint == "install no_such_library, or list it in a requirements.txt beside service.py"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (
            "class A:\n    def __init__(self, path): ...\n    def predict(self, batch): ...\n",
            "class A cannot be made without arguments: its __init__ needs path",
        ),
        ("def predict(a, b): ...\n", "predict(a, b): expected one parameter"),
        ("def predict(): ...\n", "predict(): expected one parameter"),
        ("def predict(item: 'Missing'): ...\n", "predict(item: Missing): NameError: name 'Missing' is not defined"),
        ("import json\ndef predict(item: 'json.No'): ...\n", "predict(item: json.No): AttributeError: "),
        ("def predict(batch, *, model): ...\n", "predict(batch, model): expected one parameter"),
        ("class A:\n    def predict(batch): ...\n", "predict(): expected one parameter"),
        ("class A:\n    def predict(): ...\n", "predict(): expected self as the first parameter of a method"),
        (
            "class A:\n    format = 'json'\n    def predict(self, batch): ...\n",
            "class A: format: expected a function, got str",
        ),
        ("inputs = [1]\ndef predict(batch): ...\n", "inputs: expected such as {"),
        ("class T: ...\ndef predict(item: T): ...\n", "predict(item): JSON cannot be decoded to its annotation"),
        (
            "class A:\n    async def clean(self, items): ...\n    def predict(self, batch): ...\n",
            "class A: clean must be a plain function",
        ),
        (
            "class A:\n    inputs = {'x': ('FP32', [-1])}\n    def fetch(self, i): 0\n    def predict(self, x): 0\n",
            "class A: fetch works on items, and inputs declares tensors",
        ),
        (
            "class A:\n    def clean(self, items): ...\n    def predict(self, item): yield 1\n",
            "class A: clean works on batches, and a generator takes one item at a time",
        ),
        (
            "inputs = {'x': ('FP32', [-1])}\ndef predict(x): yield x\n",
            "function predict: a generator works on items, and inputs declares tensors",
        ),
        ("max_batch_size = 0\ndef predict(batch): ...\n", "max_batch_size: expected a number >= 1, got 0"),
        ("inputs = {'x': 'FP32'}\ndef predict(x): ...\n", "inputs['x']: expected a datatype and a shape"),
        ("inputs = {'x': ('FP31', [-1])}\ndef predict(x): ...\n", "inputs['x']: expected a datatype and a shape"),
        ("inputs = {'x': ('FP32', [4])}\ndef predict(x): ...\n", "inputs['x']: expected a datatype and a shape"),
        (
            "inputs = {'x': ('FP32', [-1]), 'y': ('FP32', [-1])}\ndef predict(x, z): ...\n",
            "predict has no parameter 'y'",
        ),
    ],
)
def test_what_is_wrong_with_a_contract_is_said_when_it_is_loaded(tmp_path: Path, code: str, said: str):
    assert said in str(refused(tmp_path, code))


def test_an_error_in_setup_is_told_with_the_users_frames(tmp_path: Path):
    code = """
    class A:
        def setup(self):
            open("/no/such/file")
        def predict(self, batch): return batch
    """
    text = str(refused(tmp_path, code))
    assert text.startswith("service.py: setup: FileNotFoundError: ")
    assert 'open("/no/such/file")' in text


def test_an_example_that_is_no_json_is_refused(tmp_path: Path):
    assert "type object" in str(refused(tmp_path, f"def example(): return object()\n{DOUBLE}"))


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ("def setup(self, config): ...", "setup(config): expected setup()"),
        ("def validate(self): ...", "validate(): expected validate(item)"),
        ("async def fetch(self, item, session): ...", "fetch(item, session): expected fetch(item)"),
        ("def clean(self): ...", "clean(): expected clean(items)"),
        ("def format(self, output, row): ...", "format(output, row): expected format(output)"),
        ("def example(self, n): ...", "example(n): expected example()"),
        ("def health(self, *, url): ...", "health(url): expected health()"),
    ],
)
def test_a_part_that_cannot_be_called_is_told_before_any_client_is_blamed_for_it(tmp_path: Path, part: str, said: str):
    code = f"class A:\n    def predict(self, batch): ...\n    {part}\n"
    assert str(refused(tmp_path, code)) == f"service.py: {said}"


@pytest.mark.parametrize("base", ["Protocol", "ABC"])
def test_an_interface_is_not_the_service(tmp_path: Path, base: str):
    code = f"""
    from abc import ABC, abstractmethod
    from typing import Protocol
    class Predicts({base}):
        @abstractmethod
        def predict(self, batch): ...
    class Service:
        def predict(self, batch): return batch
    """
    with hosted(tmp_path, dedent(code)) as host:
        assert host.says == ["class Service: predict in batches"]


def test_an_object_that_predicts_is_served_when_it_is_named(tmp_path: Path):
    code = """
    class _Model:
        def __init__(self, factor): self.factor = factor
        def predict(self, batch): return [self.factor * each for each in batch]
    model = _Model(3)
    """
    assert refused(tmp_path, code).hint == "name the object to serve, such as service.py:model"
    with hosted(tmp_path, dedent(code), "service.py:model") as host:
        assert host.predict(2) == [6]


@pytest.mark.parametrize(
    "code",
    [
        "from functools import partial\ndef p(items: 'list[int]', by): return [by * i for i in items]\n"
        "predict = partial(p, by=2)\n",
        "class C:\n    async def __call__(self, item: int): return 2 * item\npredict = C()\n",
        "import operator\nclass C:\n    def __call__(self, item: 'int'): return 2 * item\npredict = C()\n",
        "predict = lambda batch: [2 * each for each in batch]\n",
        "import functools\ndef wrap(f):\n    @functools.wraps(f)\n    def w(*a): return f(*a)\n    return w\n"
        "@wrap\nasync def predict(item: int): return 2 * item\n",
    ],
)
def test_whatever_can_be_called_may_be_predict(tmp_path: Path, code: str):
    with hosted(tmp_path, code) as host:
        assert host.predict(2, 3) == [4, 6]


def test_an_error_with_notes_is_told_by_its_own_words(tmp_path: Path):
    error = refused(tmp_path, "e = ValueError('the reason')\ne.add_note('a note')\nraise e\n")
    assert str(error).startswith("service.py: ValueError: the reason\n")


@pytest.mark.parametrize("name", ["data.csv", "gone.csv"])
def test_a_file_that_is_looked_for_elsewhere_is_pointed_at(tmp_path: Path, name: str):
    (tmp_path / "data.csv").write_text("x\n1\n")
    hint = refused(tmp_path, f"rows = open({name!r}).read()\n{DOUBLE}").hint or ""
    assert str(Path.cwd()) in hint
    assert ("it lies beside service.py" in hint) is (name == "data.csv")


def test_what_a_script_has_pickled_of_its_own_is_explained(tmp_path: Path):
    code = "import pickle\npickle.loads(b'c__main__\\nCleaner\\n.')\n"
    with pytest.raises(ModelLoadError) as caught, hosted(tmp_path, code):
        pass
    assert "put the definition in a module beside it" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("example", "said"),
    [
        ("[5.1, 3.5]", "service.py: example()[0]: the item: Expected `array`, got `float`"),
        ("[[1.5], ['x']]", "service.py: example()[1]: [0]: Expected `float`, got `str`"),
    ],
)
def test_an_example_that_predict_would_never_be_given_is_refused(tmp_path: Path, example: str, said: str):
    error = refused(tmp_path, f"def predict(rows: list[list[float]]): return rows\ndef example(): return {example}\n")
    assert str(error) == said
    assert "a list is a list of items" in (error.hint or "")


def test_an_example_that_the_code_refuses_itself_is_refused(tmp_path: Path):
    code = """
    class A:
        def validate(self, item): return item > 0
        def predict(self, batch): return batch
        def example(self): return -1
    """
    assert str(refused(tmp_path, code)) == "service.py: example(): the item is not valid"
