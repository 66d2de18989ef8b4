"""One file per kind of change: from one ONNX file to another.

Each function runs as a step (see `optimize/steps.py`), in a process of its own:

    def NAME(*, model: Path, rows: Path, folder: Path, ...) -> Made

`rows` is a file that `Rows.load` reads: the calibration half of the user's rows. Whatever it writes lies in `folder`.
It raises `CannotChange` where the change does not apply to this model: that is no failure of the study.

Beside its functions, each has `candidates(facts, machine) -> list[Candidate]`: what it would try on such a model.
"""
