"""In which order are the set-ups measured with one model?

Rules:
- A device that waits takes no processor time: all its set-ups and numbers of users are measured at the same time, each
  with a server and a device of its own. What happens to the machine happens to them all.
- The network takes the processor: one set-up runs at a time, in turns, round after round.
- The model alone is measured in each round, too.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import product
from typing import Final

from benchmarks.article import load
from benchmarks.article.results import Results
from benchmarks.article.setups import SERVED, Served, SetUp, instances, serving
from benchmarks.bench import BenchError, Run, say
from benchmarks.processes import Server

USERS: Final = (1, 5, 20)
"""As in the article."""

_STARTED_AT_ONCE: Final = 4


class Experiment:
    """One model, its set-ups and their users."""

    def __init__(
        self, run: Run, served: Served, set_ups: Sequence[SetUp], users: Sequence[int], window: load.Window
    ) -> None:
        self.results = Results(served.key, served.title, judged=served.judged, waits=served.waits)
        self._run = run
        self._served = served
        self._set_ups = set_ups
        self._users = users
        self._window = window

    def round(self, turn: int) -> None:
        """Measure everything once.

        Args:
            turn: seeds what users think and send: other users in each round, the same for every set-up.

        Raises:
            BenchError: something did not start, or did not end.
        """
        self.results.add_calls(self._alone())
        if self._served.waits:
            self._side_by_side(turn)
        else:
            self._in_turn(turn)

    def _side_by_side(self, turn: int) -> None:
        wanted = list(product(self._set_ups, self._users))
        with ExitStack() as stack:

            def start(pair: tuple[SetUp, int]) -> Server:
                return stack.enter_context(serving(self._run, pair[0], self._served))

            with ThreadPoolExecutor(_STARTED_AT_ONCE) as starters:
                servers = list(starters.map(start, wanted))
            say(f"    {len(servers)} servers are up; {self._window.warm_s + self._window.counted_s:g} s")
            cells = [load.Cell(pair[0].key, pair[1], server) for pair, server in zip(wanted, servers, strict=True)]
            self._load(cells, turn)

    def _in_turn(self, turn: int) -> None:
        for set_up in self._set_ups:
            with serving(self._run, set_up, self._served) as server:
                for users in self._users:
                    say(f"    {set_up.label}, users: {users}; {self._window.warm_s + self._window.counted_s:g} s")
                    self._load([load.Cell(set_up.key, users, server)], turn)

    def _load(self, cells: Sequence[load.Cell], turn: int) -> None:
        for cell in cells:
            if said := instances(cell.server):
                self.results.chosen[cell.set_up] = said
        self.results.add(load.measure(self._run, cells, self._window, turn))

    def _alone(self) -> dict[int, list[float]]:
        """Rows -> seconds of each call in a loop, in a process that has all cores."""
        environment = self._served.environment(self._run, processes=1, lock="bare")
        command = [sys.executable, str(SERVED / "bare.py"), str(self._run.either(20, 5)), *map(str, USERS)]
        full = self._run.as_server(["env", *(f"{name}={value}" for name, value in environment.items()), *command])
        done = subprocess.run(full, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BenchError(f"{full} failed:\n{done.stderr}")
        return {int(rows): taken for rows, taken in json.loads(done.stdout).items()}
