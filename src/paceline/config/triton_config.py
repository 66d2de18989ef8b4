"""What does Triton's `NAME/config.pbtxt` mean here?

Rules:
- What has an equal here becomes a setting. What would change the answers, and has none, is an error: an ensemble,
  another backend. What only concerns Triton's own machinery is read and named in a note.
- A field that Triton does not know is an error, with its line.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from paceline.config.prototext import Block, read_prototext
from paceline.config.settings import Found
from paceline.core.errors import ConfigError

CONFIG_NAME: Final = "config.pbtxt"

_DATATYPES: Final = {
    **{f"TYPE_{name}": name for name in ("BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32")},
    **{f"TYPE_{name}": name for name in ("INT64", "FP16", "FP32", "FP64", "BF16")},
    "TYPE_STRING": "BYTES",
}
_PLATFORMS: Final = (
    *("onnxruntime_onnx", "onnxruntime", "onnx", "openvino", "tensorflow_savedmodel", "tensorflow"),
    *("pytorch_libtorch", "pytorch"),
)
_MEANT_ELSEWHERE: Final = frozenset({"ensemble_scheduling", "sequence_batching", "batch_input", "batch_output"})
_WITHOUT_EFFECT: Final = frozenset(
    {"optimization", "cc_model_filenames", "metric_tags", "model_operations", "model_repository_agents", "runtime"}
    | {"response_cache", "model_metrics"}
)
_KNOWN: Final = (
    _MEANT_ELSEWHERE
    | _WITHOUT_EFFECT
    | {"name", "platform", "backend", "version_policy", "max_batch_size", "input", "output", "instance_group"}
    | {"default_model_filename", "dynamic_batching", "parameters", "model_warmup", "model_transaction_policy"}
)
_BATCHING: Final = frozenset(
    {"preferred_batch_size", "max_queue_delay_microseconds", "preserve_ordering", "priority_levels"}
    | {"default_priority_level", "default_queue_policy", "priority_queue_policy"}
)
_IGNORED: Final = {
    "preferred_batch_size": "batches of any size run",
    "preserve_ordering": "each answer goes to its own request",
    "priority_levels": "the earliest deadline goes first",
    "priority_queue_policy": "the earliest deadline goes first",
}
_QUEUE_POLICY: Final = frozenset(
    {"timeout_action", "default_timeout_microseconds", "allow_timeout_override", "max_queue_size"}
)
_TENSOR: Final = frozenset(
    {"name", "data_type", "format", "dims", "reshape", "is_shape_tensor", "is_non_linear_format_io"}
    | {"allow_ragged_batch", "optional", "label_filename"}
)
_GROUP: Final = frozenset(
    {"name", "kind", "count", "rate_limiter", "gpus", "secondary_devices", "profile", "passive", "host_policy"}
)
_KINDS: Final = ("KIND_AUTO", "KIND_CPU", "KIND_GPU", "KIND_MODEL")
_WARMUP: Final = frozenset({"name", "batch_size", "inputs", "count"})


@dataclass(frozen=True, slots=True)
class DeclaredTensor:
    """An input or output as a file beside the model declares it.

    Attributes:
        datatype: `FP32`, `BYTES`, ...
        shape: with the batch dimension (-1) in front where the model is batched; -1 means any.
        place: file and line, for messages.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    place: str


@dataclass
class TritonConfig:
    """What a `config.pbtxt` asks for.

    Attributes:
        block: the file, for those who need more of it.
        notes: one line each, for people.
        model_file: name of the file in a version's folder, where it is said.
    """

    block: Block
    found: dict[str, Found] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    inputs: tuple[DeclaredTensor, ...] = ()
    outputs: tuple[DeclaredTensor, ...] = ()
    model_file: str | None = None


def read_triton_config(path: Path) -> TritonConfig:
    """Read a `config.pbtxt`.

    Raises:
        ConfigError: it is malformed, or asks for what is not there.
    """
    block = read_prototext(path)
    block.allow(_KNOWN)
    config = TritonConfig(block, model_file=block.text("default_model_filename"))
    if config.model_file and Path(config.model_file).name != config.model_file:
        raise block.wrong("default_model_filename", f"must be a file's name, got {config.model_file!r}")
    _check_kind(block)
    _batching(config)
    _instances(config)
    _versions(config)
    _parameters(config)
    config.inputs = tuple(_tensors(block, "input"))
    config.outputs = tuple(_tensors(block, "output"))
    for warmup in block.blocks("model_warmup"):
        warmup.allow(_WARMUP)
    ignored = [each.name for each in block if each.name in _WITHOUT_EFFECT]
    if ignored:
        config.notes.append(f"{path}: without effect here: {', '.join(dict.fromkeys(ignored))}")
    return config


def batch_dimension(block: Block) -> tuple[int, ...]:
    """What stands before the `dims` of a tensor: the batch dimension, or nothing."""
    return (-1,) if block.integer("max_batch_size") else ()


def dims(block: Block, name: str = "dims") -> tuple[int, ...]:
    """Sizes, -1 for any."""
    sizes = tuple(block.integers(name))
    if any(size < -1 or size == 0 for size in sizes):
        raise block.wrong(name, f"each must be -1 (any size) or >= 1, got {list(sizes)}")
    return sizes


def datatype(block: Block) -> str:
    """The Open Inference Protocol's name of a `data_type`."""
    name = block.text("data_type") or "TYPE_INVALID"
    if name not in _DATATYPES:
        raise block.wrong("data_type", f"must be one of {', '.join(_DATATYPES)}, got {name}")
    return _DATATYPES[name]


def _check_kind(block: Block) -> None:
    # Links are not followed: a mounted volume has them, and theirs are other names.
    folder = Path(os.path.abspath(block.path)).parent.name
    name = block.text("name")
    if name and name != folder:
        raise block.wrong("name", f"must be the folder's name, {folder!r}, got {name!r}")
    platform, backend = block.text("platform") or "", block.text("backend") or ""
    if platform and platform not in _PLATFORMS:
        raise _other("platform", platform, block)
    if backend and backend not in _PLATFORMS:
        raise _other("backend", backend, block)
    for each in block:
        if each.name in _MEANT_ELSEWHERE:
            raise block.wrong(each.name, "not available here: only single models are served", each.line)
    policy = block.block("model_transaction_policy")
    if policy is not None:
        policy.allow({"decoupled"})
        if policy.boolean("decoupled"):
            raise policy.wrong("decoupled", "must be false: a model answers each request once")


def _other(field: str, value: str, block: Block) -> ConfigError:
    return block.wrong(
        field,
        f"must be onnxruntime, openvino, tensorflow or pytorch, got {value!r}",
        hint="convert the model to ONNX, or keep it elsewhere",
    )


def _batching(config: TritonConfig) -> None:
    block = config.block
    most = block.integer("max_batch_size")
    if most is not None:
        # Without rows, requests are never joined.
        config.found["max_batch_size"] = block.setting("max_batch_size", "max_batch_size", most or 1)
    batching = block.block("dynamic_batching")
    if batching is None:
        return
    batching.allow(_BATCHING)
    delay_us = batching.integer("max_queue_delay_microseconds")
    if delay_us is not None:
        config.found["max_queue_delay_ms"] = batching.setting(
            "max_queue_delay_microseconds", "max_queue_delay_ms", delay_us / 1000
        )
    config.notes += [f"{block.path}: {name} has no effect: {why}" for name, why in _IGNORED.items() if name in batching]
    policy = batching.block("default_queue_policy")
    if policy is not None:
        _queue_policy(config, policy)


def _queue_policy(config: TritonConfig, policy: Block) -> None:
    policy.allow(_QUEUE_POLICY)
    most = policy.integer("max_queue_size")
    if most:  # 0 is Triton's word for no bound, and every queue has one here
        config.found["max_queue_requests"] = policy.setting("max_queue_size", "max_queue_requests", most)
    if policy.integer("default_timeout_microseconds"):
        config.notes.append(
            f"{policy.path}: default_timeout_microseconds has no effect: deadlines hold to the answer (timeout_ms)"
        )


def _instances(config: TritonConfig) -> None:
    groups = config.block.blocks("instance_group")
    for group in groups:
        group.allow(_GROUP)
        kind = group.text("kind") or "KIND_AUTO"
        if kind not in _KINDS:
            raise group.wrong("kind", f"must be one of {', '.join(_KINDS)}, got {kind}")
        if kind == "KIND_GPU" or "gpus" in group:
            config.notes.append(f"{group.path}: instance_group asks for a GPU: served on the CPU")
    counts = [group.integer("count") or 0 for group in groups]
    if any(counts):
        config.found["instances"] = config.block.setting(
            "instance_group", "instances", sum(count or 1 for count in counts)
        )


def _versions(config: TritonConfig) -> None:
    policy = config.block.block("version_policy")
    if policy is None:
        return
    text = version_policy(policy, {"latest": "num_versions", "all": "", "specific": "versions"})
    config.found["version_policy"] = config.block.setting("version_policy", "version_policy", text)


def version_policy(policy: Block, kinds: dict[str, str]) -> str:
    """A policy of versions, which TensorFlow Serving and Triton write alike, as the setting's text.

    Args:
        kinds: the one field of each kind of policy.
    """
    policy.allow(kinds)
    if len(policy.fields) != 1:
        raise ConfigError(f"version_policy: must be one of {', '.join(kinds)} ({policy.place(policy.line)})")
    kind = policy.fields[0].name
    inner = policy.blocks(kind)[0]
    inner.allow({kinds[kind]} - {""})
    if kind == "latest":
        count = inner.integer("num_versions")
        return "latest" if count in (None, 1) else f"latest:{count}"
    if kind == "all":
        return "all"
    versions = inner.integers("versions")
    if not versions:
        raise ConfigError(f"version_policy.specific: must name versions ({inner.place(inner.line)})")
    return ",".join(map(str, versions))


def _parameters(config: TritonConfig) -> None:
    for parameter in config.block.blocks("parameters"):
        parameter.allow({"key", "value"})
        key, value = parameter.text("key") or "", parameter.block("value")
        if key != "intra_op_thread_count":
            config.notes.append(f"{parameter.path}: parameter {key} has no effect")
            continue
        text = (value.text("string_value") or "") if value is not None else ""
        if not text.isascii() or not text.isdigit():
            raise parameter.wrong("value", f"intra_op_thread_count must be a whole number, got {text!r}")
        if int(text[:9]):  # 0 leaves it to the runtime: to the measurement, here
            config.found["threads"] = parameter.setting("value", "threads", int(text[:9]))


def _tensors(block: Block, name: str) -> Iterator[DeclaredTensor]:
    for tensor in block.blocks(name):
        tensor.allow(_TENSOR)
        reshape = tensor.block("reshape")
        sizes = dims(reshape, "shape") if reshape is not None else dims(tensor)
        yield DeclaredTensor(
            tensor.text("name") or "", datatype(tensor), batch_dimension(block) + sizes, tensor.place(tensor.line)
        )
