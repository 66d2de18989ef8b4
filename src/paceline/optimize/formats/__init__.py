"""How models of other libraries become ONNX: one module per format.

Each has a function that runs as a step (see `optimize/processes/steps.py`), in a process of its own:

    def convert(*, model: Path, rows: Path, folder: Path, allow_pickle: bool) -> Converted

It writes `folder/model.onnx`, whose inputs and outputs are called as those of the model when it is served as it is. It
runs the library's own prediction on the rows, and says how the two compare. `torch_factory` makes a file of a function
first. Tables of features are what `tabular`, `trees` and `graphs` are for; networks have `equality`.
"""
