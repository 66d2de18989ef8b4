"""What a model can be turned into: one ONNX file from another.

A change is a function that runs as a step (see `optimize/processes/steps.py`), in a process of its own:

    def NAME(*, model: Path, rows: Path, folder: Path, ...) -> Made

`rows` is a file that `Rows.load` reads: the calibration rows. Whatever it writes lies in `folder`. It raises
`CannotChange` where it does not apply to this model: that is no failure of the study.

Changes are in `dynamic_batch`, `graph`, `prune`, `quantize` and `exclude`; the other modules are what these are made
of. `graph`, `prune` and `quantize` also have `candidates(facts, processor) -> list[Candidate]`: what is worth a try.
"""
