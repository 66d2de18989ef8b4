"""Reads the facts about a model as a step: a hostile file costs that process, and not the study."""

from __future__ import annotations

from pathlib import Path

from paceline.optimize import facts
from paceline.optimize.facts import Facts


def read(*, model: Path, folder: Path) -> Facts:  # noqa: ARG001  # a step has a folder
    """See `facts.read`."""
    return facts.read(model)
