"""What is a candidate? The model, changed in some steps, and run in some way.

Rules:
- A candidate is data: equal ones are built once, and one that was built in an earlier run is not built again.
- All candidates of a study take the same inputs and give the same outputs, by name. Types may be narrower: FP32 for
  FP64.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from paceline.runtimes.options import RuntimeOptions


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One step from one ONNX file to another.

    Attributes:
        call: `module:function` of `paceline.optimize.transforms`, such as `quantize:dynamic`; see `steps.py`.
        arguments: its keyword arguments, as JSON has them.
    """

    call: str
    arguments: dict[str, Any] = {}


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """One way to serve the model.

    Attributes:
        name: unique in a study; letters, digits, `-` and `.`, for files and flags: `int8-dynamic`.
        title: for people: `int8, dynamic, per channel`.
        native: the file as it came, in its own library; else the model in ONNX.
        changes: to the ONNX model, in this order.
        threads: of one instance when it is measured and served; None: serving finds the number out.
        needs: why it may be worth trying, or the fact about machine or model that it rests on.
        after: name of the candidate that it refines: tried only when that one passed the gate.
    """

    name: str
    title: str
    native: bool = False
    changes: tuple[Change, ...] = ()
    options: RuntimeOptions = RuntimeOptions()
    threads: int | None = None
    needs: str = ""
    after: str | None = None


class Made(msgspec.Struct, kw_only=True):
    """What a change returns.

    Attributes:
        file: of the new model, relative to the step's folder.
        notes: what is worth telling in the report.
    """

    file: str
    notes: Sequence[str] = ()
