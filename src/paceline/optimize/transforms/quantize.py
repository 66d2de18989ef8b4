"""Does the model need 32 bits? Its products with 8-bit integers, which the processor multiplies four at a time.

Rules:
- Only operators that multiply by constant weights are changed, and what lies between two of them. Names, types and
  shapes of the model's inputs and outputs stay.
- Dynamic: each batch's activations are measured as they come. Static: their ranges are fixed on calibration rows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from paceline.config.processor import Processor
from paceline.core.errors import CannotChange
from paceline.optimize.candidate import Candidate, Change, Made
from paceline.optimize.data.rows import Rows
from paceline.optimize.quiet import quiet
from paceline.optimize.search.facts import Facts
from paceline.optimize.transforms import calibrate, qdq
from paceline.optimize.transforms.calibrate import Method
from paceline.optimize.transforms.onnx_files import is_large, save, weight_bytes
from paceline.optimize.transforms.prepare import PRODUCTS, prepare
from paceline.optimize.transforms.qdq import Scheme

_FILE: Final = "model.onnx"
# A convolution whose range is found for each batch is not fused by ONNX Runtime, and slower than in float.
_DYNAMIC: Final = ("MatMul", "Gemm", "Attention", "LSTM")
_MOST_ROWS: Final[dict[Method, int]] = {"minmax": 1024, "entropy": 256, "percentile": 256}
"""Calibration rows that are used: histograms cost more than the least and the largest number."""

_Idea = tuple[str, str, str, dict[str, Any]]
"""A candidate's name, its title, its call and the call's arguments."""

_TITLES: Final[dict[Method, str]] = {"minmax": "all numbers", "entropy": "least entropy", "percentile": "99.99 %"}


def dynamic(
    *,
    model: Path,
    rows: Path,  # noqa: ARG001  # a step's contract: ranges are found when it runs
    folder: Path,
    per_channel: bool = False,
    reduce_range: bool = False,
) -> Made:
    """Weights in 8 bits; activations become 8 bits as they come, with the range of their batch.

    Raises:
        CannotChange: there is nothing in the model that this applies to.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    prepared = prepare(model)
    with quiet():
        quantize_dynamic(
            prepared,
            str(folder / _FILE),
            op_types_to_quantize=list(_DYNAMIC),
            per_channel=per_channel,
            reduce_range=reduce_range,
            weight_type=QuantType.QInt8,
            use_external_data_format=is_large(prepared),
        )
    return Made(file=_FILE, notes=notes(prepared, onnx.load(str(folder / _FILE), load_external_data=False)))


def static(
    *,
    model: Path,
    rows: Path,
    folder: Path,
    method: Method = "minmax",
    percentile: float = 99.99,
    per_channel: bool = True,
    reduce_range: bool = False,
) -> Made:
    """Weights and activations in 8 bits, with ranges found on the calibration rows.

    Args:
        method: how a tensor's range follows from its numbers; see `calibrate.ranges`.

    Raises:
        CannotChange: there is nothing in the model that this applies to, or the rows do not do for calibration.
    """
    prepared = prepare(model)
    batches = calibrate.feeds(prepared, Rows.load(rows), _MOST_ROWS[method])
    ranges = calibrate.ranges(prepared, batches, method, qdq.operators(prepared), percentile=percentile)
    quantized = qdq.quantized(prepared, ranges, Scheme(per_channel, reduce_range))
    said = notes(prepared, quantized)
    return Made(file=save(quantized, folder), notes=said)


def notes(before: Any, after: Any) -> list[str]:
    """What to tell of a quantized model.

    Raises:
        CannotChange: nothing in it was quantized.
    """
    count = qdq.count_weights(after)
    if not count:
        raise CannotChange("no operator of the model multiplies single-precision numbers with constant weights")
    sizes = [weight_bytes(each) / 1e6 for each in (before, after)]
    return [f"{count} tensors of weights in 8 bits: {sizes[0]:.3g} MB of weights are now {sizes[1]:.3g} MB"]


def candidates(facts: Facts, processor: Processor) -> list[Candidate]:
    """Dynamic for products of matrices, static for these and convolutions, and static without the worst operators."""
    # 7 bits, where 8 would overflow: x86 before VNNI adds the products in 16 bits.
    reduced = {} if processor.has_int8_dot else {"reduce_range": True}
    why = "8-bit products are summed by one instruction" if not reduced else "weights of 7 bits: no VNNI"
    ideas: list[_Idea] = []
    if any(facts.operators.get(kind) for kind in _DYNAMIC):
        ideas += [
            ("int8-dynamic", "dynamic", "quantize:dynamic", {}),
            ("int8-dynamic-channels", "dynamic, per channel", "quantize:dynamic", {"per_channel": True}),
        ]
    products = sum(facts.operators.get(kind, 0) for kind in PRODUCTS)
    if products:
        one_scale = {"method": "minmax", "per_channel": False}
        ideas.append(("int8-minmax-tensor", "static: all numbers, one scale", "quantize:static", one_scale))
        for method, title in _TITLES.items():
            ideas.append((f"int8-{method}", f"static: {title}", "quantize:static", {"method": method}))
    if products > 2:
        ideas.append(("int8-mixed", "static, the worst operators in float", "exclude:mixed", {}))
    return [
        Candidate(
            name=name, title=f"int8, {title}", needs=why, changes=(Change(call=call, arguments={**reduced, **given}),)
        )
        for name, title, call, given in ideas
    ]
