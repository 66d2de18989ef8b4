import runpy
from pathlib import Path

GENERATE = Path(__file__).parents[2] / "docs" / "reference" / "generate.py"


def test_reference_pages_are_what_the_code_says():
    for path, text in runpy.run_path(str(GENERATE))["pages"]():
        assert path.read_text() == text, f"{path.name} is out of date: run `make docs`"
