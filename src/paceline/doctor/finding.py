"""What does a check say? The lines behind `paceline doctor`, and its document.

Rules:
- `document` says which one this is. Fields may be added; `schema` counts changes that break readers.
"""

from __future__ import annotations

from typing import Literal

import msgspec

SCHEMA = 1

Level = Literal["ok", "note", "problem"]


class Finding(msgspec.Struct, kw_only=True):
    """One thing about the machine.

    Attributes:
        check: what was looked at, such as `huge pages`; several findings may share it.
        level: `ok`: as it should be, or a plain fact; `note`: something may be gained; `problem`: something is lost.
        hint: what to do about it; None for what is `ok`.
    """

    check: str
    level: Level
    text: str
    hint: str | None = None


class Group(msgspec.Struct, kw_only=True):
    """Findings that belong together, under a title."""

    title: str
    findings: list[Finding]


class Examination(msgspec.Struct, kw_only=True, tag_field="document", tag="examination"):
    """Everything that was found.

    Attributes:
        machine: processor, architecture, cores, memory in bytes; for programs.
        problems, notes: how many findings are that.
    """

    schema: int = SCHEMA
    paceline: str
    machine: dict[str, str | int | float | None]
    groups: list[Group]
    problems: int = 0
    notes: int = 0


def ok(check: str, text: str) -> Finding:
    """As it should be."""
    return Finding(check=check, level="ok", text=text)


def note(check: str, text: str, hint: str) -> Finding:
    """Something may be gained."""
    return Finding(check=check, level="note", text=text, hint=hint)


def problem(check: str, text: str, hint: str) -> Finding:
    """Something is lost."""
    return Finding(check=check, level="problem", text=text, hint=hint)
