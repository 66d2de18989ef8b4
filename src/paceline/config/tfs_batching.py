"""What do TensorFlow Serving's batching parameters mean here?

The same file is named by `--batching_parameters_file` and lies beside a model as `batching_params.pbtxt`.

Rules:
- A parameter is a wrapped value: `max_batch_size { value: 20 }`.
- `num_batch_threads` is how many batches may run at once: the instances, and no more of them than cores.
- `max_enqueued_batches` counts batches of the largest size; requests are counted here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from paceline.config.prototext import Block, read_prototext
from paceline.config.settings import Found

FILE_NAME: Final = "batching_params.pbtxt"

_KNOWN: Final = frozenset(
    {"max_batch_size", "batch_timeout_micros", "max_enqueued_batches", "num_batch_threads", "thread_pool_name"}
    | {"allowed_batch_sizes", "pad_variable_length_inputs", "enable_large_batch_splitting", "max_execution_batch_size"}
)


@dataclass
class BatchingParameters:
    """Settings found in a file, and lines for people about the rest."""

    found: dict[str, Found] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def read_batching(path: Path, cores: int) -> BatchingParameters:
    """Read a file of batching parameters.

    Args:
        cores: whole cores that this process may use.

    Raises:
        ConfigError: it is malformed, or a value is out of bounds.
    """
    block = read_prototext(path)
    block.allow(_KNOWN)
    parameters = BatchingParameters()
    _bounds(block, parameters)
    _threads(block, parameters, cores)
    _shapes(block, parameters)
    return parameters


def _bounds(block: Block, parameters: BatchingParameters) -> None:
    # With splitting, the larger of the two bounds one request, which has its own bounds here.
    name = "max_execution_batch_size" if "max_execution_batch_size" in block else "max_batch_size"
    most = _value(block, name)
    if most is not None:
        parameters.found["max_batch_size"] = block.setting(name, "max_batch_size", most)
    delay_us = _value(block, "batch_timeout_micros")
    if delay_us is not None:
        parameters.found["max_queue_delay_ms"] = block.setting(
            "batch_timeout_micros", "max_queue_delay_ms", delay_us / 1000
        )
        if delay_us:
            parameters.notes.append(
                f"{block.path}: batch_timeout_micros: a request waits up to {delay_us / 1000:g} ms for others; "
                f"with 0 batches form while the model is busy"
            )
    batches = _value(block, "max_enqueued_batches")
    if batches is not None:
        # 1000 rows is their default of max_batch_size.
        parameters.found["max_queue_requests"] = block.setting(
            "max_enqueued_batches", "max_queue_requests", batches * (most or 1000)
        )


def _threads(block: Block, parameters: BatchingParameters, cores: int) -> None:
    threads = _value(block, "num_batch_threads")
    if threads is not None:
        parameters.found["instances"] = block.setting("num_batch_threads", "instances", min(threads, cores))
        if threads > cores:
            parameters.notes.append(
                f"{block.path}: num_batch_threads {threads}: {cores} instance{'s' * (cores > 1)}, one for each core"
            )


def _shapes(block: Block, parameters: BatchingParameters) -> None:
    sizes = block.integers("allowed_batch_sizes")
    if sizes != sorted(set(sizes)) or (sizes and sizes[0] < 1):
        raise block.wrong("allowed_batch_sizes", f"must ascend from 1 or more, got {sizes}")
    if sizes:
        parameters.notes.append(f"{block.path}: allowed_batch_sizes has no effect: batches of any size run unpadded")
    padding = block.block("pad_variable_length_inputs")
    if padding is not None and padding.boolean("value"):
        raise block.wrong(
            "pad_variable_length_inputs",
            "must be false: inputs are never padded",
            hint="requests of different lengths are answered, in batches of equal lengths; remove the line",
        )
    splitting = block.block("enable_large_batch_splitting")
    if splitting is not None and not splitting.boolean("value"):
        parameters.notes.append(f"{block.path}: a request larger than max_batch_size is split, not refused")


def _value(block: Block, name: str) -> int | None:
    wrapped = block.block(name)
    if wrapped is None:
        return None
    wrapped.allow({"value"})
    number = wrapped.integer("value") or 0
    if number < 0:
        raise wrapped.wrong("value", f"must be >= 0, got {number}")
    return number
