"""Which graphs compute the same, faster? Attention as one operator; branches side by side; other runtimes.

Rules:
- These change no arithmetic on purpose: only its order, or with a precision that the candidate's name says, its width.
- What ONNX Runtime does by itself when it loads a file is no candidate, for every candidate has it: folding constants,
  leaving out what nobody reads, and the fusions that it knows.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from paceline.config.machine import usable_cores
from paceline.config.processor import Processor
from paceline.core.errors import CannotChange
from paceline.optimize.candidate import Candidate, Change, Made
from paceline.optimize.quiet import quiet
from paceline.optimize.search.facts import Facts
from paceline.optimize.transforms.onnx_files import fold, load, save
from paceline.runtimes.options import Precision, RuntimeOptions

_FUSED: Final = (
    *("Attention", "MultiHeadAttention", "EmbedLayerNormalization", "SkipLayerNormalization", "LayerNormalization"),
    *("FastGelu", "BiasGelu", "Gelu", "QuickGelu"),
)
_FROM_TENSORFLOW: Final = "tf2onnx"
# What OpenVINO's reader knows of ONNX Runtime's own operators is little, and of classical models nothing.
_NOT_OPENVINO: Final = ("ai.onnx.ml.", "com.microsoft.")


def candidates(facts: Facts, processor: Processor) -> list[Candidate]:
    """What is worth a try with the graph as it is, and with other runtimes."""
    return [*_graphs(facts), *_onnxruntime(facts, processor), *_openvino(facts, processor)]


def fused(*, model: Path, rows: Path, folder: Path) -> Made:  # noqa: ARG001 (every change is given rows)
    """Attention, layer normalization and GELU as one operator each, as ONNX Runtime has them for transformers.

    Raises:
        CannotChange: no part of the graph is one that is known.
    """
    from onnxruntime.transformers import optimizer
    from onnxruntime.transformers.fusion_options import FusionOptions

    graph = load(model)
    kind = "bert_tf" if graph.producer_name == _FROM_TENSORFLOW else "bert"
    options = FusionOptions(kind)
    # The interface stays: fused embeddings would turn 64-bit inputs into 32-bit ones.
    options.enable_embed_layer_norm = False
    with quiet():
        # At its level 1 the optimizer folds constants by itself, and imports PyTorch to do so.
        made = optimizer.optimize_model(_folded(model), kind, optimization_options=options, opt_level=0)
    counts = {name: _count(made.model, name) - _count(graph, name) for name in _FUSED}
    notes = [f"{count} {name}" for name, count in counts.items() if count > 0]
    if not notes:
        raise CannotChange("no part of the graph is attention, layer normalization or GELU as they are known")
    return Made(file=save(made.model, folder), notes=[f"fused into {', '.join(notes)}"])


def _folded(model: Path) -> Any:
    with TemporaryDirectory() as folder:
        fold(model, Path(folder, "folded.onnx"))
        return load(Path(folder, "folded.onnx"))


def _graphs(facts: Facts) -> list[Candidate]:
    if not facts.attends:
        return []
    return [
        Candidate(
            name="fused",
            title="transformer operators fused",
            changes=(Change(call="graph:fused"),),
            needs=f"attention: {facts.operators['Softmax']} softmax, {facts.operators['MatMul']} products",
        )
    ]


def _onnxruntime(facts: Facts, processor: Processor) -> list[Candidate]:
    found = []
    if facts.operators.get("Conv"):
        found.append(
            Candidate(
                name="plain-layout",
                title="channels in the file's order",
                options=RuntimeOptions(graph_optimization="extended"),
                needs="convolutions: blocks of channels, the default, do not pay for every size",
            )
        )
    cores = usable_cores().whole
    # The products of attention are branches too, and each of them has work for all threads.
    if facts.branches > 1 and cores > 1 and not facts.attends:
        found.append(
            Candidate(
                name="branches",
                title="branches side by side",
                options=RuntimeOptions(inter_op_threads=min(facts.branches, cores)),
                threads=cores,
                needs=f"{facts.branches} branches, {cores} cores",
            )
        )
    if processor.has_bf16 and processor.architecture in ("aarch64", "arm64") and facts.multiplies:
        found.append(
            Candidate(
                name="bf16",
                title="products in bfloat16",
                options=RuntimeOptions(precision="bf16"),
                needs="the processor multiplies bfloat16",
            )
        )
    return found


def _openvino(facts: Facts, processor: Processor) -> list[Candidate]:
    if find_spec("openvino") is None or any(kind.startswith(_NOT_OPENVINO) for kind in facts.operators):
        return []
    found = [
        Candidate(
            name="openvino",
            title="OpenVINO",
            options=RuntimeOptions(runtime="openvino", precision="f32"),
            needs="OpenVINO is installed",
        )
    ]
    narrower: tuple[tuple[Precision, str, bool], ...] = (
        ("bf16", "bfloat16", processor.has_bf16),
        ("f16", "half precision", processor.has_fp16),
    )
    for precision, name, has in narrower:
        if has and facts.multiplies:
            found.append(
                Candidate(
                    name=f"openvino-{precision}",
                    title=f"OpenVINO, products in {name}",
                    options=RuntimeOptions(runtime="openvino", precision=precision),
                    needs=f"the processor multiplies {name}",
                )
            )
    return found


def _count(model: Any, operator: str) -> int:
    return sum(node.op_type == operator for node in model.graph.node)
