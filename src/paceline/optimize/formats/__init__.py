"""One file per library: how its models become ONNX.

Each has a function that runs as a step (see `optimize/steps.py`), in a process of its own:

    def convert(*, model: Path, rows: Path, folder: Path, allow_pickle: bool) -> Converted

It writes `folder/model.onnx`, whose inputs and outputs are called as those of the model when it is served as it is,
with open batch dimensions. It runs the library's own prediction on the rows, and says how the two compare.
"""
