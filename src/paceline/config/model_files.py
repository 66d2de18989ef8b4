"""What do the files beside a model say about how to serve it?

Rules:
- Three are read: Triton's `config.pbtxt`, TensorFlow Serving's `batching_params.pbtxt` (in the model's folder or in its
  version's, where that one wins), and our own `paceline.toml`, with a model's settings at top level. Ours wins.
- A file that is wrong is an error with its line: a model that is set up as nobody meant it helps nobody.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from paceline.config.machine import usable_cores
from paceline.config.resolve import per_model_settings
from paceline.config.settings import Found
from paceline.config.tfs_batching import FILE_NAME as BATCHING_NAME
from paceline.config.tfs_batching import read_batching
from paceline.config.toml_file import FILE_NAME as TOML_NAME
from paceline.config.triton_config import CONFIG_NAME, DeclaredTensor, read_triton_config

FILE_NAMES: Final = frozenset({CONFIG_NAME, BATCHING_NAME, TOML_NAME})
"""What these files are called."""


@dataclass(frozen=True, slots=True)
class Beside:
    """All that was read beside one model.

    Attributes:
        found: settings, for `ServeSettings.for_model`.
        notes: what was understood but changes nothing here, one line for people each.
        inputs, outputs: declared tensors; empty when none are.
        model_file: name of the file in a version's folder, where another is asked for.
    """

    found: Mapping[str, Found] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    inputs: tuple[DeclaredTensor, ...] = ()
    outputs: tuple[DeclaredTensor, ...] = ()
    model_file: str | None = None


def found_beside(folder: Path, version: Path | None = None) -> dict[str, Found]:
    """The settings in the files beside a model.

    Args:
        folder: the model's folder, NAME.
        version: its version's folder, NAME/VERSION.

    Raises:
        ConfigError: a file is wrong; with its line.
    """
    return dict(read_beside(folder, version).found)


def read_beside(folder: Path, version: Path | None = None) -> Beside:
    """Everything in the files beside a model; arguments and errors as for `found_beside`."""
    found: dict[str, Found] = {}
    notes: list[str] = []
    inputs: tuple[DeclaredTensor, ...] = ()
    outputs: tuple[DeclaredTensor, ...] = ()
    model_file = None
    if (folder / CONFIG_NAME).is_file():
        triton = read_triton_config(folder / CONFIG_NAME)
        found |= triton.found
        notes += triton.notes
        inputs, outputs, model_file = triton.inputs, triton.outputs, triton.model_file
    for place in (folder, version):
        if place is not None and (place / BATCHING_NAME).is_file():
            batching = read_batching(place / BATCHING_NAME, usable_cores().whole)
            found |= batching.found
            notes += batching.notes
    if (folder / TOML_NAME).is_file():
        found |= per_model_settings(folder / TOML_NAME)
    return Beside(found, tuple(dict.fromkeys(notes)), inputs, outputs, model_file)
