"""What is in a folder? A bundle of the optimizer, or models with their versions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from paceline.core.errors import ModelLoadError, PacelineError
from paceline.engine import layout
from paceline.inspection.report import Report, listed
from paceline.runtimes import bundle

_MOST_VERSIONS: Final = 100

Inspect = Callable[[Path], Report]


def read_bundle(path: Path, report: Report, inspect: Inspect) -> None:
    """Fill in the report of a bundle, and of the model in it.

    Raises:
        ModelLoadError: it is none, or names a file outside of the folder.
    """
    found = bundle.read(path)
    told = found.provenance
    report.made_by = f"paceline optimize, {told.created}"
    report.versions |= {name[:64]: version[:64] for name, version in told.versions.items()}
    report.about |= {"name": found.name, "from": told.source}
    report.about |= {f"setting {name}": value for name, value in found.settings.items()}
    if found.options.runtime is not None:
        report.about["runtime"] = found.options.runtime
    for line in bundle.differences(found, path).lines:
        report.find("odd", f"it is not as it was measured: {line}", "run paceline optimize here")
    inner = inspect(path / found.model)
    report.contains = [inner]
    report.inputs, report.outputs, report.operators = inner.inputs, inner.outputs, inner.operators
    report.parameters, report.weight_bytes, report.extra = inner.parameters, inner.weight_bytes, inner.extra


def read_repository(path: Path, report: Report, inspect: Inspect) -> None:
    """Fill in the report of one model's versions, or of a folder of models.

    Raises:
        ModelLoadError: it cannot be read, or holds none.
    """
    one = layout.is_one_model(path)
    models = layout.look({path.resolve().name: path} if one else layout.models_in(path))
    served = {name: model for name, model in models.items() if model.versions}
    if not served:
        raise ModelLoadError(
            f"{path}: no model in this folder",
            hint="models are NAME/VERSION/model.onnx, or saved_model.pb and bundle.json in the folder itself",
        )
    report.about["models"] = listed(f"{name} ({listed(model.versions)})" for name, model in served.items())
    for name, model in models.items():
        if model.problem:
            report.find("odd", f"{name}: {model.problem}")
    _versions(served, report, inspect)


def _versions(models: Mapping[str, layout.ModelFiles], report: Report, inspect: Inspect) -> None:
    """Look at every version: the latest of each model first, and of the others show what is not safe."""
    found = [(name, list(model.versions.items())) for name, model in models.items()]
    latest = [(name, versions[-1]) for name, versions in found]
    older = [(name, version) for name, versions in found for version in reversed(versions[:-1])]
    for at, (name, (number, version)) in enumerate([*latest, *older][:_MOST_VERSIONS]):
        if version.file is None:
            report.find("odd", f"{name}, version {number}: {version.problem}")
            continue
        try:
            inner = inspect(version.file)
        except PacelineError as error:
            report.find("unknown", f"{name}, version {number}: {error.message}", error.hint)
            continue
        if at < len(latest) or inner.safety != "safe":
            report.contains.append(inner)
    if (rest := len(latest) + len(older) - _MOST_VERSIONS) > 0:
        report.find("unknown", f"{rest} of its versions are not looked at", "inspect them one by one")
