"""Which model does every set-up call? One of two, named by `ARTICLE_MODEL`: JSON of `kind` and its arguments.

Rules:
- All set-ups run this file, so that what differs is how the requests get to it.
- `OMP_NUM_THREADS` says how many threads a process computes with, as for any numerical library.
"""

import fcntl
import json
import os
import time
from contextlib import nullcontext

import numpy as np

WIDTH = 64
"""Numbers in a row of the input."""


def load():
    """The model that the environment names: a callable from [rows, 64] to [rows, outputs], FP32."""
    arguments = json.loads(os.environ["ARTICLE_MODEL"])
    return {"device": Device, "network": Network}[arguments.pop("kind")](**arguments)


class Device:
    """An accelerator, whose call takes as long for one row as for twenty.

    Args:
        host_s: seconds of a call in which other processes may use the device: preparing, copying, launching.
        device_s: seconds of a call in which it has the device.
        lock: file that stands for the device and is locked meanwhile; None: it runs any number of calls at once, and
            none is slower for it.
    """

    def __init__(self, host_s, device_s, lock=None):
        self._host_s = host_s
        self._device_s = device_s
        self._device = None if lock is None else _Exclusive(lock)

    def __call__(self, rows):
        time.sleep(self._host_s)
        with self._device or nullcontext():
            time.sleep(self._device_s)
        return 2 * rows


class Network:
    """A network in ONNX Runtime, on the processor.

    Args:
        path: its file.
    """

    def __init__(self, path):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(os.environ["OMP_NUM_THREADS"])
        # Processes that share the cores must not spin while they wait.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def __call__(self, rows):
        return self._session.run(None, {"x": rows})[0]


class _Exclusive:
    """A device that one process uses at a time; the kernel lets the next one in."""

    def __init__(self, path):
        self._file = open(path, "ab")  # noqa: SIM115 - for as long as the process lives

    def __enter__(self):
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def __exit__(self, *_):
        fcntl.flock(self._file, fcntl.LOCK_UN)


def rows_of(document):
    """The rows [N, 64] of a request's decoded JSON."""
    return np.array(document["instances"], np.float32)
