"""What one replica asks all the others: the question goes out, the answers are collected, within a deadline."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

from paceline.supervisor.lines import Document
from paceline.supervisor.replica import Replica

State = Callable[[Collection[Replica]], Document]
"""What the supervisor itself has to say, given who has been heard."""


@dataclass
class _Question:
    asker: Replica
    number: int
    until: float
    open: set[Replica]
    leaving: frozenset[Replica]
    state: State
    answers: dict[Replica, Any] = field(default_factory=dict)


class Questions:
    """The questions that wait for answers."""

    def __init__(self) -> None:
        self._open: dict[int, _Question] = {}
        self._numbers = itertools.count(1)

    def ask(
        self,
        asker: Replica,
        document: Document,
        asked: Iterable[Replica],
        leaving: Iterable[Replica],
        state: State,
    ) -> None:
        """Pass a question on.

        Args:
            leaving: those whose place a successor has taken.
            state: called when all is answered, so that nothing is told twice or not at all.
        """
        number = next(self._numbers)
        until = time.monotonic() + float(document["timeout_s"])
        question = _Question(asker, int(document["number"]), until, set(asked), frozenset(leaving), state)
        self._open[number] = question
        for other in list(question.open):
            other.tell("answer", number=number, topic=document["topic"], about=document["about"])
        self._close_if_done(number)

    def answered(self, replica: Replica, document: Document) -> None:
        """Take an answer."""
        question = self._open.get(document["number"])
        if question is not None and replica in question.open:
            question.open.discard(replica)
            question.answers[replica] = document["answer"]
            self._close_if_done(document["number"])

    def forget(self, replica: Replica) -> None:
        """It is gone: it will not answer any more, nor want an answer; what it had counted is told by the state."""
        for number, question in list(self._open.items()):
            if question.asker is replica:
                del self._open[number]
            elif replica in question.open or replica in question.answers:
                question.open.discard(replica)
                question.answers[replica] = None
                self._close_if_done(number)

    def expire(self, now: float) -> None:
        """Give up on answers that are late."""
        for number, question in list(self._open.items()):
            if question.until <= now:
                question.answers.update(dict.fromkeys(question.open))
                question.open.clear()
                self._close_if_done(number)

    def next_deadline(self) -> float:
        """When `expire` has something to do."""
        return min((question.until for question in self._open.values()), default=float("inf"))

    def _close_if_done(self, number: int) -> None:
        question = self._open[number]
        if question.open:
            return
        del self._open[number]
        heard = {question.asker, *(replica for replica, said in question.answers.items() if said is not None)}
        answers = [[replica.slot, replica in question.leaving, said] for replica, said in question.answers.items()]
        question.asker.tell("answers", number=question.number, answers=answers, state=question.state(heard))
