"""The bounded store behind the caches, on a virtual clock."""

from __future__ import annotations

from collections import OrderedDict

from hypothesis import given
from hypothesis import strategies as st

from paceline.core.store import ENTRY_BYTES, Store


def store(entries: int, ttl_s: float | None = None) -> Store[str]:
    return Store(entries * (ENTRY_BYTES + 10), ttl_s)


def test_what_was_not_used_for_longest_goes_first():
    kept = store(2)
    for key in ("a", "b"):
        kept.put(key, key.upper(), 10, 0.0)
    assert kept.get("a", 0.0) == "A"
    kept.put("c", "C", 10, 0.0)
    assert [kept.get(key, 0.0) for key in ("a", "b", "c")] == ["A", None, "C"]
    assert (kept.evictions, len(kept)) == (1, 2)


def test_a_value_ends_with_its_time_to_live():
    kept = store(2, ttl_s=5.0)
    kept.put("a", "A", 10, now=100.0)
    assert kept.get("a", 104.9) == "A"
    assert kept.get("a", 105.0) is None
    assert (kept.expirations, kept.bytes, len(kept)) == (1, 0, 0)


def test_a_value_over_the_bound_is_not_kept_and_takes_its_forerunner_along():
    kept = store(1)
    assert kept.put("a", "A", 10, 0.0)
    assert not kept.put("a", "A" * 11, 11, 0.0)
    assert kept.get("a", 0.0) is None
    assert kept.evictions == 0


def test_clearing_keeps_the_counters():
    kept = store(2)
    kept.put("a", "A", 10, 0.0)
    kept.get("a", 0.0)
    kept.clear()
    assert (kept.bytes, len(kept), kept.hits) == (0, 0, 1)


_STEPS = st.lists(
    st.tuples(st.sampled_from(["put", "get", "discard"]), st.integers(0, 5), st.integers(0, 600), st.floats(0, 3)),
    max_size=60,
)


@given(_STEPS)
def test_it_agrees_with_a_plain_model_of_it(steps: list[tuple[str, int, int, float]]):
    bound, ttl_s, now = 4 * ENTRY_BYTES, 5.0, 0.0
    kept: Store[int] = Store(bound, ttl_s)
    plain: OrderedDict[int, tuple[int, int, float]] = OrderedDict()
    for step, (action, key, size, pause) in enumerate(steps):
        now += pause
        if action == "put":
            kept.put(key, step, size, now)
            plain.pop(key, None)
            if size + ENTRY_BYTES <= bound:
                plain[key] = (step, size + ENTRY_BYTES, now + ttl_s)
            while sum(each[1] for each in plain.values()) > bound:
                plain.popitem(last=False)
        elif action == "discard":
            kept.discard(key)
            plain.pop(key, None)
        else:
            if key in plain and plain[key][2] <= now:
                del plain[key]
            if key in plain:
                plain.move_to_end(key)
            assert kept.get(key, now) == (plain[key][0] if key in plain else None)
        assert kept.bytes == sum(each[1] for each in plain.values()) <= bound
        assert len(kept) == len(plain)
