"""How is a model run, beyond which file it is? What a bundle fixes, and what the optimizer varies."""

from __future__ import annotations

from typing import Literal

import msgspec

Runtime = Literal["onnxruntime", "openvino", "tensorflow", "torch"]
Precision = Literal["f32", "bf16", "f16"]
GraphOptimization = Literal["all", "extended", "basic", "none"]


class RuntimeOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """Everything that a runtime may be told.

    Attributes:
        runtime: None: the one that reads the file's format by default.
        graph_optimization: how much ONNX Runtime rewrites the graph when it loads it.
        inter_op_threads: branches of the graph that run side by side, within the instance's threads.
        precision: that the runtime computes in, whatever the file holds; None: its own choice for the file's types,
            which for OpenVINO is told to be the file's.
    """

    runtime: Runtime | None = None
    graph_optimization: GraphOptimization = "all"
    inter_op_threads: int = 1
    precision: Precision | None = None
