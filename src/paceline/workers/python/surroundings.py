"""What does a script of Azure ML expect around it, before it is imported?

Rules:
- A scoring script finds `AZUREML_MODEL_DIR` set: to the folder of the script, unless the operator has set it.
- It may import `azureml.contrib.services`; where that is not installed, `aml.py` stands in for it.
- A Studio module finds the files of its zip bundle under `./Script Bundle`, and can import them. Where there is no
  zip, a folder of that name beside the script is the bundle.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Final

from paceline.workers.python import bundles

BUNDLE_FOLDER: Final = "Script Bundle"
MODEL_FOLDER_VARIABLE: Final = "AZUREML_MODEL_DIR"
_SET_BY_OPERATOR: Final = MODEL_FOLDER_VARIABLE in os.environ
_STUDIO: Final = re.compile(r"^(?:async\s+)?def\s+azureml_main\b", re.MULTILINE)
_STAND_INS: Final = {
    "azureml.contrib.services.aml_request": ("AMLRequest", "rawhttp"),
    "azureml.contrib.services.aml_response": ("AMLResponse",),
    "azureml_inference_server_http.api.aml_request": ("AMLRequest", "rawhttp"),
    "azureml_inference_server_http.api.aml_response": ("AMLResponse",),
}
_PACKAGES: Final = frozenset(
    name.rsplit(".", depth)[0] for name in _STAND_INS for depth in range(1, name.count(".") + 1)
)


def surround(script: Path) -> None:
    """Prepare this process for a script of its own.

    Raises:
        ModelLoadError: its bundle cannot be extracted.
    """
    expect_scoring(script)
    folder = bundle_of(script)
    if folder is not None:
        sys.path.insert(0, str(folder / BUNDLE_FOLDER))
        os.chdir(folder)


def expect_scoring(script: Path) -> None:
    """Prepare for `init` and `run`: harmless where there are none."""
    os.environ.update(variables_for(script))
    if not any(isinstance(finder, _StandIns) for finder in sys.meta_path):
        sys.meta_path.append(_StandIns())


def variables_for(script: Path) -> dict[str, str]:
    """The environment variables that a script finds."""
    return {} if _SET_BY_OPERATOR else {MODEL_FOLDER_VARIABLE: str(script.parent)}


def bundle_of(script: Path, given: Path | None = None) -> Path | None:
    """The folder that the `Script Bundle` of a Studio module lies in: an extracted bundle's, or its own.

    Raises:
        ModelLoadError: it cannot be extracted.
    """
    if given is None and not _STUDIO.search(script.read_text(errors="replace")):
        return None
    archive = bundles.beside(script, given)
    if archive is not None:
        return bundles.extract(archive, BUNDLE_FOLDER)
    return script.parent if (script.parent / BUNDLE_FOLDER).is_dir() else None


class _StandIns(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the modules that nobody else has found: it is the last one asked."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in _STAND_INS and fullname not in _PACKAGES:
            return None
        return importlib.util.spec_from_loader(fullname, self, is_package=fullname in _PACKAGES)

    def exec_module(self, module: ModuleType) -> None:
        from paceline.workers.python import aml

        for name in _STAND_INS.get(module.__name__, ()):
            setattr(module, name, getattr(aml, name))
