"""What tests ask of reports about models, and files that no library would write."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from paceline.inspection.report import Report


def tensors(report: Report) -> list[tuple[Any, ...]]:
    """Name, type and shape of the inputs, then of the outputs, where they are told."""
    return [(each.name, each.datatype, each.shape) for each in [*(report.inputs or ()), *(report.outputs or ())]]


def found(report: Report, level: str) -> str:
    """The findings of a level, a line each."""
    return "\n".join(each.text for each in report.findings if each.level == level)


def field(number: int, content: bytes) -> bytes:
    """A field of a message of Protocol Buffers, with a length."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    written = b""
    while value >= 0x80:
        written += bytes([value & 0x7F | 0x80])
        value >>= 7
    return written + bytes([value])


def in_another_process(code: str, folder: Path) -> None:
    """Run code that loads a framework: here, its threads and warnings would stay with the tests."""
    (folder / "make.py").write_text(code)
    done = subprocess.run([sys.executable, "make.py"], cwd=folder, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
