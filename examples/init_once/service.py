"""How many minutes from here to there? All shortest ways are worked out once; a call looks one up.

paceline serve examples/init_once/service.py
"""

import numpy as np

PLACES = 1600


class Ways:
    def setup(self):
        """Once in each worker, before its first request: two or three seconds."""
        self.minutes = shortest(roads(PLACES))

    def predict(self, batch):
        return [float(self.minutes[item["from"], item["to"]]) for item in batch]

    def example(self):
        return {"from": 1, "to": PLACES // 2}


def roads(places):
    """Minutes between places with a road: three roads from each, the same at every start."""
    minutes = np.full((places, places), np.inf, np.float32)
    for place in range(places):
        for other in (place + 1, 7 * place + 3, 31 * place + 5):
            other %= places
            minutes[place, other] = minutes[other, place] = 2 + (13 * place + other) % 9
    np.fill_diagonal(minutes, 0)
    return minutes


def shortest(minutes):
    """Minutes between all places: by way of the first, of the first two, ... (Floyd and Warshall)."""
    for by in range(len(minutes)):
        np.minimum(minutes, minutes[:, by, None] + minutes[by], out=minutes)
    return minutes
