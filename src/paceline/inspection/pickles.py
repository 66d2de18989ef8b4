"""What is in a pickle, a joblib file or a skops file? Which names it looks up, and which model comes out.

Rules:
- A pickle is a program. It is followed, not run; see `opcodes.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, Final

from paceline.inspection.archive import Archive
from paceline.inspection.documents import NotJson, decoded, objects
from paceline.inspection.names import judge
from paceline.inspection.opcodes import Program, follow
from paceline.inspection.report import Import, Report, Tensor, by_count, listed
from paceline.inspection.standins import Broken, Made, Many, Name
from paceline.inspection.streams import Stream, opened

_MOST_SHOWN: Final = 200
_MOST_COLUMNS: Final = 64  # as the service of an estimator has tensors for its columns
_MOST_SCHEMA_BYTES: Final = 256 << 20
_READ_IT: Final = "load it only where its makers may run code; --allow-pickle lets paceline serve do so, in a worker"
# What is counted as an operator: objects of these would only say how arrays are written.
_PLAIN: Final = ("numpy.", "numpy", "builtins.", "collections.", "copyreg.", "joblib.", "_codecs.")


def read(path: Path, report: Report) -> None:
    """Fill in the report of a pickle or a joblib file.

    Raises:
        ModelLoadError: it cannot be read, or is a bomb.
    """
    stream, compression = opened(path)
    if compression is not None:
        report.about["compressed"] = compression
    program = Program()
    broken = _followed(stream, program)
    if program.arrays:
        _as_plain_pickle(path, program)
    describe(program, report)
    if broken is not None:
        report.find("unknown", f"it cannot be followed to its end: {broken}", "it may do more than is listed here")
    else:
        _about_rest(stream, report)
    report.find("note", "loading a pickle runs the code that it names", _READ_IT)
    _about_model(program.result, report)


def describe(program: Program, report: Report) -> None:
    """What a program does, for any format that has pickles inside."""
    report.about["pickle protocol"] = program.protocol
    report.about["pickle instructions"] = program.instructions
    add_imports(program.names, report)
    for hidden in program.hidden:
        report.find("unsafe", f"it hides what it does: {hidden}", _READ_IT)
    made = {name: count for name, count in program.made.items() if not name.startswith(_PLAIN)}
    report.operators = by_count(made)


def add_imports(names: Mapping[tuple[str, str], bool], report: Report) -> None:
    """Judge names, whether each is called, and say which are not harmless."""
    by_level: dict[str, list[str]] = {"dangerous": [], "unknown": [], "known": []}
    for (module, name), called in sorted(names.items()):
        level, why = judge(module, name, called=called)
        if len(by_level[level]) < _MOST_SHOWN:
            report.imports.append(Import(name=f"{module}.{name}", verdict=level, called=called, why=why))
        by_level[level].append(f"{module}.{name} ({why})" if level != "known" else name)
    if by_level["dangerous"]:
        report.find("unsafe", f"it names what can do harm: {listed(by_level['dangerous'])}", "do not load it")
    if by_level["unknown"]:
        report.find("unknown", f"it names what is not known here: {listed(by_level['unknown'])}", _READ_IT)


def read_skops(path: Path, report: Report) -> None:
    """Fill in the report of a .skops file, from the list of types that it carries.

    Raises:
        ModelLoadError: it is no such file.
    """
    with Archive(path) as archive:
        try:
            schema = decoded(archive.read("schema.json", _MOST_SCHEMA_BYTES))
        except NotJson as error:
            raise archive.broken(f"schema.json: {error}") from error
    names: dict[tuple[str, str], bool] = {}
    made: dict[str, int] = {}
    for node in objects(schema):
        module, name = node.get("__module__"), node.get("__class__")
        if isinstance(module, str) and isinstance(name, str):
            # A function or a type is referred to; of any other node an object is made.
            called = node.get("__loader__") not in ("FunctionNode", "TypeNode")
            names[module, name] = names.get((module, name), False) or called
            full = f"{module}.{name}"
            if called and not full.startswith(_PLAIN):
                made[full] = made.get(full, 0) + 1
    add_imports(names, report)
    report.operators = by_count(made)
    if isinstance(schema, dict):
        report.versions["skops"] = str(schema.get("_skops_version", "?"))[:64]
        _about_skops_model(schema, report)


def _followed(stream: Stream, program: Program) -> str | None:
    try:
        follow(stream, program)
    except Broken as error:
        return str(error)
    return None


def _as_plain_pickle(path: Path, program: Program) -> None:
    """Add the names that `pickle.load` would look up: it takes the bytes of joblib's arrays for instructions.

    In a file of joblib's, they are none, and that ends at once. In another, they may be the ones that do the harm.
    """
    other = Program()
    with suppress(Broken):
        follow(opened(path)[0], other, step_over=False)
    for name, called in other.names.items():
        program.names[name] = program.names.get(name, False) or called
    program.hidden += [each for each in other.hidden if each not in program.hidden]


def _about_rest(stream: Stream, report: Report) -> None:
    rest = stream.skip(1 << 20)
    if rest:
        size = f"{rest} bytes" if rest < 1 << 20 else "a megabyte or more"
        report.find("odd", f"behind the pickle there is more, {size}, which loading does not read")


def _about_model(result: Any, report: Report) -> None:
    if not isinstance(result, Made):
        report.find("odd", "what comes out is no object of a class: it cannot be served", "pickle the model itself")
        return
    report.about["object"] = _class_of(result)
    attributes = result.state.by_key if isinstance(result.state, Many) else {}
    _about_estimator(attributes, report)


def _about_estimator(attributes: Mapping[str, Any], report: Report) -> None:
    made_with = attributes.get("_sklearn_version")
    if isinstance(made_with, str):
        report.made_by = f"scikit-learn {made_with}"
        report.versions["scikit-learn"] = made_with
    for key, shown in (("n_estimators", "trees"), ("n_outputs_", "outputs"), ("max_iter", "iterations at most")):
        value = attributes.get(key)
        if isinstance(value, int) and not isinstance(value, bool):
            report.about[shown] = value
    steps = attributes.get("steps")
    if isinstance(steps, Many):
        named = [step for step in steps.items if isinstance(step, tuple) and len(step) == 2]
        report.about["steps"] = listed(f"{name}: {_class_of(step)}" for name, step in named)
        if named and "n_features_in_" not in attributes:
            attributes = _state(named[0][1])
    columns = attributes.get("n_features_in_")
    if isinstance(columns, int) and columns > 0:
        report.inputs = [Tensor(name="input", datatype="FP64", shape=[-1, columns])]


def _state(value: Any) -> Mapping[str, Any]:
    return value.state.by_key if isinstance(value, Made) and isinstance(value.state, Many) else {}


def _class_of(value: Any) -> str:
    of = value.of if isinstance(value, Made) else value
    first = value.args[0] if isinstance(value, Made) and isinstance(value.args, tuple) and value.args else None
    # copyreg's helpers make an object of the class that they are given.
    if isinstance(of, Name) and of.module == "copyreg" and isinstance(first, Name):
        of = first
    return str(of) if isinstance(of, Name) else "?"


def _about_skops_model(schema: Mapping[str, Any], report: Report) -> None:
    report.about["object"] = f"{schema.get('__module__')}.{schema.get('__class__')}"[:200]
    content = schema.get("content")
    attributes = content.get("content") if isinstance(content, dict) else None
    if not isinstance(attributes, dict):
        return
    plain = {key: _plain(value) for key, value in islice(attributes.items(), 1000) if isinstance(value, dict)}
    _about_estimator({key: value for key, value in plain.items() if value is not None}, report)


def _plain(node: Mapping[str, Any]) -> Any:
    """The number or text of a node of skops; None: it is something else."""
    content = node.get("content")
    if not isinstance(content, str) or node.get("__loader__") != "JsonNode" or len(content) > _MOST_SHOWN:
        return None
    try:
        return decoded(content.encode())
    except NotJson:
        return None
