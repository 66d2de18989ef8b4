"""PyTorch, on the processor, in this process: what `torch.export` wrote (.pt2), and TorchScript.

Rules:
- Both are programs, and are looked at before PyTorch opens them; see `torch_file.py`. Nothing is unpickled.
- PyTorch keeps the number of threads for each thread that calls it. So each says how many before it runs a batch, when
  it has said another number before. Instances share the module.
- Inputs are copied, for a program may write into them.
- Outputs are called by their keys where a dict is returned; `output_0`, `output_1`, ... in a tuple; else `output`.
"""

from __future__ import annotations

import threading
from pathlib import Path

from paceline.core.errors import ModelFailed, RuntimeUnavailable
from paceline.core.tensors import Tensors
from paceline.runtimes.base import Instance
from paceline.runtimes.options import RuntimeOptions
from paceline.runtimes.torch_exported import open_exported
from paceline.runtimes.torch_file import check
from paceline.runtimes.torch_library import first_line, library
from paceline.runtimes.torch_program import Program, to_array, to_tensor
from paceline.runtimes.torch_script import open_script

_said = threading.local()


class TorchModel:
    """A program in memory.

    Attributes:
        program: as PyTorch has opened it, for conversions.
    """

    def __init__(self, path: Path, options: RuntimeOptions) -> None:
        if options.precision not in (None, "f32"):
            raise RuntimeUnavailable(
                f"{path}: precision {options.precision}: PyTorch computes in the types of the file",
                hint="leave precision out, or convert the model to ONNX with paceline optimize",
            )
        library()
        self.program: Program = open_exported(path) if check(path) == "exported" else open_script(path)
        self.platform = self.program.platform
        self.signature = self.program.signature

    def instances(self, count: int, threads: int) -> list[Instance]:
        """Make `count` instances of `threads` threads each."""
        return [TorchInstance(self.program, threads)] * count


class TorchInstance:
    """Runs batches of a program."""

    def __init__(self, program: Program, threads: int) -> None:
        self._torch = library()
        self._call = program.call
        self._types = [spec.datatype for spec in program.signature.inputs]
        self._threads = threads

    def run(self, inputs: Tensors) -> Tensors:
        """Run one batch; see `Instance.run`."""
        if getattr(_said, "threads", None) != self._threads:
            self._torch.set_num_threads(self._threads)
            _said.threads = self._threads
        try:
            with self._torch.inference_mode():
                outputs = self._call([to_tensor(*each) for each in zip(inputs, self._types, strict=True)])
                return tuple([to_array(each) for each in outputs])
        except Exception as error:  # a program raises what comes
            raise ModelFailed("the model raised an error", detail=first_line(error)) from error
