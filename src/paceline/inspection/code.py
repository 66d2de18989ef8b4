"""What is in a file of code? What it defines, from its text; nothing is imported.

Rules:
- What the code is, a worker finds out when it is served. This says what it looks like.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from paceline.config.pipeline_file import read_pipeline
from paceline.core.errors import ConfigError, ModelLoadError
from paceline.inspection.report import Report, counted, listed

_MOST_BYTES: Final = 4 << 20
_PARTS: Final = ("setup", "validate", "fetch", "clean", "predict", "format", "example", "health")
_R_FUNCTION: Final = re.compile(r"^\s*([\w.]+)\s*(?:<-|=)\s*function\s*\(([^)]*)\)", re.MULTILINE)
_R_LIBRARY: Final = re.compile(r"\b(?:library|require|requireNamespace)\(\s*[\"']?([\w.]+)")


def read_python(path: Path, report: Report, name: str | None = None) -> None:
    """Fill in the report of a Python file.

    Args:
        name: of the class or function that is to be served.

    Raises:
        ModelLoadError: it is no Python.
    """
    try:
        tree = ast.parse(_text(path))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ModelLoadError(f"{path}: cannot be read: {error or 'nested too deeply'}") from error
    report.operators = counted(_imported(tree))
    services = list(_services(tree.body))
    report.about["contract"] = listed(services) if services else "none found"
    if name is not None:
        report.about["named"] = name
    elif not services:
        report.find(
            "odd", "nothing in it is seen that predicts", "it may be made while it is imported: try to serve it"
        )
    elif sum(each.startswith(("class", "function predict")) for each in services) > 1:
        report.find("odd", "several things in it have a predict", f"name the one to serve: {path.name}:NAME")
    _about_requirements(path, report)
    _is_code(report)


def read_r(path: Path, report: Report) -> None:
    """Fill in the report of a file in R."""
    text = _text(path)
    functions = [f"function {name}({' '.join(arguments.split())})" for name, arguments in _R_FUNCTION.findall(text)]
    report.about["contract"] = listed(functions) if functions else "none found"
    report.operators = counted(_R_LIBRARY.findall(text))
    if not any(each.startswith(("function predict_fn(", "function azureml_main(")) for each in functions):
        report.find(
            "odd", "it defines neither predict_fn nor azureml_main", "a Studio script without either runs whole"
        )
    _is_code(report)


def read_pipeline_file(path: Path, report: Report) -> None:
    """Fill in the report of a pipeline.

    Raises:
        ModelLoadError: it is none.
    """
    try:
        pipeline = read_pipeline(path)
    except ConfigError as error:
        raise ModelLoadError(error.message, hint=error.hint) from error
    report.about["modules"] = listed(f"{each.name} ({each.script.name})" for each in pipeline.modules)
    for each in pipeline.modules:
        script = path.parent / each.script
        if not script.is_file():
            report.find("odd", f"{each.place}: {each.script} is not there")
    _is_code(report)


def _is_code(report: Report) -> None:
    report.find("unknown", "it is code, and runs when it is served", "read it, if it is not yours")


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise ModelLoadError(f"{path}: {(error.strerror or 'cannot be read').lower()}") from error
    if len(data) > _MOST_BYTES:
        raise ModelLoadError(f"{path}: cannot be read: it has more than {_MOST_BYTES} bytes")
    return data.decode("utf-8", "replace")


def _services(body: Sequence[ast.stmt]) -> Iterator[str]:
    functions = {each.name: each for each in body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)}
    for each in body:
        if isinstance(each, ast.ClassDef):
            methods = [part.name for part in each.body if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef)]
            if "predict" in methods:
                yield f"class {each.name}: {', '.join(part for part in _PARTS if part in methods)}"
    if "predict" in functions:
        yield f"function predict({ast.unparse(functions['predict'].args)})"
    if "init" in functions and "run" in functions:
        yield "Azure ML's init and run"
    if "azureml_main" in functions:
        yield "a Studio module: azureml_main"


def _imported(tree: ast.Module) -> Iterator[str]:
    """The modules that are imported anywhere, by the names of their packages."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def _about_requirements(path: Path, report: Report) -> None:
    beside = path.with_name("requirements.txt")
    if beside.is_file():
        lines = [line.strip() for line in _text(beside).splitlines()]
        asked = [line for line in lines if line and not line.startswith("#")]
        report.about["requirements"] = listed(asked)
