"""The example that initialises once, initialising in every call. $EXAMPLES is the folder of the examples."""

import os
import sys

sys.path.insert(0, f"{os.environ['EXAMPLES']}/init_once")

from service import Ways


def predict(batch):
    ways = Ways()
    ways.setup()
    return ways.predict(batch)
