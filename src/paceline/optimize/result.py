"""What does a study find? The document that the report, `--json` and the bundle are made of.

Rules:
- Times are seconds, sizes bytes. `document` says which one this is. Fields may be added; `schema` counts changes that
  break readers.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from paceline.optimize.candidate import Candidate

SCHEMA = 1

Status = Literal["baseline", "accepted", "rejected", "failed", "skipped"]


class Judgement(msgspec.Struct, kw_only=True):
    """What the gate says of a candidate's answers.

    Attributes:
        metric: such as `accuracy`; for agreement with the original `agreement` or `relative_error`.
        labelled: compared with what is true; else with what the original says.
        old, new: the metric of the original and of the candidate. For agreement, `old` is 1.
        difference: new - old, with its sign turned where smaller is better: negative is always worse.
        low, high: the paired 95 % interval of `difference`.
        allowed: the largest drop that is accepted, as a positive number in the metric's units.
        method: how the interval was made, such as `paired bootstrap, 2000 resamples`.
        rows: on which it was judged.
        rows_needed: how many would be needed to accept a candidate that is as good as this one; None: these are
            enough, or the difference itself is too large.
        reason: one sentence for people.
    """

    metric: str
    labelled: bool
    old: float
    new: float
    difference: float
    low: float
    high: float
    allowed: float
    method: str
    rows: int
    accepted: bool
    reason: str
    rows_needed: int | None = None


class Speed(msgspec.Struct, kw_only=True):
    """How fast a candidate runs at one batch size, in interleaved runs beside the baseline.

    Attributes:
        batch: rows in a run.
        median_s, p99_s: of a run, inside the process that serves. A study tells them at the pace that the machine had
            over all runs of the baseline: the median is the baseline's by the ratio, and the tail keeps its proportion.
        ratio: the baseline's median by this one's: 2.0 is twice as fast.
        ratio_low, ratio_high: its 95 % interval.
        rows_per_s: batch / median_s.
    """

    batch: int
    threads: int
    median_s: float
    p99_s: float
    rows_per_s: float
    ratio: float
    ratio_low: float
    ratio_high: float
    runs: int


class Tried(msgspec.Struct, kw_only=True):
    """A candidate and what came of it.

    Attributes:
        reasons: why it was rejected, failed or skipped; or notes on how it was made.
        speeds: one for each batch size that was measured.
        size_bytes: of its files.
        took_s: to build, judge and measure it.
        foreseen_s: what it would have taken, where it was skipped because the budget was too short; else None.
        file: of the model, relative to the folder of the bundle, or its name where it lies elsewhere; None: it was not
            made.
    """

    candidate: Candidate
    status: Status
    reasons: list[str] = []
    judgement: Judgement | None = None
    speeds: list[Speed] = []
    size_bytes: int | None = None
    took_s: float = 0.0
    foreseen_s: float | None = None
    file: str | None = None
    on_front: bool = False


class Equality(msgspec.Struct, kw_only=True):
    """How the converted model's answers compare with the library's own, on the user's rows.

    Attributes:
        largest_error: absolute, over all floating-point numbers of all outputs.
        largest_relative: the same, with numbers over 1 relative to their size: what `tolerance` is of.
        rows_apart: whose answers differ by more than the tolerance; `ties` of them because a feature lies on a tree's
            threshold, to within the rounding of single precision.
        labels_apart, numbers_apart: rows in which a label, or a number, does; a row may count for both.
        notes: explanations for people.
    """

    rows: int
    largest_error: float
    tolerance: float
    rows_apart: int
    largest_relative: float = 0.0
    labels_apart: int = 0
    numbers_apart: int = 0
    ties: int = 0
    notes: list[str] = []


class Study(msgspec.Struct, kw_only=True, tag_field="document", tag="study"):
    """A whole study.

    Attributes:
        source: name of the model's file, with its format, size and SHA-256.
        data: rows, inputs, digest, and whether there were labels.
        machine: processor, cores, memory; `versions`: of what took part.
        batch: rows at the operating point: speed decides there.
        budget_s: for all of it; `took_s`: what it took.
        chosen: name of the candidate that the bundle holds.
        price_per_hour: of such a machine, as the user gave it; None: unknown.
        warnings: for the terminal and the top of the report.
    """

    schema: int = SCHEMA
    paceline: str
    created: str
    command: list[str]
    source: dict[str, Any]
    data: dict[str, Any]
    machine: dict[str, Any]
    versions: dict[str, str]
    batch: int
    metric: str
    equality: Equality | None = None
    candidates: list[Tried] = []
    chosen: str
    price_per_hour: float | None = None
    warnings: list[str] = []
    budget_s: float = 0.0
    took_s: float = 0.0


class Converted(msgspec.Struct, kw_only=True):
    """What a conversion returns.

    Attributes:
        file: the ONNX model, relative to the step's folder.
        equality: with the library's own answers.
        notes: what is worth telling, such as that another converter was needed.
    """

    file: str
    equality: Equality
    notes: list[str] = []
