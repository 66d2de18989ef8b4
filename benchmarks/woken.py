"""How long does an estimator take for one row, in a process that sleeps between calls as a server does?

Started with a file of joblib's, which holds the estimator and its rows, and a number of threads. Each byte on stdin is
a request: the next row is predicted, and the seconds that it took come back on stdout as a double.
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import time
import warnings
from pathlib import Path
from statistics import median
from typing import Any, Final

_SECONDS: Final = struct.Struct("d")
_DEADLINE_S: Final = 60.0


def microseconds(file: Path, threads: int | None, seconds: float) -> float:
    """Start the process, ask it for so long, and end it; the median of a call."""
    command = [sys.executable, "-m", "benchmarks.woken", str(file), str(threads or "")]
    took: list[float] = []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b".")
        process.stdout.read(_SECONDS.size)  # the first call also loads
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            process.stdin.write(b".")
            took += _SECONDS.unpack(process.stdout.read(_SECONDS.size))
        process.stdin.close()
        process.wait(_DEADLINE_S)
    return median(took) * 1e6


def set_threads(fitted: Any, threads: int | None) -> None:
    """Where the estimator, or the last step of a pipeline, has the choice."""
    last = fitted[-1] if hasattr(fitted, "steps") else fitted
    if "n_jobs" in last.get_params():
        last.set_params(n_jobs=threads)


def _main(file: str, threads: str) -> None:
    import joblib

    warnings.simplefilter("ignore")
    fitted, rows = joblib.load(file)
    set_threads(fitted, int(threads) if threads else None)
    place = 0
    while os.read(0, 1):
        row = rows[place % len(rows)][None]
        begun = time.perf_counter()
        fitted.predict_proba(row)
        os.write(1, _SECONDS.pack(time.perf_counter() - begun))
        place += 1


if __name__ == "__main__":
    _main(*sys.argv[1:])
