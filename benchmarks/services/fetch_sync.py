"""A service that asks another one, at $UPSTREAM (host:port), for each of its items: with a call that blocks."""

import os
import urllib.request


class Asking:
    def fetch(self, item):
        with urllib.request.urlopen(f"http://{os.environ['UPSTREAM']}/{item}", timeout=10) as response:
            return response.read().decode()

    def predict(self, batch):
        return [int(each[1:]) for each in batch]
