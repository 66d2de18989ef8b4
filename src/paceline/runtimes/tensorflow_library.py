"""How is TensorFlow imported, so that it keeps quiet, and to the processor?

Rules:
- Its level of messages is set, where nobody else has set it; for errors come as exceptions.
- Two of its libraries write a line when they are loaded, whatever the level is. So they are loaded first, in some 50 ms
  for which descriptor 2 leads to a file. What others wrote in that time is passed on.
- Where a version has them elsewhere, those lines are seen. Nothing else depends on it.
- The processor alone is used: a GPU's memory is not taken.
"""

from __future__ import annotations

import ctypes
import logging
import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Final

from paceline.core.errors import RuntimeUnavailable, first_line

_ENVIRONMENT: Final = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    # One pool of threads for each session; see `tensorflow.py`.
    "TF_OVERRIDE_GLOBAL_THREADPOOL": "1",
}
"""Read by TensorFlow when it starts. What an operator has set stands."""

_TALKATIVE: Final = ("libtensorflow_framework.so.2", "python/profiler/internal/_pywrap_profiler_plugin.so")
_CHATTER: Final = re.compile(rb"[IWE]\d{4} |WARNING: All log messages before absl::InitializeLog")
_STDERR: Final = 2

_one_at_a_time = threading.Lock()


def tensorflow() -> Any:
    """TensorFlow, silent.

    Raises:
        RuntimeUnavailable: it is not installed, or broken.
    """
    with _one_at_a_time:
        if "tensorflow" not in sys.modules:
            for name, value in _ENVIRONMENT.items():
                os.environ.setdefault(name, value)
            _load_talkative()
        try:
            import tensorflow as tf
        except ImportError as error:
            raise RuntimeUnavailable(
                f"TensorFlow cannot be imported: {first_line(error)}", hint="pip install 'paceline[tensorflow]'"
            ) from error
    for logger in ("tensorflow", "absl"):
        logging.getLogger(logger).setLevel(logging.ERROR)
    with suppress(RuntimeError):  # too late: somebody has computed with it before
        tf.config.set_visible_devices([], "GPU")
    return tf


def keras() -> Any:
    """Keras on TensorFlow, whatever else it is set to: what is exported is a graph of TensorFlow's.

    Raises:
        RuntimeUnavailable: TensorFlow is not installed, or broken.
    """
    tensorflow()
    with _one_at_a_time, _variable("KERAS_BACKEND", "tensorflow"):  # read once, when Keras is imported
        import keras as imported
    return imported


def _load_talkative() -> None:
    found = find_spec("tensorflow")
    folders = (found and found.submodule_search_locations) or ()
    with _kept_quiet():
        for folder in folders:
            for name in _TALKATIVE:
                with suppress(OSError):
                    ctypes.CDLL(str(Path(folder, name)))


@contextmanager
def _kept_quiet() -> Iterator[None]:
    with TemporaryFile() as kept:
        before = os.dup(_STDERR)
        os.dup2(kept.fileno(), _STDERR)
        try:
            yield
        finally:
            os.dup2(before, _STDERR)
            os.close(before)
        kept.seek(0)
        os.write(_STDERR, b"".join(line for line in kept if not _CHATTER.match(line)))


@contextmanager
def _variable(name: str, value: str) -> Iterator[None]:
    """An environment variable, for a moment: workers are started from here, and choose for themselves."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
