"""What is in a .keras file? Its layers, from the configuration that lies in it as JSON.

Rules:
- Keras makes objects of the classes that the configuration names. Those of Keras are harmless, but for a layer that
  holds code (Lambda), layers that read files, and functions that are no part of models.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from paceline.inspection.documents import NotJson, at, decoded, items, objects, word
from paceline.inspection.names import judge
from paceline.inspection.report import Report, Tensor, counted, listed
from paceline.runtimes.archive import Archive
from paceline.runtimes.keras_file import PACKAGES
from paceline.runtimes.savedmodel_file import in_natural_order

_MOST_CONFIG_BYTES: Final = 64 << 20
_MOST_METADATA_BYTES: Final = 1 << 16
_TYPES: Final = {
    "float32": "FP32", "float64": "FP64", "float16": "FP16", "bfloat16": "BF16", "string": "BYTES", "bool": "BOOL",
    "int8": "INT8", "int16": "INT16", "int32": "INT32", "int64": "INT64",
    "uint8": "UINT8", "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64",
}  # fmt: skip
_READ_FILES: Final = {"TFSMLayer": "filepath", "StringLookup": "vocabulary", "IntegerLookup": "vocabulary",
                      "TextVectorization": "vocabulary"}  # fmt: skip
# Of Keras, and no part of a model: they have been used to fetch and to write files.
_NO_PART: Final = ("keras.utils", "keras.src.utils", "keras.saving", "keras.src.saving", "keras.src.legacy.saving")


def read(path: Path, report: Report) -> None:
    """Fill in the report.

    Raises:
        ModelLoadError: it is no such file.
    """
    with Archive(path) as archive:
        try:
            config = decoded(archive.read("config.json", _MOST_CONFIG_BYTES))
            metadata = decoded(archive.read("metadata.json", _MOST_METADATA_BYTES))
        except NotJson as error:
            raise archive.broken(f"config.json or metadata.json: {error}") from error
        report.weight_bytes = archive.entries.get("model.weights.h5")
        others = [name for name in archive.entries if name.endswith((".pkl", ".pickle", ".py", ".so"))]
    version = word(metadata, "keras_version")
    report.made_by, report.versions["keras"] = f"Keras {version}", version or "?"
    if report.weight_bytes is None:
        report.find("odd", "it has no weights: model.weights.h5 is missing")
    if others:
        report.find("unknown", f"it holds files that are no part of a Keras model: {listed(others)}")
    _about_layers(config, report)
    _judge(config, report)


def _about_layers(config: Any, report: Report) -> None:
    layers = [each for each in items(config, "config", "layers") if isinstance(each, dict)]
    report.about["class"] = word(config, "class_name")
    report.about["layers"] = len(layers)
    report.operators = counted(word(each, "class_name") or "?" for each in _all_layers(layers))
    inputs = {word(each, "config", "name"): _input(each) for each in layers if word(each, "class_name") == "InputLayer"}
    if not inputs:
        report.find("note", "its inputs are not told: it is built by its own code, or when it is called first")
        return
    order = _named(at(config, "config", "input_layers"))
    report.inputs = [inputs[name] for name in dict.fromkeys([*order, *inputs]) if name in inputs]
    report.outputs = _outputs(at(config, "config", "output_layers"))


def _all_layers(layers: list[Any]) -> list[Mapping[str, Any]]:
    """The layers, and those of models inside of it."""
    found: list[Mapping[str, Any]] = []
    for holder in objects({"layers": layers}):
        found += [each for each in items(holder, "layers") if isinstance(each, dict)]
    return found


def _input(layer: Mapping[str, Any]) -> Tensor:
    config = at(layer, "config")
    shape = items(config, "batch_shape") or items(config, "batch_input_shape")
    dtype = word(config, "dtype") or word(config, "dtype", "config", "name")
    # It is exported with any number of rows, whatever it was built with.
    sizes: list[int | str] = [-1, *(size if isinstance(size, int) else -1 for size in shape[1:])]
    return Tensor(name=word(config, "name"), datatype=_TYPES.get(dtype, dtype or None), shape=sizes)


def _outputs(layers: Any) -> list[Tensor] | None:
    """What the model puts out is called by its place, or by its key where it returns a dict."""
    if isinstance(layers, dict):
        return [Tensor(name=name) for name in in_natural_order(layers)]
    count = len(_named(layers)) if layers else 1
    return [Tensor(name=f"output_{place}") for place in range(count)] if count else None


def _named(layers: Any) -> list[str]:
    """The names of layers; the forms are ["out", 0, 0], [["a", 0, 0], ["b", 0, 0]] and {"key": ["a", 0, 0]}."""
    if isinstance(layers, dict):
        layers = [layers[key] for key in sorted(layers)]
    if not isinstance(layers, list) or not layers:
        return []
    if isinstance(layers[0], str):
        return [layers[0]]
    return [each[0] for each in layers if isinstance(each, list) and each and isinstance(each[0], str)]


def _judge(config: Any, report: Report) -> None:
    custom: dict[str, None] = {}
    for each in objects(config):
        kind, module = word(each, "class_name"), word(each, "module")
        if not kind:
            continue
        name = word(each, "config", "name") or kind
        if kind in ("Lambda", "__lambda__"):
            report.find(
                "unsafe",
                "a Lambda layer holds code of its own, which runs when the model does",
                "replace it by a layer of Keras, or by a class that is registered",
            )
        elif kind in _READ_FILES and isinstance(at(each, "config", _READ_FILES[kind]), str):
            report.find("unsafe", f"layer {name} ({kind}) reads a file that the model names")
        elif module and module.partition(".")[0] not in PACKAGES:
            _judge_foreign(module, kind, report, custom)
        elif module.startswith(_NO_PART) and kind in ("function", "type"):
            report.find("unsafe", f"it names {module}.{word(each, 'config')}, which is no part of a model")
        elif not module and at(each, "registered_name"):
            custom[word(each, "registered_name") or kind] = None
    if custom:
        report.find(
            "unknown",
            f"classes that are not Keras's own: {listed(custom)}",
            "they have to be registered before it is loaded: serve it from a service.py that imports them",
        )


def _judge_foreign(module: str, kind: str, report: Report, custom: dict[str, None]) -> None:
    verdict = judge(module, kind, called=True)
    if verdict.level == "dangerous":
        report.find("unsafe", f"it names {module}.{kind}: {verdict.why}", "do not load it")
    else:
        custom[f"{module}.{kind}"] = None
