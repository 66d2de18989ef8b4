"""The supervisor and the other replicas, as this process sees them.

Rules:
- What the supervisor says is done between requests, on the event loop; what this process wants of the others goes
  through the supervisor, has a deadline, and is answered with what came until then.
- When the supervisor is gone, so is the reason for this process: it drains and ends.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import socket
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

from paceline.supervisor import VARIABLE
from paceline.supervisor.lines import Document, Lines

ANSWER_S: Final = 1.0
# Of the supervisor's own deadline there should be an answer even when somebody else's is late.
_SPARE_S: Final = 0.5

Answers = dict[str, Any]
"""By number of the replica; None for one that did not answer."""


class Owner(Protocol):
    """Who does what the supervisor says."""

    def go(self) -> None:
        """All are ready, or this one is to replace another: accept, and say that you are ready."""

    def adopt(self, slot: int) -> None:
        """Accept what comes to another slot."""

    def release(self, slot: int) -> None:
        """Leave that slot to its own process again."""

    def leave(self, *, retire: bool) -> None:
        """Go: because a successor serves, or because all is over."""


class Supervised:
    """This end of the control socket.

    Attributes:
        slot: number of this replica.
        first: it was started with all the others, and accepts at once.
        sockets: the listening sockets of every slot.
    """

    def __init__(self, told: Document) -> None:
        self.slot: int = told["slot"]
        self.first: bool = told["first"]
        self.sockets = [[socket.socket(fileno=number) for number in each] for each in told["sockets"]]
        self._lines = Lines(socket.socket(fileno=told["control"]))
        self._answerers: dict[str, Callable[[Any], Awaitable[Any]]] = {}
        self._waiting: dict[int, asyncio.Future[Document]] = {}
        self._numbers = itertools.count(1)
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    def from_environment(cls) -> Supervised | None:
        """The supervisor that started this process, if one did."""
        told = os.environ.pop(VARIABLE, None)
        return None if told is None else cls(json.loads(told))

    @property
    def replicas(self) -> int:
        """How many processes share the port."""
        return len(self.sockets)

    @property
    def speaks(self) -> bool:
        """True for the one of the replicas that shows the panel."""
        return self.first and self.slot == 0

    # -- what this process says -------------------------------------------------------------------------------

    def ready(self) -> None:
        """All models are warm."""
        self._lines.send({"say": "ready"})

    def problem(self, text: str, hint: str | None = None) -> None:
        """It will not become ready, or not soon."""
        self._lines.send({"say": "problem", "text": text, "hint": hint})

    def totals(self, families: list[dict[str, Any]]) -> None:
        """What this process has counted in its life."""
        self._lines.send({"say": "totals", "families": families})

    async def ask(self, topic: str, about: Any = None, timeout_s: float = ANSWER_S) -> tuple[Answers, Document]:
        """Ask all other replicas; their answers, and what the supervisor adds."""
        number = next(self._numbers)
        waiting = self._waiting[number] = asyncio.get_running_loop().create_future()
        said = {"say": "ask", "number": number, "topic": topic, "about": about, "timeout_s": timeout_s}
        try:
            if not self._lines.send(said):
                return {}, {}
            document = await asyncio.wait_for(waiting, timeout_s + _SPARE_S)
        except TimeoutError:
            return {}, {}
        finally:
            del self._waiting[number]
        return document["answers"], document["state"]

    def answers(self, topic: str, answerer: Callable[[Any], Awaitable[Any]]) -> None:
        """Answer the questions of other replicas with what `answerer` makes of what they ask about."""
        self._answerers[topic] = answerer

    # -- what it hears ----------------------------------------------------------------------------------------

    def listen(self, owner: Owner) -> None:
        """Do what the supervisor says, from now on."""
        asyncio.get_running_loop().add_reader(self._lines.fileno(), self._hear, owner)

    def _hear(self, owner: Owner) -> None:
        documents = self._lines.receive()
        if documents is None:
            asyncio.get_running_loop().remove_reader(self._lines.fileno())
            owner.leave(retire=False)
            return
        for document in documents:
            self._on_word(owner, document)

    def _on_word(self, owner: Owner, document: Document) -> None:
        match document["do"]:
            case "go":
                owner.go()
            case "adopt":
                owner.adopt(document["slot"])
            case "release":
                owner.release(document["slot"])
            case "retire":
                owner.leave(retire=True)
            case "stop":
                owner.leave(retire=False)
            case "answer":
                task = asyncio.get_running_loop().create_task(self._answer(document))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            case "answers":
                waiting = self._waiting.get(document["number"])
                if waiting is not None and not waiting.done():
                    waiting.set_result(document)

    async def _answer(self, document: Document) -> None:
        answerer = self._answerers.get(document["topic"])
        answer = None if answerer is None else await answerer(document["about"])
        self._lines.send({"say": "answer", "number": document["number"], "answer": answer})
