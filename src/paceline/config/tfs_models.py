"""Which models does TensorFlow Serving's `--model_config_file` name?

Rules:
- Each model has a name and the folder that holds its versions; a policy of versions and labels are its settings.
- A model that is named twice is an error, as there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from paceline.config.prototext import Block, read_prototext
from paceline.config.settings import Found
from paceline.config.triton_config import version_policy

_KNOWN: Final = frozenset(
    {"name", "base_path", "model_type", "model_platform", "model_version_policy", "version_labels", "logging_config"}
)
_PLATFORMS: Final = ("", "tensorflow", "onnx")
MOUNT: Final = "mount the bucket, or copy the model here"
_POLICIES: Final = {"latest": "num_versions", "all": "", "specific": "versions"}


@dataclass
class ServedModels:
    """The models of the file: their folders, and what is set for each."""

    base_paths: dict[str, Path] = field(default_factory=dict)
    models: dict[str, dict[str, Found]] = field(default_factory=dict)


def read_models(path: Path) -> ServedModels:
    """Read a file of models.

    Raises:
        ConfigError: it is malformed, or names none.
    """
    block = read_prototext(path)
    block.allow({"model_config_list", "custom_model_config"})
    if "custom_model_config" in block:
        raise block.wrong("custom_model_config", "not available here: name the models in model_config_list")
    served = ServedModels()
    for models in block.blocks("model_config_list"):
        models.allow({"config"})
        for config in models.blocks("config"):
            _add(served, config)
    if not served.base_paths:
        raise block.wrong("model_config_list", "must name at least one model")
    return served


def _add(served: ServedModels, config: Block) -> None:
    config.allow(_KNOWN)
    name, folder = config.text("name"), config.text("base_path")
    if not name or not folder:
        raise config.wrong("name", "must be there, and base_path")
    if name in served.base_paths:
        raise config.wrong("name", f"{name!r} is there twice")
    config.setting("name", "name", name)
    platform = config.text("model_platform") or ""
    if platform not in _PLATFORMS:
        raise config.wrong("model_platform", f"must be tensorflow or onnx, got {platform!r}")
    if "://" in folder:
        raise config.wrong("base_path", f"must be a folder on this machine, got {folder!r}", hint=MOUNT)
    # Theirs are absolute; another is relative to the file, as all paths in files are.
    served.base_paths[name] = (config.path.parent / folder).absolute()
    served.models[name] = _settings(config)


def _settings(config: Block) -> dict[str, Found]:
    found = {}
    policy = config.block("model_version_policy")
    if policy is not None:
        text = version_policy(policy, _POLICIES)
        found["version_policy"] = config.setting("model_version_policy", "version_policy", text)
    labels = []
    for entry in config.blocks("version_labels"):
        entry.allow({"key", "value"})
        labels.append(f"{entry.text('key') or ''}={entry.integer('value') or 0}")
    if labels:
        found["labels"] = config.setting("version_labels", "labels", ",".join(labels))
    return found
