"""How is Triton started? Its server binary is inside the wheel of nvidia-pytriton, with the libraries it needs.

Rules:
- The layout is what pytriton itself makes: the bundled libraries on LD_LIBRARY_PATH, and beside the Python backend
  the stub that was built for this version of Python. The wheel's dependencies are those of its own client: left out.
- The model runs in the Python backend, for the wheel has no other; batches of up to 256, delay 0, one instance.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from importlib import metadata
from pathlib import Path

from benchmarks.bench import BenchError, Run
from benchmarks.environments import environment
from benchmarks.processes import Server, free_port, started

PINNED = ("numpy==1.26.4",)
WHEEL = "nvidia-pytriton==0.7.0"
MODEL = "mlp"
_SERVICE = Path(__file__).parent / "services" / "triton_mlp.py"
_CONFIG = """\
name: "%s"
backend: "python"
max_batch_size: 256
input [{ name: "x" data_type: TYPE_FP32 dims: [%d] }]
output [{ name: "y" data_type: TYPE_FP32 dims: [%d] }]
dynamic_batching { max_queue_delay_microseconds: 0 }
instance_group [{ kind: KIND_CPU count: 1 }]
"""


def triton(
    run: Run, model: Path, widths: tuple[int, int], ready: Callable[[int], bool]
) -> AbstractContextManager[Server]:
    """Triton with the model under the name `mlp`, answering gRPC on its port.

    Args:
        widths: of the model's input `x` and of its output `y`.
    """
    python = environment(
        run, "venv-triton", [*PINNED, f"onnxruntime=={metadata.version('onnxruntime')}"], alone=[WHEEL]
    )
    packages = next(python.parent.parent.glob("lib/python3*/site-packages"))
    root = packages / "pytriton" / "tritonserver"
    _add_stub(root)
    port = free_port()
    command = [str(root / "bin" / "tritonserver"), f"--model-repository={_repository(run, widths)}"]
    command += [f"--backend-directory={root / 'backends'}", "--allow-http=false", "--allow-metrics=false"]
    command += ["--grpc-address=127.0.0.1", f"--grpc-port={port}"]
    env = {
        "LD_LIBRARY_PATH": str(packages / "nvidia_pytriton.libs"),
        # The stub embeds Python, and finds the environment by the first interpreter on the path.
        "PATH": f"{python.parent}:{os.environ['PATH']}",
        "MODEL": str(model.resolve()),
    }
    return started(run, command, port, ready=ready, env=env)


def _add_stub(root: Path) -> None:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = root / "python_backend_stubs" / version / "triton_python_backend_stub"
    if not stub.exists():
        raise BenchError(f"{WHEEL} has no Python backend for Python {version}")
    beside = root / "backends" / "python" / stub.name
    if not beside.exists():
        shutil.copy(stub, beside)


def _repository(run: Run, widths: tuple[int, int]) -> Path:
    folder = (run.folder / "triton").resolve()
    version = folder / MODEL / "1"
    version.mkdir(parents=True, exist_ok=True)
    shutil.copy(_SERVICE, version / "model.py")
    (folder / MODEL / "config.pbtxt").write_text(_CONFIG % (MODEL, *widths))
    return folder
