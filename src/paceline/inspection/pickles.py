"""What is in a pickle or a joblib file? Which names it looks up, and which model comes out.

Rules:
- A pickle is a program. It is followed, not run; see `opcodes.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from paceline.inspection import estimators
from paceline.inspection.names import judge
from paceline.inspection.opcodes import Program, follow
from paceline.inspection.report import Import, Report, by_count, listed
from paceline.inspection.standins import Broken, Made
from paceline.inspection.streams import Stream, opened
from paceline.reports.units import BYTES

_MOST_SHOWN: Final = 200
_MOST_REST: Final = 1_000_000
_READ_IT: Final = "load it only where its makers may run code; --allow-pickle lets paceline serve do so, in a worker"
# What is counted as an operator: objects of these would only say how arrays are written.
PLAIN: Final = ("numpy.", "numpy", "builtins.", "collections.", "copyreg.", "joblib.", "_codecs.")


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
    made = {name: count for name, count in program.made.items() if not name.startswith(PLAIN)}
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
    rest = stream.skip(_MOST_REST)
    if rest:
        size = BYTES.plain(rest) if rest < _MOST_REST else f"{BYTES.plain(rest)} or more"
        report.find("odd", f"behind the pickle there is more, {size}, which loading does not read")


def _about_model(result: Any, report: Report) -> None:
    if isinstance(result, Made):
        estimators.describe(result, report)
    else:
        report.find("odd", "what comes out is no object of a class: it cannot be served", "pickle the model itself")
