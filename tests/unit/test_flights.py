"""Single flight as a state machine: whatever happens to flights, every call ends exactly once, and rightly."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from paceline.core.errors import (
    DeadlineExceeded,
    InstanceLost,
    ModelFailed,
    Overloaded,
    PacelineError,
    Quarantined,
    RequestTooLarge,
)
from paceline.core.requests import RUNNING
from paceline.core.tensors import column
from paceline.engine.calls import Call, Flight
from paceline.engine.flights import Flights
from paceline.engine.prediction_cache import Found, Kept

MOST_ROWS = 4
POISON = b'"poison"'
BANNED = b'"banned"'
ITEMS = [b"1", b"2", b"3", b"4", b"5", POISON, BANNED]


class Field:
    """Where flights take off, and land when a test says so."""

    def __init__(self) -> None:
        self.flying: list[Flight] = []
        self.ended: list[Call] = []
        self.later: list[Callable[[], object]] = []
        self.full = False
        self.looks: list[tuple[list[bytes], Found]] = []
        self.look_at = float("inf")

    def admit_rows(self, rows: int, size_bytes: int, deadline: float) -> None:
        if self.full:
            raise Overloaded("full")

    def run(self, flight: Flight, *, admitted: bool) -> None:
        if self.full and not admitted:
            raise Overloaded("full")
        if BANNED in texts_of(flight):
            raise Quarantined("banned")
        self.flying.append(flight)

    def drop(self, flight: Flight) -> None:
        self.flying.remove(flight)

    def end(self, call: Call) -> None:
        assert call not in self.ended
        self.ended.append(call)

    def look_by(self, deadline: float) -> None:
        self.look_at = min(self.look_at, deadline)

    def soon(self, callback: Callable[..., object], *arguments: object) -> None:
        self.later.append(lambda: callback(*arguments))

    def look_up(self, texts: list[bytes], found: Found) -> bool:
        self.looks.append((texts, found))
        return True

    def land(self, flight: Flight, error: PacelineError | None = None) -> None:
        """A flight ends: with an error, or as its items have it."""
        self.flying.remove(flight)
        if error is None and POISON in texts_of(flight):
            error = ModelFailed("poison")
        if error is not None:
            flight.error = error
        else:
            flight.outputs = (column([prediction(text) for text in texts_of(flight)]),)
        flight.on_done(flight)

    def run_later(self) -> None:
        while self.later:
            self.later.pop(0)()


def texts_of(flight: Flight) -> list[bytes]:
    return flight.inputs[0].tolist()


def ends_by(flight: Flight) -> float:
    return min(part.deadline for part in flight.parts or [flight])


def prediction(text: bytes) -> bytes:
    return b"[" + text + b"]"


def wanted(call: Call, texts: Sequence[bytes]) -> list[tuple[bytes, list[int]]]:
    rows: dict[bytes, list[int]] = {}
    for row, text in enumerate(texts):
        rows.setdefault(text, []).append(row)
    call.missing = len(rows)
    if len(texts) > 1:
        call.answers = np.empty(len(texts), object)
    return list(rows.items())


def call_of(texts: Sequence[bytes], deadline: float = 100.0, *, errors_by_row: bool = True) -> Call:
    call = Call((column(texts),), len(texts), deadline, lambda _: None, None, 10)
    call.errors_by_row = errors_by_row
    return call


def flights_of(field: Field, **options: object) -> Flights:
    bounds = {"most_rows": MOST_ROWS, "most_riders": 50, "most_rider_bytes": 1 << 20}
    return Flights(field, **{"share": True, **bounds, **options})  # type: ignore[arg-type]


class AnyTraffic(RuleBasedStateMachine):
    """Calls come, leave and expire; flights land, fail, are lost, late, refused."""

    def __init__(self) -> None:
        super().__init__()
        self.field = Field()
        self.flights = flights_of(self.field, **self.options())
        self.calls: dict[Call, list[bytes]] = {}
        self.now = 0.0

    def options(self) -> dict[str, object]:
        return {}

    @rule(
        texts=st.lists(st.sampled_from(ITEMS), min_size=1, max_size=9), patience=st.integers(1, 20), full=st.booleans()
    )
    def comes(self, texts: list[bytes], patience: int, full: bool) -> None:
        call = call_of(texts, self.now + patience)
        self.field.full = full
        try:
            self.flights.take(call, wanted(call, texts))
        except (Overloaded, RequestTooLarge, Quarantined):
            assert call not in self.field.ended
        else:
            assert call not in self.field.ended, "it ended while it was queued"
            self.calls[call] = texts
        self.field.full = False

    @rule(text=st.sampled_from(ITEMS), patience=st.integers(1, 20))
    def comes_alone(self, text: bytes, patience: int) -> None:
        call = call_of([text], self.now + patience)
        try:
            self.flights.take_one(call, text)
        except Quarantined:
            assert text == BANNED
        else:
            self.calls[call] = [text]

    @precondition(lambda self: self.calls)
    @rule(data=st.data())
    def leaves(self, data: st.DataObject) -> None:
        call = data.draw(st.sampled_from(list(self.calls)))
        self.flights.leave(call)
        del self.calls[call]

    @precondition(lambda self: self.field.flying)
    @rule(data=st.data(), error=st.sampled_from([None, None, None, InstanceLost("died"), ModelFailed("moody")]))
    def lands(self, data: st.DataObject, error: PacelineError | None) -> None:
        self.field.land(data.draw(st.sampled_from(self.field.flying)), error)

    @precondition(lambda self: self.field.flying)
    @rule(data=st.data())
    def begins(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(self.field.flying)).state = RUNNING

    @precondition(lambda self: self.field.flying)
    @rule(data=st.data())
    def is_cut(self, data: st.DataObject) -> None:
        """A worker has died: what it ran runs again, row by row."""
        flight = data.draw(st.sampled_from(self.field.flying))
        if flight.state is RUNNING and flight.parts is None:
            flight.rows_apart()

    @rule(seconds=st.integers(1, 10))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds
        for flight in [flight for flight in self.field.flying if ends_by(flight) <= self.now]:
            if flight in self.field.flying:
                self.field.land(flight, DeadlineExceeded("late"))
        if self.field.look_at <= self.now:
            self.field.look_at = float("inf")
            self.flights.expire(self.now)

    @rule()
    def loop_turns(self) -> None:
        self.field.run_later()

    @invariant()
    def ended_calls_are_right(self) -> None:
        for call in self.field.ended:
            texts = self.calls.pop(call)
            if call.error is not None:
                assert isinstance(call.error, Overloaded | DeadlineExceeded | InstanceLost | Quarantined)
                assert isinstance(call.error, DeadlineExceeded) is False or call.deadline <= self.now
                continue
            assert call.outputs is not None
            for text, answer in zip(texts, call.outputs[0].tolist(), strict=True):
                right = answer == prediction(text) or isinstance(answer, PacelineError)
                assert right, f"{text!r} was answered with {answer!r}"
                assert not (text == POISON and isinstance(answer, bytes))
        self.field.ended.clear()

    @invariant()
    def equal_items_fly_once(self) -> None:
        flying = [text for flight in self.field.flying for text in texts_of(flight)]
        assert len(flying) == len(set(flying))
        assert all(len(texts_of(flight)) <= MOST_ROWS for flight in self.field.flying)

    def teardown(self) -> None:
        field = self.field
        while field.later or field.looks or field.flying:
            field.run_later()
            if field.looks:
                texts, found = field.looks.pop()
                found([None] * len(texts))
            elif field.flying:
                field.land(field.flying[0])
            self.ended_calls_are_right()
        assert not self.calls, "a call never ended"
        assert self.flights.idle


class WithLookUps(AnyTraffic):
    """The same, when predictions may be kept elsewhere."""

    def options(self) -> dict[str, object]:
        return {"look_up": self.field.look_up}

    @precondition(lambda self: self.field.looks)
    @rule(data=st.data(), full=st.booleans())
    def found(self, data: st.DataObject, full: bool) -> None:
        texts, found = self.field.looks.pop(data.draw(st.integers(0, len(self.field.looks) - 1)))
        kept = [
            data.draw(st.booleans()) and text not in (POISON, BANNED) and Kept(prediction(text), 1.0) for text in texts
        ]
        self.field.full = full
        found([each or None for each in kept])
        self.field.full = False


@pytest.mark.slow
class TestAnyTraffic(AnyTraffic.TestCase):
    settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


@pytest.mark.slow
class TestWithLookUps(WithLookUps.TestCase):
    settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


def test_an_owner_that_leaves_does_not_end_its_riders():
    field = Field()
    flights = flights_of(field)
    owner, rider = call_of([b"1"]), call_of([b"1"])
    flights.take_one(owner, b"1")
    flights.take_one(rider, b"1")

    flights.leave(owner)

    (flight,) = field.flying
    field.land(flight)
    assert field.ended == [rider]
    assert rider.outputs is not None
    assert rider.outputs[0].tolist() == [b"[1]"]


def test_a_flight_that_nobody_waits_for_is_dropped():
    field = Field()
    flights = flights_of(field)
    owner, rider = call_of([b"1"]), call_of([b"1"])
    flights.take_one(owner, b"1")
    flights.take_one(rider, b"1")
    for call in (owner, rider):
        flights.leave(call)
    assert not field.flying
    assert flights.idle


def test_a_late_owner_does_not_make_its_rider_late():
    field = Field()
    flights = flights_of(field)
    owner, rider = call_of([b"1"], deadline=1.0), call_of([b"1"], deadline=9.0)
    flights.take_one(owner, b"1")
    flights.take_one(rider, b"1")

    field.land(field.flying[0], DeadlineExceeded("late"))

    assert field.ended == [owner]
    (again,) = field.flying
    assert again.deadline == 9.0
    field.land(again)
    assert field.ended == [owner, rider]


def test_a_running_flight_goes_on_for_a_rider_with_more_time():
    field = Field()
    flights = flights_of(field)
    owner, rider = call_of([b"1"], deadline=1.0), call_of([b"1"], deadline=9.0)
    flights.take_one(owner, b"1")
    field.flying[0].state = RUNNING
    flights.take_one(rider, b"1")

    flights.expire(now=1.0)

    assert field.ended == [owner]
    assert isinstance(owner.error, DeadlineExceeded)
    field.land(field.flying[0])
    assert rider.outputs is not None


def test_what_a_dead_worker_lost_ends_at_its_own_deadline_and_riders_start_anew():
    field = Field()
    flights = flights_of(field)
    owner, rider = call_of([b"1", b"2"], deadline=1.0), call_of([b"1"], deadline=9.0)
    flights.take(owner, wanted(owner, [b"1", b"2"]))
    (flight,) = field.flying
    flight.state = RUNNING
    flight.rows_apart()  # by the scheduler: every row runs again alone, by the deadline of the whole
    flights.take_one(rider, b"1")

    field.land(flight, DeadlineExceeded("late"))

    assert field.ended == [owner]
    (again,) = field.flying
    assert again.deadline == 9.0


def test_a_flight_has_its_items_whoever_it_starts_for():
    field = Field()
    flights = flights_of(field, look_up=field.look_up)
    texts = [b"1", b"2", b"3", b"4", b"5"]
    left, *riders = call_of(texts), *[call_of([text], deadline=200.0 - index) for index, text in enumerate(texts)]
    flights.take(left, wanted(left, texts))
    for rider, text in zip(riders, texts, strict=True):
        flights.take_one(rider, text)
    flights.leave(left)  # whose items now start for the first rider: four in a flight, and the fifth in one of its own

    ((asked, found),) = field.looks
    found([None] * len(asked))

    assert [texts_of(flight) for flight in field.flying] == [texts[:4], texts[4:]]


def test_a_rider_keeps_its_own_deadline():
    field = Field()
    flights = flights_of(field)
    owner, rider = call_of([b"1"], deadline=9.0), call_of([b"1"], deadline=1.0)
    flights.take_one(owner, b"1")
    flights.take_one(rider, b"1")
    assert field.look_at == 1.0

    flights.expire(now=1.0)

    assert field.ended == [rider]
    assert isinstance(rider.error, DeadlineExceeded)


def test_riders_get_the_error_of_their_item():
    field = Field()
    flights = flights_of(field)
    calls = [call_of([POISON], errors_by_row=False) for _ in range(3)]
    for call in calls:
        flights.take_one(call, POISON)
    field.land(field.flying[0])
    assert {call.error.message for call in calls if call.error is not None} == {"poison"}
    assert len(field.ended) == 3


def test_the_guilty_item_is_found_among_many_and_the_others_are_answered():
    field = Field()
    flights = flights_of(field)
    texts = [b"1", b"2", POISON, b"3", b"1"]
    call = call_of(texts)
    flights.take(call, wanted(call, texts))
    while field.flying:
        field.land(field.flying[0])
    assert call.outputs is not None
    answers = call.outputs[0].tolist()
    assert isinstance(answers[2], ModelFailed)
    assert [answers[row] for row in (0, 1, 3, 4)] == [b"[1]", b"[2]", b"[3]", b"[1]"]


def test_riders_are_bounded():
    field = Field()
    flights = flights_of(field, most_riders=2)
    for _ in range(3):
        flights.take_one(call_of([b"1"]), b"1")
    with pytest.raises(Overloaded) as refusal:
        flights.take_one(call_of([b"1"]), b"1")
    assert refusal.value.reason == "queue_full"


def test_without_sharing_equal_items_run_apart():
    field = Field()
    flights = flights_of(field, share=False)
    for _ in range(2):
        flights.take_one(call_of([b"1"]), b"1")
    assert len(field.flying) == 2
