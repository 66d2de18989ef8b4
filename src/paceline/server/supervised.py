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
from typing import Any, Final, NamedTuple, Protocol

from paceline.supervisor import VARIABLE
from paceline.supervisor.lines import Document, Lines
from paceline.supervisor.merging import METRICS, Families, of_the_past

ANSWER_S: Final = 1.0
# Of the supervisor's own deadline there should be an answer even when somebody else's is late.
_SPARE_S: Final = 0.5

# So long the last words may take.
_LAST_WORDS_S: Final = 2.0


class Answer(NamedTuple):
    """What another replica said.

    Attributes:
        slot: its number.
        leaving: a successor has taken its place.
        said: None when it did not answer in time.
    """

    slot: int
    leaving: bool
    said: Any


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
        leaving: a successor has taken the place of this one.
    """

    def __init__(self, told: Document) -> None:
        self.slot: int = told["slot"]
        self.first: bool = told["first"]
        self.sockets = [[socket.socket(fileno=number) for number in each] for each in told["sockets"]]
        self.leaving = False
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

    def ready(self, lame_duck_s: float, grace_s: float) -> None:
        """All models are warm; and how long this process may take to leave, some day."""
        self._say({"say": "ready", "lame_duck_s": lame_duck_s, "grace_s": grace_s})

    def problem(self, text: str, hint: str | None = None, *, fatal: bool = False) -> None:
        """It will not become ready, or not soon; or, a fatal one, it ends."""
        self._lines.send({"say": "problem", "text": text, "hint": hint, "fatal": fatal})

    def draining(self) -> None:
        """It will soon accept no more."""
        self._say({"say": "draining"})

    def ended(self, counted: Families) -> None:
        """The last words: what this process has counted in its life."""
        self._lines.send({"say": "ended", "counted": counted})
        self._lines.finish(_LAST_WORDS_S)

    def close_ports(self) -> None:
        """A socket is listened on as long as one process has it open."""
        for each in self.sockets:
            for sock in each:
                sock.close()

    async def ask(
        self,
        topic: str,
        about: Any = None,
        timeout_s: float = ANSWER_S,
        *,
        leaving: bool = True,
        counted: Families | None = None,
    ) -> tuple[list[Answer], Document]:
        """Ask all other replicas; their answers, and what the supervisor adds: nothing when it does not answer.

        Args:
            leaving: ask those, too, that have a successor and finish what they began.
            counted: what this replica has counted so far, for the supervisor to keep.
        """
        number = next(self._numbers)
        waiting = self._waiting[number] = asyncio.get_running_loop().create_future()
        said = {"say": "ask", "number": number, "topic": topic, "about": about, "timeout_s": timeout_s}
        more = {} if counted is None else {"counted": counted}
        try:
            if not self._say({**said, "leaving": leaving, **more}):
                return [], {}
            document = await asyncio.wait_for(waiting, timeout_s + _SPARE_S)
        except TimeoutError:
            return [], {}
        finally:
            del self._waiting[number]
        return [Answer(*each) for each in document["answers"]], document["state"]

    def _say(self, document: Document) -> bool:
        heard = self._lines.send(document)
        if self._lines.has_unsent:
            asyncio.get_running_loop().add_writer(self._lines.fileno(), self._flush)
        return heard

    def _flush(self) -> None:
        self._lines.flush()
        if not self._lines.has_unsent:
            asyncio.get_running_loop().remove_writer(self._lines.fileno())

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
                self.leaving = True
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
        said = {"say": "answer", "number": document["number"], "answer": None}
        try:
            said["answer"] = None if answerer is None else await answerer(document["about"])
            if document["topic"] == METRICS:
                said["counted"] = of_the_past(said["answer"])
        finally:  # whatever it was, the others need not wait for it
            self._say(said)
