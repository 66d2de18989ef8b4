"""A version together with the files beside it: which settings, which warm-up inputs, and does it keep its promises?

Rules:
- Tensors that a file declares must be the model's: clients were built against them.
- The operator's file of examples is preferred to a sample in the files beside the model.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from paceline.config.model_files import read_beside
from paceline.config.settings import ServeSettings
from paceline.config.triton_config import DeclaredTensor
from paceline.config.triton_warmup import warmup_inputs
from paceline.core.errors import ConfigError, ModelLoadError, PacelineError
from paceline.core.tensors import Signature, Tensors, TensorSpec
from paceline.engine.layout import ModelFiles, VersionFiles
from paceline.engine.loading import Read, read
from paceline.runtimes.base import LoadedModel


def model_settings(settings: ServeSettings, name: str, folder: Path) -> ServeSettings:
    """The settings of a model. Blocks.

    Raises:
        ConfigError: a file beside it is wrong.
    """
    return settings.for_model(name, read_beside(folder).found)


def read_version(settings: ServeSettings, name: str, files: ModelFiles, version: str) -> tuple[Read, tuple[str, ...]]:
    """A version, and what in the files beside it has no effect here. Blocks.

    Raises:
        ModelLoadError, RuntimeUnavailable, ConfigError: it cannot be served.
    """
    what = files.versions[version]
    beside = read_beside(files.folder, what.folder)
    known = read(
        _file(what, beside.model_file),
        settings,
        lambda loaded: _sample(loaded, files.folder),
        name,
        beside.found,
    )
    check_declared("input", beside.inputs, known.loaded.signature.inputs)
    check_declared("output", beside.outputs, known.loaded.signature.outputs)
    return known, (*beside.notes, *known.warnings)


def check_declared(kind: str, declared: Iterable[DeclaredTensor], real: Iterable[TensorSpec]) -> None:
    """Compare what a file declares with what the model has.

    Raises:
        ConfigError: they differ.
    """
    specs = {spec.name: spec for spec in real}
    for each in declared:
        spec = specs.get(each.name)
        if spec is None:
            raise ConfigError(f"{each.place}: the model has no {kind} '{each.name}'; it has {', '.join(specs)}")
        if each.datatype and each.datatype != spec.datatype.label:
            raise ConfigError(f"{each.place}: {kind} '{each.name}' is {spec.datatype.label}, not {each.datatype}")
        # A model that does not say its shape has none to compare.
        if spec.shape and not _agree(each.shape, spec.shape):
            raise ConfigError(
                f"{each.place}: {kind} '{each.name}' has shape {list(spec.shape)}, not {list(each.shape)}"
            )


def _agree(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    return len(one) == len(other) and all(a == b or -1 in (a, b) for a, b in zip(one, other, strict=True))


def _file(version: VersionFiles, named: str | None) -> Path:
    if named:
        if Path(named).name != named:
            raise ConfigError(f"default_model_filename: must be a name without a path, got {named!r}")
        return version.folder / named
    if version.file is None:
        raise ModelLoadError(version.problem)
    return version.file


def _sample(loaded: LoadedModel, folder: Path) -> Tensors | None:
    named = warmup_inputs(folder)
    if named is None:
        return None
    signature: Signature = loaded.signature
    try:
        return signature.bind({name: np.ascontiguousarray(array) for name, array in named.items()})
    except PacelineError as error:
        raise ConfigError(f"{folder}: model_warmup: {error}") from error
