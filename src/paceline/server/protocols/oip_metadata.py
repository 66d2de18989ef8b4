"""What is a model like? Its metadata, and its configuration in Triton's terms.

Rules:
- Shapes in the metadata hold the batch dimension; `dims` in the configuration do not when `max_batch_size` is
  1 or more. `max_batch_size` 0 means: no batch dimension.
- perf_analyzer reads the configuration before it sends anything, and insists on
  `model_transaction_policy.decoupled`.
- `max_batch_size` is the largest batch that runs at once. Larger requests are served too, in parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from paceline.core.tensors import DataType, TensorSpec
from paceline.engine.engine import Entry
from paceline.engine.warmup import Prepared


def metadata(entry: Entry, versions: Sequence[str]) -> dict[str, Any]:
    """The body of GET /v2/models/NAME."""
    return {
        "name": entry.name,
        "versions": list(versions),
        "platform": entry.platform,
        "inputs": [_tensor(spec) for spec in entry.signature.inputs],
        "outputs": [_tensor(spec) for spec in entry.signature.outputs],
    }


def config(entry: Entry, prepared: Prepared) -> dict[str, Any]:
    """The body of GET /v2/models/NAME/config."""
    signature = prepared.signature
    document: dict[str, Any] = {
        "name": entry.name,
        "platform": entry.platform,
        "backend": entry.platform.partition("_")[0],
        "version_policy": {"latest": {"num_versions": 1}},
        "max_batch_size": prepared.max_batch_rows if signature.batched else 0,
        "input": [{**_configured(spec, signature.batched), "optional": False} for spec in signature.inputs],
        "output": [_configured(spec, signature.batched) for spec in signature.outputs],
        "instance_group": [{"name": entry.name, "kind": "KIND_CPU", "count": len(prepared.instances), "gpus": []}],
        "parameters": {},
        "model_warmup": [],
        "model_transaction_policy": {"decoupled": False},
    }
    if signature.batched:
        document["dynamic_batching"] = {
            "preferred_batch_size": [prepared.max_batch_rows],
            "max_queue_delay_microseconds": round(entry.served.scheduler.policy.max_queue_delay_s * 1e6)
            if entry.served
            else 0,
            "preserve_ordering": False,
        }
    return document


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype.label, "shape": spec.shape}


def _configured(spec: TensorSpec, batched: bool) -> dict[str, Any]:
    kind = "STRING" if spec.datatype is DataType.BYTES else spec.datatype.label
    return {"name": spec.name, "data_type": f"TYPE_{kind}", "dims": spec.shape[1:] if batched else spec.shape}
