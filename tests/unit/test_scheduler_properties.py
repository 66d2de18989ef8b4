"""The scheduler's promises under any order of events, on a virtual clock.

The machine plays the engine: it brings requests, runs the batches it is given and reports their ends, and the deaths of
the processes that run them. It keeps its own account of what waits and runs, and compares.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from paceline.core.errors import Overloaded, RequestTooLarge
from paceline.core.requests import DONE, InferRequest
from paceline.scheduling import Batch, LatencyModel, Policy, Scheduler
from paceline.scheduling.replay import decisions, replay

PROFILES = [[], [(1, 0.01), (8, 0.03)], [(1, 2.0), (8, 6.0)]]
Arrival = tuple[int, float, int, str, str | None]
ARRIVALS = st.tuples(
    st.one_of(st.integers(1, 3), st.integers(1, 24)),
    st.sampled_from([30.0, 0.0, 0.02, 0.1, 0.1, 1.0, float("inf")]),
    st.integers(0, 40),
    st.sampled_from(["a", "a", "b", "c"]),
    st.sampled_from([None, None, None, None, "raises", "nonfinite"]),
)
ENDINGS = {"answered", "rejected", "dropped", "expired", "cancelled", "failed", "lost"}


@dataclass(eq=False)
class Account:
    """What the test knows of one request.

    Attributes:
        poisoned: `raises` fails every batch that holds it; `nonfinite` spoils only its own outputs.
        pieces: itself, or its parts.
        waiting, running, apart: its pieces, by where they are.
    """

    request: InferRequest
    poisoned: str | None
    pieces: list[InferRequest] = field(default_factory=list)
    waiting: list[InferRequest] = field(default_factory=list)
    running: set[InferRequest] = field(default_factory=set)
    apart: set[InferRequest] = field(default_factory=set)
    ending: str | None = None

    def end(self, ending: str) -> None:
        assert self.ending is None, f"{self.ending}, then {ending}"
        self.ending = ending
        self.waiting, self.apart = [], set()
        if ending != "rejected":
            assert all(piece.state == DONE for piece in self.pieces), "parts end together"


class SchedulerMachine(RuleBasedStateMachine):
    @initialize(
        max_batch_rows=st.integers(1, 8),
        instances=st.integers(1, 3),
        max_queue_requests=st.sampled_from([1, 4, 64, 64]),
        max_queue_bytes=st.sampled_from([50, 10_000, 10_000]),
        max_queue_delay_s=st.sampled_from([0.0, 0.0, 0.03, 0.5]),
        profile=st.sampled_from(PROFILES),
    )
    def begin(self, profile: list[tuple[int, float]], **bounds: Any) -> None:
        self.profile = profile
        self.policy = Policy(**bounds)
        self.log: deque = deque()
        self.scheduler = Scheduler(self.policy, LatencyModel(profile), log=self.log)
        self.now = 100.0
        self.accounts: dict[InferRequest, Account] = {}
        self.batches: list[Batch] = []
        self.away: set[int] = set()

    # -- events -----------------------------------------------------------------------------------------------

    @rule(arrivals=st.lists(ARRIVALS, min_size=1, max_size=6), admitted=st.booleans())
    def arrive(self, arrivals: list[Arrival], admitted: bool) -> None:
        for arrival in arrivals:
            self.arrive_one(*arrival, admitted)

    def arrive_one(
        self,
        size: int,
        patience_s: float,
        size_bytes: int,
        group: str,
        poisoned: str | None,
        admitted: bool,
    ) -> None:
        rows = min(size, 3 * self.policy.max_batch_rows)
        request = InferRequest((), rows, self.now + patience_s, _never, group, size_bytes)
        account = self.accounts[request] = Account(request, poisoned)
        try:
            if admitted:
                self.scheduler.admit(rows, size_bytes, request.deadline, self.now)
            self.scheduler.arrived(request, self.now, admitted=admitted)
        except (Overloaded, RequestTooLarge) as error:
            too_large = rows > self.policy.max_batch_rows * self.policy.max_queue_requests
            assert too_large if isinstance(error, RequestTooLarge) else error.retry_after_s > 0
            account.end("rejected")
            return
        account.pieces = list(request.parts or [request])
        account.waiting = list(account.pieces)
        assert sum(piece.rows for piece in account.waiting) == rows
        self.check_bounds(account)

    @rule(seconds=st.sampled_from([0.0, 0.001, 0.02, 0.1, 0.3, 5.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: any(account.ending is None for account in self.accounts.values()))
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        account = data.draw(st.sampled_from([a for a in self.accounts.values() if a.ending is None]))
        self.scheduler.cancelled(account.request, self.now)
        account.end("cancelled")

    @rule()
    def expire(self) -> None:
        due = {r for r, a in self.accounts.items() if a.ending is None and r.deadline <= self.now}
        late = self.scheduler.expired(self.now)
        assert len(late) == len(due)
        assert set(late) == due
        for request in late:
            self.accounts[request].end("expired")
        assert self.scheduler.next_deadline() > self.now

    @rule()
    def dispatch(self) -> None:
        while self.scheduler.has_work:
            batch, dropped = self.scheduler.next_batch(self.now)
            for request in dropped:
                self.accounts[request].end("dropped")
            if batch is None:
                break
            self.batches.append(batch)
            self.check_batch(batch)
        all_busy = len(self.batches) + len(self.away) == self.policy.instances
        assert all_busy or not self.pieces("apart"), "an idle instance and a batch to run again"
        starts = [self.starts_at(group) for group in self.groups()]
        assert all_busy or all(start > self.now for start in starts), "an idle instance and work"
        waits = starts and not all_busy
        assert self.scheduler.next_start() == (min(starts) if waits else float("inf"))

    @precondition(lambda self: self.policy.max_queue_delay_s)
    @rule()
    def time_passes_to_the_next_start(self) -> None:
        self.dispatch()
        start = self.scheduler.next_start()
        if start < float("inf"):
            before = len(self.batches), len(self.pieces("waiting"))
            self.now = start
            self.dispatch()
            assert (len(self.batches), len(self.pieces("waiting"))) != before, "nothing started or was dropped"

    @precondition(lambda self: self.batches)
    @rule(data=st.data())
    def batch_ends(self, data: st.DataObject) -> None:
        self.end_batch(data.draw(st.sampled_from(self.batches)))

    @precondition(lambda self: self.batches)
    @rule(data=st.data(), retry=st.sampled_from([True, True, False]))
    def worker_dies_of_a_batch(self, data: st.DataObject, retry: bool) -> None:
        batch = data.draw(st.sampled_from(self.batches))
        self.batches.remove(batch)
        self.away.add(batch.instance)
        pieces = {piece: self.accounts[piece.parent or piece] for piece in batch.requests}
        for piece, account in pieces.items():
            account.running.discard(piece)
        alive = {piece: account for piece, account in pieces.items() if account.ending is None}
        hopeless = {account.request for piece, account in alive.items() if not retry or piece.losses}
        lost = self.scheduler.lost(batch, self.now, retry=retry)
        assert set(lost) == hopeless
        for request in lost:
            self.accounts[request].end("lost")
        for piece, account in alive.items():
            if account.ending is None:
                self.runs_apart(piece, account)

    def runs_apart(self, piece: InferRequest, account: Account) -> None:
        """The rows of a piece take its place, and run once more."""
        before = len(account.pieces)
        known = set(account.pieces)
        account.pieces = list(account.request.parts or [account.request])
        rows = [piece] if piece.rows == 1 else [each for each in account.pieces if each not in known]
        assert len(account.pieces) == before + piece.rows - 1
        assert [each.rows for each in rows] == [1] * piece.rows
        assert all(each.losses == 1 for each in rows)
        account.apart.update(rows)

    @precondition(lambda self: len(self.batches) + len(self.away) < self.policy.instances)
    @rule(data=st.data())
    def idle_worker_dies(self, data: st.DataObject) -> None:
        busy = {batch.instance for batch in self.batches}
        idle = sorted(set(range(self.policy.instances)) - busy - self.away)
        instance = data.draw(st.sampled_from(idle))
        self.away.add(instance)
        self.scheduler.left(instance, self.now)

    @precondition(lambda self: self.away)
    @rule(data=st.data())
    def worker_is_back(self, data: st.DataObject) -> None:
        self.bring_back(data.draw(st.sampled_from(sorted(self.away))))

    def bring_back(self, instance: int) -> None:
        self.away.remove(instance)
        self.scheduler.returned(instance, self.now)

    # -- the engine's part ------------------------------------------------------------------------------------

    def end_batch(self, batch: Batch) -> None:
        self.batches.remove(batch)
        accounts = {piece: self.accounts[piece.parent or piece] for piece in batch.requests}
        for piece, account in accounts.items():
            account.running.discard(piece)
        if any(account.poisoned == "raises" for account in accounts.values()):
            self.batch_fails(batch, accounts)
            return
        for piece in self.scheduler.finished(batch, self.now):
            self.settle(piece, accounts[piece])

    def batch_fails(self, batch: Batch, accounts: dict[InferRequest, Account]) -> None:
        alive = {piece for piece, account in accounts.items() if account.ending is None}
        guilty = self.scheduler.failed(batch, self.now)
        for request in guilty:
            assert self.accounts[request].poisoned == "raises", "only the guilty fail"
            self.accounts[request].end("failed")
        if not guilty:
            for piece in alive:
                accounts[piece].apart.add(piece)

    def settle(self, piece: InferRequest, account: Account) -> None:
        assert account.ending is None, "answered after its end"
        if account.poisoned == "nonfinite":
            self.scheduler.cancelled(account.request, self.now)
            account.end("failed")
        elif not account.waiting and not account.running and not account.apart:
            account.end("answered")

    def pieces(self, place: str) -> list[InferRequest]:
        return [piece for account in self.accounts.values() for piece in getattr(account, place)]

    # -- checks -----------------------------------------------------------------------------------------------

    def check_bounds(self, newest: Account) -> None:
        waiting = self.pieces("waiting")
        alone = len(waiting) == len(newest.waiting)
        assert len(waiting) <= self.policy.max_queue_requests
        assert alone or sum(piece.bytes for piece in waiting) <= self.policy.max_queue_bytes

    def check_batch(self, batch: Batch) -> None:
        assert 1 <= batch.rows == sum(piece.rows for piece in batch.requests) <= self.policy.max_batch_rows
        assert len({piece.group for piece in batch.requests}) == 1
        assert [piece.offset for piece in batch.requests] == [
            sum(other.rows for other in batch.requests[:index]) for index in range(len(batch.requests))
        ]
        for piece in batch.requests:
            assert piece.deadline > self.now, "started at or after its deadline"
            assert self.accounts[piece.parent or piece].ending is None, "started after its end"
            assert not piece.losses or batch.rows == 1, "a suspect runs in company"
        assert batch.instance not in self.away, "started on an instance that is away"
        if any(batch.requests[0] in account.apart for account in self.accounts.values()):
            self.leave("apart", batch)
        else:
            self.check_order(batch)
            self.leave("waiting", batch)

    def check_order(self, batch: Batch) -> None:
        """The most urgent group goes first, and its pieces leave in the order of deadline and arrival."""
        busy_until = self.now + self.scheduler.latency.high(self.policy.max_batch_rows)
        groups = self.groups()
        assert any(self.starts_at(group) <= self.now for group in groups), "none has waited long enough"
        due = [group for group in groups if self.starts_at(group) <= self.now or self.latest(group) <= busy_until]
        if not self.policy.max_queue_delay_s:
            assert due == groups
        group = min(due, key=lambda group: (group[0].deadline, group[0].sequence))
        assert batch.requests == group[: len(batch.requests)]
        following = group[len(batch.requests) :]
        assert not following or batch.rows + following[0].rows > self.policy.max_batch_rows

    def groups(self) -> list[list[InferRequest]]:
        """What waits, each group in the order of deadline and arrival."""
        groups: dict[Any, list[InferRequest]] = {}
        for piece in sorted(self.pieces("waiting"), key=lambda piece: (piece.deadline, piece.sequence)):
            groups.setdefault(piece.group, []).append(piece)
        return list(groups.values())

    def starts_at(self, group: list[InferRequest]) -> float:
        """When a group's batch has to start, by the rules."""
        if not self.policy.max_queue_delay_s or sum(piece.rows for piece in group) >= self.policy.max_batch_rows:
            return float("-inf")
        oldest = min(piece.arrived for piece in group)
        return min(oldest + self.policy.max_queue_delay_s, self.latest(group))

    def latest(self, group: list[InferRequest]) -> float:
        """The last moment at which a full batch, started by a late timer, ends before the earliest deadline."""
        head = group[0]
        spare_s = max(5e-3, 0.25 * (head.deadline - head.arrived))
        return head.deadline - self.scheduler.latency.high(self.policy.max_batch_rows) - spare_s

    def leave(self, place: str, batch: Batch) -> None:
        for piece in batch.requests:
            account = self.accounts[piece.parent or piece]
            getattr(account, place).remove(piece)
            account.running.add(piece)

    @invariant()
    def state_is_sound(self) -> None:
        self.scheduler.validate_state()

    @invariant()
    def counters_equal_reality(self) -> None:
        waiting = self.pieces("waiting") + self.pieces("apart")
        assert self.scheduler.queued_requests == len(waiting)
        assert self.scheduler.queued_rows == sum(piece.rows for piece in waiting)
        assert self.scheduler.running_batches == len(self.batches)
        alive = [request.deadline for request, account in self.accounts.items() if account.ending is None]
        assert self.scheduler.next_deadline() == min(alive, default=float("inf"))

    def teardown(self) -> None:
        if not hasattr(self, "scheduler"):
            return
        for instance in sorted(self.away):
            self.bring_back(instance)
        self.dispatch()
        while self.batches or self.pieces("waiting"):
            if self.batches:
                self.end_batch(self.batches[0])
            else:
                self.now = max(self.now, self.scheduler.next_start())
            self.dispatch()
            self.state_is_sound()
        for account in self.accounts.values():
            assert account.ending in ENDINGS, "every request ends"
            assert account.poisoned is None or account.ending != "answered"
        assert self.scheduler.queued_requests == self.scheduler.queued_rows == 0
        fresh = Scheduler(self.policy, LatencyModel(self.profile))
        assert list(replay(self.log, fresh)) == list(decisions(self.log))


def _never(request: InferRequest) -> None:
    raise AssertionError("the scheduler calls nobody")


TestScheduler = pytest.mark.slow(SchedulerMachine.TestCase)
TestScheduler.settings = settings(max_examples=100, stateful_step_count=40)


def scheduler_with_failing_batch(rows: int, deadline: float) -> tuple[Scheduler, Batch, list[InferRequest]]:
    scheduler = Scheduler(Policy(32), LatencyModel())
    requests = [InferRequest((), 1, deadline, _never) for _ in range(rows)]
    for request in requests:
        scheduler.arrived(request, 0.0)
    batch, _ = scheduler.next_batch(0.0)
    assert batch is not None
    return scheduler, batch, requests


def test_a_request_that_waits_for_its_rerun_is_dropped_at_its_deadline() -> None:
    scheduler, batch, requests = scheduler_with_failing_batch(2, deadline=1.0)
    assert scheduler.failed(batch, 0.5) == []
    assert scheduler.next_batch(1.0) == (None, requests)
    scheduler.validate_state()
    assert scheduler.queued_requests == 0


def test_an_abandoned_half_of_a_failed_batch_does_not_hold_up_the_other() -> None:
    scheduler, batch, requests = scheduler_with_failing_batch(2, deadline=100.0)
    scheduler.failed(batch, 0.0)
    scheduler.cancelled(requests[0], 0.0)
    assert scheduler.queued_requests == scheduler.queued_rows == 1
    again, dropped = scheduler.next_batch(0.0)
    assert again is not None
    assert (again.requests, dropped) == (requests[1:], [])


def test_the_guilty_one_of_32_is_found_in_eleven_batches() -> None:
    scheduler, batch, requests = scheduler_with_failing_batch(32, deadline=100.0)
    poisoned, guilty, answered, batches = requests[20], [], [], 0
    while batch is not None:
        batches += 1
        if poisoned in batch.requests:
            guilty += scheduler.failed(batch, 0.0)
        else:
            answered += scheduler.finished(batch, 0.0)
        batch, _ = scheduler.next_batch(0.0)
    assert guilty == [poisoned]
    assert sorted(answered, key=requests.index) == [each for each in requests if each is not poisoned]
    assert batches == 11


def test_a_request_that_claims_more_rows_than_can_ever_wait_is_refused_before_it_is_cut() -> None:
    scheduler = Scheduler(Policy(64, max_queue_requests=100), LatencyModel([(64, 1e-3)]))
    request = InferRequest((), 1 << 40, 1e9, _never)
    with pytest.raises(RequestTooLarge, match="at most 6400 rows can wait"):
        scheduler.admit(request.rows, 0, request.deadline, 0.0)
    with pytest.raises(RequestTooLarge):
        scheduler.arrived(request, 0.0)
    assert scheduler.queued_requests == 0
    scheduler.arrived(InferRequest((), 6400, 1e9, _never), 0.0)
    assert scheduler.queued_requests == 100


def test_a_refusal_as_too_large_is_logged_and_replayed() -> None:
    log: deque = deque()
    with pytest.raises(RequestTooLarge):
        Scheduler(Policy(1, max_queue_requests=1), LatencyModel(), log=log).arrived(
            InferRequest((), 2, 9.0, _never), 0.0
        )
    assert list(decisions(log)) == [("rejected", 0.0, "request_too_large")]
    assert list(replay(log, Scheduler(Policy(1, max_queue_requests=1), LatencyModel()))) == list(decisions(log))


@pytest.mark.parametrize("rows", [1, 4, 5])
def test_an_idle_scheduler_tests_its_prediction_with_a_request_of_any_size(rows: int) -> None:
    scheduler = Scheduler(Policy(4), LatencyModel([(1, 10.0), (4, 10.0)]))
    scheduler.arrived(InferRequest((), rows, 100.5, _never), 100.0)
    with pytest.raises(Overloaded):
        scheduler.arrived(InferRequest((), rows, 100.5, _never), 100.0)
    batch, dropped = scheduler.next_batch(100.0)
    assert batch is not None
    assert not dropped


def test_the_rows_of_a_large_request_are_run_apart_and_joined_in_order() -> None:
    scheduler = Scheduler(Policy(4), LatencyModel())
    whole = InferRequest((np.arange(6),), 6, 100.0, _never)
    scheduler.arrived(whole, 0.0)
    batch, _ = scheduler.next_batch(0.0)
    assert batch is not None
    assert scheduler.lost(batch, 0.0) == []
    scheduler.returned(batch.instance, 0.0)
    seen = []
    while (batch := scheduler.next_batch(0.0)[0]) is not None:
        seen += [int(request.inputs[0][0]) for request in batch.requests]
        scheduler.finished(batch, 0.0)
    assert seen == [0, 1, 2, 3, 4]
    assert [part.inputs[0].tolist() for part in whole.parts or ()] == [[0], [1], [2], [3], [4, 5]]
    assert whole.unjoined == 5


def test_an_instance_that_is_away_is_not_counted_on() -> None:
    scheduler = Scheduler(Policy(1, instances=2), LatencyModel([(1, 1.0)]))
    for _ in range(6):
        scheduler.arrived(InferRequest((), 1, 100.0, _never), 0.0)
    before = scheduler.predicted_drain_s(0.0)
    scheduler.left(0, 0.0)
    assert scheduler.predicted_drain_s(0.0) == 2 * before
