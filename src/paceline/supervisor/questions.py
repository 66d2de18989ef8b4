"""What one replica asks all the others: the question goes out, the answers are collected, within a deadline."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from paceline.supervisor.lines import Document
from paceline.supervisor.replica import Replica


@dataclass
class _Question:
    asker: Replica
    number: int
    until: float
    open: set[Replica]
    state: Document
    answers: dict[str, Any] = field(default_factory=dict)


class Questions:
    """The questions that wait for answers."""

    def __init__(self) -> None:
        self._open: dict[int, _Question] = {}
        self._numbers = itertools.count(1)

    def ask(self, asker: Replica, document: Document, others: Iterable[Replica], state: Document) -> None:
        """Pass a question on.

        Args:
            state: what the supervisor itself has to say.
        """
        number = next(self._numbers)
        until = time.monotonic() + float(document["timeout_s"])
        question = _Question(asker, int(document["number"]), until, set(others), state)
        self._open[number] = question
        for other in list(question.open):
            other.tell("answer", number=number, topic=document["topic"], about=document["about"])
        self._close_if_done(number)

    def answered(self, replica: Replica, document: Document) -> None:
        """Take an answer."""
        question = self._open.get(document["number"])
        if question is not None and replica in question.open:
            question.open.discard(replica)
            question.answers[str(replica.slot)] = document["answer"]
            self._close_if_done(document["number"])

    def forget(self, replica: Replica) -> None:
        """It will not answer any more, nor want an answer."""
        for number, question in list(self._open.items()):
            if question.asker is replica:
                del self._open[number]
            elif replica in question.open:
                question.open.discard(replica)
                question.answers[str(replica.slot)] = None
                self._close_if_done(number)

    def expire(self, now: float) -> None:
        """Give up on answers that are late."""
        for number, question in list(self._open.items()):
            if question.until <= now:
                for late in question.open:
                    question.answers[str(late.slot)] = None
                question.open.clear()
                self._close_if_done(number)

    def next_deadline(self) -> float:
        """When `expire` has something to do."""
        return min((question.until for question in self._open.values()), default=float("inf"))

    def _close_if_done(self, number: int) -> None:
        question = self._open[number]
        if not question.open:
            del self._open[number]
            question.asker.tell("answers", number=question.number, answers=question.answers, state=question.state)
