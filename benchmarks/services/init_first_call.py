"""The example that initialises once, initialising in the first call. $EXAMPLES is the folder of the examples."""

import os
import sys

sys.path.insert(0, f"{os.environ['EXAMPLES']}/init_once")

from service import Ways

ways = Ways()


def predict(batch):
    if not hasattr(ways, "minutes"):
        ways.setup()
    return ways.predict(batch)
