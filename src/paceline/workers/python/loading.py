"""From a file to a service: import the code once, and find out which contract it keeps.

Rules:
- A module is imported as itself: under its own name, with its folder first on the path.
- What was looked for is said when nothing was found.
- What user code raises while it is imported is its author's to see, in their own frames.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Final

from paceline.core.errors import ModelLoadError
from paceline.workers.python.arguments import Arguments
from paceline.workers.python.arrays import ArrayService, StackedService
from paceline.workers.python.contract import Contract
from paceline.workers.python.items import ItemService
from paceline.workers.python.parameters import Takes
from paceline.workers.python.recognition import named, objects, recognise
from paceline.workers.python.service import Service, TensorService
from paceline.workers.python.surroundings import surround

Found = Service | TensorService
_PICKLES: Final = (".pkl", ".pickle", ".joblib", ".skops")
_LOOKED_FOR: Final = (
    "a class with a method predict, a function predict, init() and run(data), or azureml_main(dataframe1, dataframe2)"
)


def load(arguments: Arguments) -> Found:
    """The service that a file holds.

    Raises:
        ModelLoadError: it holds none, or one that cannot be served.
        BaseException: as the user's code does when it is imported.
    """
    path = Path(arguments.path)
    suffix = path.suffix.lower()
    if suffix == ".toml":
        from paceline.workers.python import pipeline

        return pipeline.recognise(path, arguments)
    if suffix in _PICKLES:
        from paceline.workers.python import pickled

        return pickled.recognise(path, arguments)
    if suffix != ".py":
        return _boosted(path)
    surround(path)
    return of_module(import_module(path), path.name, arguments.name)


def of_module(module: ModuleType, file: str, name: str | None = None) -> Found:
    """The service that a module holds.

    Args:
        file: for messages.
        name: of the thing to serve, where the user has named it.

    Raises:
        ModelLoadError: it holds none, or several.
    """
    if name is not None:
        return service_of(named(module, file, name))
    for contract in (_studio, _score):
        found = contract(module)
        if found is not None:
            return found
    written = recognise(module, file)
    if written is None:
        able = objects(module)
        hint = f"name the object to serve, such as {file}:{able[0]}" if able else f"looked for {_LOOKED_FOR}"
        raise ModelLoadError(f"{file} holds nothing to serve", hint=hint)
    return service_of(written)


def service_of(contract: Contract) -> Found:
    """The service of a class or a function."""
    if "inputs" in contract.declared:
        return ArrayService(contract)
    items = ItemService(contract)
    if items.wanted.takes is Takes.ARRAY and "example" in contract.parts and "fetch" not in contract.parts:
        return StackedService(contract)
    return items


def import_module(path: Path) -> ModuleType:
    """Import a file under the name that its stem is, so that it can be pickled from, and imported from beside it."""
    sys.path.insert(0, str(path.parent))
    name = importable_name(path)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None, "the suffix says that it is Python"
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def importable_name(path: Path) -> str:
    """What a script is called as a module; never as something else that can be imported."""
    name = re.sub(r"\W", "_", path.stem)
    return f"{name}_service" if name in sys.modules or name in sys.stdlib_module_names else name


def _boosted(path: Path) -> Found:
    from paceline.workers.python import boosters
    from paceline.workers.python.estimators import Estimator, service_of

    found = boosters.format_of(path)
    if found is None:
        raise ModelLoadError(f"{path.name}: not a file of XGBoost, LightGBM or CatBoost")
    return service_of(Estimator(boosters.load(path, found.name)), [])


def _studio(module: ModuleType) -> Service | None:
    from paceline.workers.python import studio

    return studio.recognise(module)


def _score(module: ModuleType) -> Service | None:
    from paceline.workers.python import score

    return score.recognise(module)
