"""Is this .keras file one that Keras may open? Read by hand, before Keras does.

Rules:
- It is a zip archive with the model's configuration as JSON. That is read, and nothing of it is built or run.
- A layer is Keras's own, or the file is refused: a Lambda layer holds Python bytecode, some others name a model to load
  from elsewhere, and a class of somebody's own would have to be imported. Keras's safe mode refuses them, too, in ways
  that have changed with every other version.
- What training needs, such as a loss of one's own, is not looked at, for it is not loaded.
- Members that lead out of the archive are refused; for other bounds, see `archive.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, Final

from paceline.core.errors import UnsafeModel
from paceline.runtimes.archive import Archive

_CONFIG: Final = "config.json"
_MOST_CONFIG_BYTES: Final = 64 << 20
PACKAGES: Final = frozenset({"keras", "keras_hub", "builtins"})
"""Where classes may come from; `builtins` are Keras's own functions, which have only a name."""
_HOLDS_CODE: Final = frozenset({"Lambda", "__lambda__"})
_LOADS_MORE: Final = frozenset({"TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer"})
_NOT_LAYERS: Final = ("compile_config", "build_config")


def check(path: Path) -> None:
    """Check a file.

    Raises:
        UnsafeModel: opening it could run code.
        ModelLoadError: it is no such file, or a part of one.
    """
    for each in objects(configuration(path)):
        _require_harmless(path, each)


def configuration(path: Path) -> dict[str, Any]:
    """The model's configuration, as Keras has written it.

    Raises:
        ModelLoadError: it is not there, or not readable.
    """
    with Archive(path) as archive:
        for name in archive.entries:
            if name.startswith("/") or ".." in PurePosixPath(name).parts or "\\" in name:
                raise archive.broken(f"'{name.encode('unicode_escape').decode()[:200]}' leads out of the archive")
        try:
            parsed = json.loads(archive.read(_CONFIG, _MOST_CONFIG_BYTES))
        except (ValueError, RecursionError) as error:
            raise archive.broken(f"{_CONFIG} is no JSON") from error
        if not isinstance(parsed, dict):
            raise archive.broken(f"{_CONFIG} is no configuration of a model")
    return parsed


def objects(config: Any) -> Iterator[dict[str, Any]]:
    """Everything that Keras would make: what has a class and a configuration. Outermost first."""
    waiting = [config]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            if isinstance(each.get("class_name"), str):
                yield each
            waiting.extend(value for key, value in each.items() if key not in _NOT_LAYERS)
        elif isinstance(each, list):
            waiting.extend(each)


def _require_harmless(path: Path, made: dict[str, Any]) -> None:
    name = made["class_name"]
    if name in _HOLDS_CODE:
        raise UnsafeModel(
            f"{path}: holds a Lambda layer: Python code that runs when the model does",
            hint="write it as a layer of Keras, or export the model where you trust it: model.export(FOLDER)",
        )
    if name in _LOADS_MORE:
        raise UnsafeModel(f"{path}: holds a layer {name}, which loads a model from elsewhere")
    module = made.get("module")
    known = isinstance(module, str) and module.partition(".")[0] in PACKAGES
    # What has no module at all is a plain value, such as `__tuple__`, or of a version before there were any.
    if "module" in made and not known and not name.startswith("__"):
        where = f" of {module}" if module else ""
        raise UnsafeModel(
            f"{path}: needs a class of your own: {name}{where}",
            hint="export the model where its code is, and serve what was written: model.export(FOLDER)",
        )
