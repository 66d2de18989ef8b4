"""Which discount does a customer get? Every part that a class may have, each in a line or two.

paceline serve examples/python_class/discount.py
"""

import sqlite3
import tempfile
from pathlib import Path

import numpy as np


class Discount:
    def setup(self):
        """Once in each worker: read the model, open what is needed."""
        self.weights = np.array([0.004, 0.02])
        self.database = Path(tempfile.mkdtemp()) / "customers.sqlite"
        with sqlite3.connect(self.database) as customers:
            customers.execute("create table customers (id integer primary key, orders integer, years integer)")
            rows = [(number, number * 7 % 40, number % 12) for number in range(1000)]
            customers.executemany("insert into customers values (?, ?, ?)", rows)

    def validate(self, item):
        """Refuses an item alone; the others of the batch go on."""
        if not isinstance(item.get("customer"), int):
            raise ValueError("customer: expected a number")

    def fetch(self, item):
        """For all items at once, on threads; `async def` runs on an event loop instead."""
        customers = sqlite3.connect(self.database)
        found = customers.execute("select orders, years from customers where id = ?", [item["customer"]]).fetchone()
        customers.close()
        return {**item, "history": found or (0, 0)}

    def clean(self, items):
        """For all items that are left, before they are predicted."""
        return [(min(orders, 25), min(years, 10)) for orders, years in (item["history"] for item in items)]

    def predict(self, batch):
        """Everything that is ready, in one call."""
        return np.array(batch) @ self.weights

    def format(self, output):
        """Each output, as its client gets it."""
        return {"discount": round(output, 3)}

    def example(self):
        """For the warm-up, the try-it page and load tests."""
        return {"customer": 17}

    def health(self):
        """Asked after `setup`, and when the worker has been idle for a while. Not well: another one takes its place."""
        return self.database.exists()
