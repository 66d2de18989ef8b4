"""Single flight: which items have to run, and which can wait for an equal one that is under way?

Rules:
- Items are equal when their bytes are.
- A call is admitted like any request for what it adds, and not at all for what runs anyway. Riders are bounded, too.
- Every call keeps its own deadline. A flight has that of the call it started for, and goes on as long as anybody
  waits for it; when it ends early, refused or late, its riders start anew.
- An item that fails, fails for all who wait for it. When several fail together, their halves fly apart until the
  guilty ones stand alone.
- It reads no clock and knows no event loop: `Runs` does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import numpy as np

from paceline.core.errors import BAD_OUTPUT, DeadlineExceeded, ModelFailed, Overloaded, PacelineError
from paceline.core.requests import RUNNING, InferRequest
from paceline.core.tensors import Array, column
from paceline.engine.calls import FIRST, Call, Flight, Item, Rows, Wanted
from paceline.engine.prediction_cache import Kept, LookUp
from paceline.engine.riders import Riders


class Runs(Protocol):
    """Where flights run."""

    def admit_rows(self, rows: int, size_bytes: int, deadline: float) -> None:
        """Check whether so much could be queued now.

        Raises:
            Overloaded, RequestTooLarge: it could not.
        """

    def run(self, flight: Flight, *, admitted: bool) -> None:
        """Queue a flight; its `on_done` is called later.

        Raises:
            Overloaded: it was not queued.
        """

    def drop(self, flight: Flight) -> None:
        """Nobody waits for it any more."""

    def end(self, call: Call) -> None:
        """A call has its outputs or its error."""

    def look_by(self, deadline: float) -> None:
        """Call `expire` then."""

    def soon(self, callback: Callable[..., object], *arguments: object) -> None:
        """Call it later, in this pass of the event loop or the next."""


class Flights:
    """The flights of one model.

    Args:
        share: let equal items run once.
        most_rows: of a flight.
        most_riders, most_rider_bytes: bounds on the calls that wait for flights of others.
        landed: told of each prediction: its item, and itself.
        look_up: looks for predictions that are kept elsewhere.

    Attributes:
        shared: rows that have waited for an equal item.
    """

    def __init__(
        self,
        runs: Runs,
        *,
        share: bool,
        most_rows: int,
        most_riders: int,
        most_rider_bytes: int,
        landed: Callable[[bytes, bytes], None] | None = None,
        look_up: LookUp | None = None,
    ) -> None:
        self._runs = runs
        self._share = share
        self._most_rows = most_rows
        self._riders = Riders(most_riders, most_rider_bytes, runs.look_by)
        self._landed_item = landed
        self._look_up = look_up
        self._under_way: dict[bytes, Item] = {}
        self._looked_for = 0
        self.shared = 0

    @property
    def idle(self) -> bool:
        """True when no item is looked for, and no call waits for another's flight."""
        return not self._looked_for and not self._riders

    # -- calls in ---------------------------------------------------------------------------------------------

    def take_one(self, call: Call, text: bytes) -> None:
        """`take` for a call of one item, which most are."""
        if self._look_up is not None or text in self._under_way:
            self.take(call, ((text, FIRST),))
            return
        flight = Flight(call.inputs, 1, call.deadline, self._landed, None, call.bytes)
        flight.starter = call
        item = Item(text, call, FIRST)
        self._runs.run(flight, admitted=False)
        item.flight = flight
        call.items = flight.items = (item,)
        if self._share:
            self._under_way[text] = item

    def take(self, call: Call, wanted: Wanted) -> None:
        """Let a call wait for items, which start as far as they have to; `Runs.end` is called later.

        Raises:
            Overloaded, RequestTooLarge: it does not wait for any.
        """
        new: list[Item] = []
        riding: list[tuple[Item, Rows]] = []
        for text, rows in wanted:
            item = self._under_way.get(text)
            if item is None:
                new.append(Item(text, call, rows))
            else:
                riding.append((item, rows))
        if riding:
            self._riders.admit(call)
        if new:
            self._start(call, new)
            if call.rows > 1:
                self.shared += sum([len(item.waiting[call]) - 1 for item in new])
        for item, rows in riding:
            self._ride(call, item, rows)
        call.items = (*(call.items or ()), *new, *[item for item, _ in riding])

    def leave(self, call: Call) -> None:
        """A call waits no more."""
        items, call.items = call.items or (), None
        self._riders.remove(call)
        flights: dict[Flight, None] = {}
        for item in items:
            if item.waiting.pop(call, None) is None or item.waiting:
                continue
            if item.flight is not None:
                flights[item.flight] = None
            elif self._under_way.get(item.text) is item:
                del self._under_way[item.text]  # still looked for; nobody would start it
        for flight in flights:
            if not any(item.waiting for item in flight.items):
                self._take_off_the_list(flight.items)
                self._runs.drop(flight)

    def expire(self, now: float) -> None:
        """End the riders whose deadline has passed. Whoever rides nowhere, is the scheduler's to end."""
        for call in self._riders.late(now):
            assert isinstance(call, Call)
            self._fail(call, DeadlineExceeded("Request timeout expired"))

    # -- items to flights -------------------------------------------------------------------------------------

    def _start(self, call: Call, items: list[Item]) -> None:
        if self._look_up is not None and self._look_up(
            [item.text for item in items], lambda outcomes: self._looked_up(call, items, outcomes)
        ):
            self._looked_for += 1
            self._put_on_the_list(items)
        else:
            self._fly(call, items)

    def _looked_up(self, call: Call, items: list[Item], outcomes: Sequence[Kept | None]) -> None:
        """It is known which predictions are kept: give those, and start the rest."""
        self._looked_for -= 1
        missed = []
        for item, kept in zip(items, outcomes, strict=True):
            if kept is not None:
                self._take_off_the_list([item])
                self._settle_kept(item, kept)
            elif item.waiting:
                missed.append(item)
        if not missed:
            return
        starter = call if call in missed[0].waiting else _last(missed)
        try:
            self._fly(starter, missed)
        except PacelineError as error:
            self._not_run(missed, starter, error)

    def _fly(self, call: Call, items: list[Item]) -> None:
        """Start flights with these items, on behalf of a call.

        Raises:
            Overloaded, RequestTooLarge, ModelFailed: none of them has started.
        """
        if call.rows == 1 and len(items) == 1:
            self._run(call, items, call.bytes, admitted=False)
            self._put_on_the_list(items)
            return
        self._runs.admit_rows(len(items), call.bytes, call.deadline)
        self._put_on_the_list(items)
        for start in range(0, len(items), self._most_rows):
            part = items[start : start + self._most_rows]
            try:
                self._run(call, part, call.bytes * len(part) // len(items), admitted=True)
            except PacelineError as error:  # the others are on their way
                self._runs.soon(self._not_run, part, call, error)

    def _run(self, call: Call, items: Sequence[Item], size_bytes: int, *, admitted: bool) -> None:
        own = len(items) == 1 and call.rows == 1 and call in items[0].waiting
        inputs = call.inputs if own else (column([item.text for item in items]),)
        flight = Flight(inputs, len(items), call.deadline, self._landed, None, size_bytes)
        flight.items = items
        flight.starter = call
        self._runs.run(flight, admitted=admitted)
        for item in items:
            item.flight = flight

    def _put_on_the_list(self, items: Iterable[Item]) -> None:
        if self._share:
            for item in items:
                self._under_way[item.text] = item

    def _take_off_the_list(self, items: Iterable[Item]) -> None:
        for item in items:
            item.flight = None
            if self._under_way.get(item.text) is item:
                del self._under_way[item.text]

    # -- riders -----------------------------------------------------------------------------------------------

    def _ride(self, call: Call, item: Item, rows: Rows) -> None:
        self.shared += len(rows)
        item.waiting[call] = rows
        self._riders.add(call)
        flight = item.flight
        if flight is None or flight.state is not RUNNING or flight.parts is not None:
            return  # what a dead worker lost runs in parts, which keep the deadline that they were cut with
        if flight.deadline < call.deadline:
            # It runs anyway: it shall not be given up while somebody still has time.
            flight.deadline = call.deadline
            if flight.starter.items is not None:
                self._riders.add(flight.starter)

    # -- flights to outcomes ----------------------------------------------------------------------------------

    def _landed(self, request: InferRequest) -> None:
        assert isinstance(request, Flight)
        items, error = request.items, request.error
        if error is None and len(items) == 1 and self._landed_alone(request, items[0]):
            return
        self._take_off_the_list(items)
        if error is None:
            assert request.outputs is not None
            outcomes = request.outputs[0].tolist()
            for index, item in enumerate(items):
                self._settle(item, outcomes[index], request)
        elif len(items) == 1 and not isinstance(error, Overloaded | DeadlineExceeded):
            self._settle(items[0], error, request)
        elif isinstance(error, ModelFailed):
            self._isolate(items, error)
        elif isinstance(error, DeadlineExceeded):
            self._start_anew(items, lambda call: call.deadline <= request.deadline, error)
        else:
            self._start_anew(items, lambda call: call is request.starter, error)

    def _landed_alone(self, flight: Flight, item: Item) -> bool:
        """What most flights are, in a third of the time: one item, for one call of one row. False: it is not that."""
        if len(item.waiting) != 1:
            return False
        (call,) = item.waiting
        outputs = flight.outputs
        assert outputs is not None
        prediction = outputs[0][0]
        if call.rows != 1 or type(prediction) is not bytes:
            return False
        item.flight = None
        if self._under_way.get(item.text) is item:
            del self._under_way[item.text]
        if self._landed_item is not None:
            self._landed_item(item.text, prediction)
        call.service_s, call.queue_s, call.batch_rows = flight.service_s, flight.queue_s, flight.batch_rows
        call.items = None
        self._riders.remove(call)
        call.outputs = outputs
        self._runs.end(call)
        return True

    def _settle(self, item: Item, outcome: bytes | PacelineError, flight: Flight) -> None:
        if self._landed_item is not None and isinstance(outcome, bytes):
            self._landed_item(item.text, outcome)
        waiting, item.waiting = item.waiting, {}
        for call, rows in waiting.items():
            call.service_s += flight.service_s
            if call.queue_s < flight.queue_s:
                call.queue_s = flight.queue_s
            if call.batch_rows < flight.batch_rows:
                call.batch_rows = flight.batch_rows
            self._give(call, rows, outcome)

    def _not_run(self, items: Sequence[Item], starter: Call, error: PacelineError) -> None:
        """A flight with these items was refused."""
        self._take_off_the_list(items)
        if not isinstance(error, ModelFailed):
            self._start_anew(items, lambda call: call is starter, error)
        elif len(items) > 1:
            self._isolate(items, error)
        else:
            waiting, items[0].waiting = items[0].waiting, {}
            for call, rows in waiting.items():
                self._give(call, rows, error)

    def _settle_kept(self, item: Item, kept: Kept) -> None:
        waiting, item.waiting = item.waiting, {}
        for call, rows in waiting.items():
            call.kept_rows += len(rows)
            call.age_s = max(call.age_s, kept.age_s)
            self._give(call, rows, kept.prediction)

    def _isolate(self, items: Sequence[Item], error: ModelFailed) -> None:
        """Items have failed together: their halves run, which were admitted with the whole.

        Where the predictions were too many or too few, a half could get as many as it wants by chance: each runs alone.
        """
        wanted = [item for item in items if item.waiting]
        middle = (len(wanted) + 1) // 2
        pieces = [[item] for item in wanted] if error.code == BAD_OUTPUT else [wanted[:middle], wanted[middle:]]
        for piece in pieces:
            if piece:
                self._run_piece(piece)

    def _run_piece(self, items: Sequence[Item]) -> None:
        starter = _last(items)
        self._put_on_the_list(items)
        for item in items:
            for call in item.waiting:
                self._riders.add(call)
        try:
            self._run(starter, items, 0, admitted=True)
        except PacelineError as error:
            self._not_run(items, starter, error)

    def _start_anew(self, items: Sequence[Item], is_over: Callable[[Call], bool], error: PacelineError) -> None:
        """A flight came to nothing: that ends some of the calls that wait for it, and the others try again."""
        left: dict[Call, list[tuple[bytes, Rows]]] = {}
        for item in items:
            waiting, item.waiting = item.waiting, {}
            for call, rows in waiting.items():
                left.setdefault(call, []).append((item.text, rows))
        # The last deadline first: its flight is the one that the others may ride to their end.
        for call in sorted(left, key=lambda call: -call.deadline):
            if call.items is None:
                continue  # it has left, because another was told
            if is_over(call):
                self._fail(call, error)
                continue
            try:
                self.take(call, left[call])
            except PacelineError as refusal:
                self._fail(call, refusal)

    # -- outcomes to calls ------------------------------------------------------------------------------------

    def _give(self, call: Call, rows: Rows, outcome: bytes | PacelineError) -> None:
        if call.items is None:
            return  # it has ended meanwhile
        answers = call.answers
        if answers is None:
            answers = np.empty(1, object)
        for row in rows:
            answers[row] = outcome
        if isinstance(outcome, PacelineError):
            call.row_error = call.row_error or outcome
        call.missing -= 1
        if not call.missing:
            self.finish(call, answers)

    def finish(self, call: Call, answers: Array) -> None:
        """Every row of a call has its outcome."""
        if call.row_error is not None and not call.errors_by_row:
            self._fail(call, call.row_error)
            return
        call.items = None
        self._riders.remove(call)
        call.outputs = (answers,)
        self._runs.end(call)

    def _fail(self, call: Call, error: PacelineError) -> None:
        self.leave(call)
        call.error = error
        self._runs.end(call)


def _last(items: Iterable[Item]) -> Call:
    """Of the calls that wait, the one with the last deadline."""
    return max([call for item in items for call in item.waiting], key=lambda call: call.deadline)
