"""Who is guilty of a worker's death, for how long, and how many?"""

from __future__ import annotations

import numpy as np
import pytest

from paceline.core.errors import Quarantined
from paceline.engine import quarantine
from paceline.engine.quarantine import MOST_ROWS, Quarantine


def texts(*rows: bytes) -> tuple[np.ndarray]:
    column = np.empty(len(rows), object)
    column[:] = rows
    return (column,)


def test_one_death_convicts_nobody():
    held = Quarantine("m")
    assert not held.killed(texts(b"1"), 1)
    held.check(texts(b"1"))
    assert len(held) == 0


def test_two_deaths_of_one_request_convict_its_row_wherever_it_stands():
    held = Quarantine("m")
    assert held.killed(texts(b"bad"), 2)
    held.check(texts(b"good", b"better"))
    with pytest.raises(Quarantined, match=r"died of these inputs \(row 1\)"):
        held.check(texts(b"good", b"bad"))
    assert len(held) == 1


def test_one_death_in_each_of_two_requests_convicts():
    held = Quarantine("m")
    assert not held.killed(texts(b"bad"), 1)
    assert not held.killed(texts(b"other"), 1)
    assert held.killed(texts(b"bad"), 1)


def test_rows_are_told_apart_by_all_their_columns():
    held = Quarantine("m")
    ones, twos = np.ones((1, 3), np.float32), np.full((1, 3), 2, np.float32)
    assert held.killed((ones, twos), 2)
    held.check((twos, ones))
    held.check((ones, ones))
    with pytest.raises(Quarantined):
        held.check((np.concatenate([twos, ones]), np.concatenate([twos, twos])))


def test_it_is_for_a_time(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(quarantine.time, "monotonic", lambda: now[0])
    held = Quarantine("m")
    held.killed(texts(b"bad"), 2)
    held.killed(texts(b"once"), 1)
    now[0] += quarantine.QUARANTINE_S + 1
    held.check(texts(b"bad"))
    assert len(held) == 0
    assert not held.killed(texts(b"once"), 1), "a suspicion ends as well"


def test_it_holds_so_many_and_no_more():
    held = Quarantine("m")
    for number in range(MOST_ROWS + 10):
        held.killed(texts(b"%d" % number), 2)
    assert len(held) == MOST_ROWS
    held.check(texts(b"9"))
    with pytest.raises(Quarantined):
        held.check(texts(b"10"))


def test_a_row_that_has_run_since_is_no_suspect_any_more():
    held = Quarantine("m")
    assert not held.killed(texts(b"popular"), 1)
    assert held.has_suspects
    held.survived(texts(b"other", b"popular"))
    assert not held.has_suspects
    assert not held.killed(texts(b"popular"), 1)
