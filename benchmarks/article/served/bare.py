"""How long does the model take alone? `python bare.py CALLS ROWS...` prints seconds of each call, by rows, as JSON."""

import json
import sys
import time

import numpy as np
from predict import WIDTH, load


def seconds(model, rows, calls):
    """Of each call in a loop, the first one left out."""
    batch = np.random.default_rng(0).random((rows, WIDTH), np.float32)
    model(batch)
    taken = []
    for _ in range(calls):
        begun = time.perf_counter()
        model(batch)
        taken.append(time.perf_counter() - begun)
    return taken


if __name__ == "__main__":
    calls, *sizes = map(int, sys.argv[1:])
    loaded = load()
    print(json.dumps({rows: seconds(loaded, rows, calls) for rows in sizes}))
