"""Triton, with its Python backend: the server binary is inside the wheel of nvidia-pytriton, with its libraries.

Rules:
- Its optimization guide has dynamic batching, here without a delay, and more than one instance:
  https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/user_guide/optimization.html
- The layout is what pytriton itself makes: the bundled libraries on LD_LIBRARY_PATH, and beside the Python backend
  the stub that was built for this version of Python. The wheel's dependencies are those of its own client: left out.
- The model runs in the Python backend, for the wheel has no other.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.bench import BenchError
from benchmarks.peers.model import SERVICES, Model, Tensor
from benchmarks.peers.peer import Command, Environment, Launch, Setup
from benchmarks.peers.wires import OipBinary, OipGrpc, OipJson

_WHEEL = "nvidia-pytriton==0.7.0"
_NUMPY = "numpy==1.26.4"  # which the stub was built for
_CONFIG = """\
name: "%s"
backend: "python"
max_batch_size: 256
input [%s]
output [%s]
dynamic_batching { max_queue_delay_microseconds: 0 }
instance_group [{ kind: KIND_CPU count: %d }]
"""


def _command(launch: Launch) -> Command:
    packages = next(launch.python.parent.parent.glob("lib/python3*/site-packages"))
    root = packages / "pytriton" / "tritonserver"
    _add_stub(root)
    _write_repository(launch.folder, launch.model, launch.workers)
    command = [str(root / "bin" / "tritonserver"), f"--model-repository={launch.folder}"]
    command += [f"--backend-directory={root / 'backends'}", "--allow-metrics=false"]
    over, other = ("grpc", "http") if launch.wire == "grpc" else ("http", "grpc")
    command += [f"--allow-{other}=false", f"--{over}-address=127.0.0.1", f"--{over}-port={launch.port}"]
    env = {
        "LD_LIBRARY_PATH": str(packages / "nvidia_pytriton.libs"),
        # The stub embeds Python, and finds the environment by the first interpreter on the path.
        "PATH": f"{launch.python.parent}:{os.environ['PATH']}",
    }
    return Command(command, {**launch.env, **env})


def _add_stub(root: Path) -> None:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = root / "python_backend_stubs" / version / "triton_python_backend_stub"
    if not stub.exists():
        raise BenchError(f"{_WHEEL} has no Python backend for Python {version}")
    beside = root / "backends" / "python" / stub.name
    if not beside.exists():
        shutil.copy(stub, beside)


def _write_repository(folder: Path, model: Model, instances: int) -> None:
    assert model.output is not None
    version = folder / model.served_as / "1"
    version.mkdir(parents=True, exist_ok=True)
    shutil.copy(SERVICES / "on_triton.py", version / "model.py")
    for beside in ("predictor.py", "forest.py"):  # the stub heeds no PYTHONPATH, and imports from this folder
        shutil.copy(SERVICES / beside, version / beside)
    described = _described(model.inputs), _described([model.output])
    (folder / model.served_as / "config.pbtxt").write_text(_CONFIG % (model.served_as, *described, instances))


def _described(tensors: Sequence[Tensor]) -> str:
    return ", ".join(
        f'{{ name: "{each.name}" data_type: TYPE_{each.datatype} '
        # One number a row is a tensor of rank 1 to Triton's batching: [rows].
        f"dims: [{', '.join(map(str, each.shape)) or 1}]{'' if each.shape else ' reshape { shape: [] }'} }}"
        for each in tensors
    )


SETUPS = [
    Setup(
        name="triton",
        title="Triton, Python backend",
        note=f"the server inside {_WHEEL}; an instance for each core, batches up to 256, delay 0",
        environment=Environment("triton", (_NUMPY,), alone=(_WHEEL,), shared=("onnxruntime", "scikit-learn")),
        dialects={"oip": OipJson(), "binary": OipBinary(), "grpc": OipGrpc()},
        command=_command,
    )
]
