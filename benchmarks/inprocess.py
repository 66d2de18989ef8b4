"""What can ONNX Runtime do with nothing around it? One process, one loop of `session.run`.

    python -m benchmarks.inprocess MODEL --threads 1 --seconds 2

Prints one JSON line: rows/s at every batch size, the best of them, and the median of one row alone. The
session has ONNX Runtime's own defaults but for the number of threads.
"""

from __future__ import annotations

import argparse
import json
import time
from statistics import median

import numpy as np
import onnxruntime

SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_SEARCH_S = 0.15


def main() -> None:
    parser = argparse.ArgumentParser(description="rows per second of an in-process loop")
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=2.0, help="how long the best size is measured")
    options = parser.parse_args()

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = options.threads
    session = onnxruntime.InferenceSession(options.model, settings, providers=["CPUExecutionProvider"])
    width = session.get_inputs()[0].shape[1]
    rows = np.random.default_rng(3).standard_normal((max(SIZES), width), np.float32)

    rates = {size: size / median(_times(session, rows[:size], _SEARCH_S)) for size in SIZES}
    # The three best once more, and longer: a size must not win by luck.
    best = sorted(rates, key=lambda size: rates[size])[-3:]
    for size in best:
        times = _times(session, rows[:size], options.seconds / 3)
        rates[size] = size * len(times) / sum(times)
    size = max(best, key=lambda size: rates[size])
    single = _times(session, rows[:1], options.seconds / 3)
    print(
        json.dumps(
            {
                "best_size": size,
                "rows_per_s": rates[size],
                "single_p50_us": median(single) * 1e6,
                "rates": rates,
            }
        )
    )


def _times(session: onnxruntime.InferenceSession, batch: np.ndarray, seconds: float) -> list[float]:
    feed = {session.get_inputs()[0].name: batch}
    session.run(None, feed)
    times: list[float] = []
    until = time.perf_counter() + seconds
    while len(times) < 5 or time.perf_counter() < until:
        started = time.perf_counter()
        session.run(None, feed)
        times.append(time.perf_counter() - started)
    return times


if __name__ == "__main__":
    main()
