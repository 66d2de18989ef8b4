"""examples/init_once: what takes seconds happens before the first request, in Python and in R."""

import heapq
import json
import re
import shutil
import time
import urllib.request
from pathlib import Path

import pytest

from paceline.testing import run_server

EXAMPLE = Path(__file__).parents[2] / "examples" / "init_once"

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "file",
    [
        "service.py",
        pytest.param("model.R", marks=pytest.mark.skipif(shutil.which("Rscript") is None, reason="R is not installed")),
    ],
)
def test_no_user_waits_for_the_initialisation(file):
    begun = time.monotonic()
    with run_server(EXAMPLE / file, ["--instances", "1"], ready=False) as server:
        server.wait_ready(100)
        ready_s = time.monotonic() - begun
        begun = time.monotonic()
        first = minutes(server, 1, 250)
        assert time.monotonic() - begun < ready_s / 6
    assert first == quickest(places(EXAMPLE / file), 1, 250)


def minutes(server, start: int, end: int) -> float:
    body = json.dumps({"from": start, "to": end}).encode()
    request = urllib.request.Request(server.url + "/predict", body, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as response:
        return json.load(response)


def places(file: Path) -> int:
    return int(re.search(r"^places (?:<-|=) (\d+)$", file.read_text(), re.MULTILINE | re.IGNORECASE)[1])


def quickest(count: int, start: int, end: int) -> float:
    """The same roads, another algorithm: Dijkstra's."""
    roads: dict[tuple[int, int], float] = {}
    for place in range(count):
        for other in (place + 1, 7 * place + 3, 31 * place + 5):
            other %= count
            roads[place, other] = roads[other, place] = 2 + (13 * place + other) % 9
    neighbors: dict[int, list[tuple[int, float]]] = {}
    for (place, other), takes in roads.items():
        neighbors.setdefault(place, []).append((other, takes))
    reached, waiting = set(), [(0.0, start)]
    while waiting:
        passed, place = heapq.heappop(waiting)
        if place == end:
            return passed
        if place not in reached:
            reached.add(place)
            for other, takes in neighbors[place]:
                heapq.heappush(waiting, (passed + takes, other))
    raise AssertionError("no way")
