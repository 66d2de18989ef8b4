"""A repository that every replica has: what one is asked to change, all change."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any, Final

from paceline.core.errors import InstanceLost, InvalidRequest, PacelineError
from paceline.engine.repository import Asked, IndexRow, Repository
from paceline.engine.sources import Source
from paceline.server.supervised import Supervised

_CHANGE_S: Final = 300.0


class SharedRepository:
    """See `Repository`, whose methods these are."""

    def __init__(self, own: Repository, supervised: Supervised) -> None:
        self._own = own
        self._supervised = supervised
        if not supervised.first:
            own.inherit = self._asked_of_others
        supervised.answers("asked", self._tell_asked)
        supervised.answers("load", lambda about: _outcome(own.load(about)))
        supervised.answers("unload", lambda about: _outcome(own.unload(about)))
        supervised.answers("reload", lambda about: _outcome(own.reload([Source(*each) for each in about])))

    @property
    def mode(self) -> str:
        """`poll`, `explicit` or `none`."""
        return self._own.mode

    def index(self) -> list[IndexRow]:
        """As this replica has it."""
        return self._own.index()

    async def load(self, name: str) -> None:
        """See `Repository.load`."""
        await self._own.load(name)
        await self._by_all("load", name)

    async def unload(self, name: str) -> None:
        """See `Repository.unload`."""
        await self._own.unload(name)
        await self._by_all("unload", name)

    async def reload(self, sources: Sequence[Source]) -> None:
        """See `Repository.reload`."""
        await self._own.reload(sources)
        await self._by_all("reload", [list(source) for source in sources])

    async def _asked_of_others(self) -> Asked | None:
        answers, _ = await self._supervised.ask("asked")
        known = next((said for _, _, said in answers if said is not None), None)
        if known is None:
            return None
        names, sources = known
        return Asked(names, None if sources is None else [Source(*each) for each in sources])

    async def _tell_asked(self, _: object) -> Asked | None:
        return self._own.asked()

    async def _by_all(self, topic: str, about: Any) -> None:
        answers, _ = await self._supervised.ask(topic, about, _CHANGE_S, leaving=False)
        for slot, _, said in answers:
            if said:
                raise InvalidRequest(f"replica {slot}: {said}")
        done = {self._supervised.slot, *(slot for slot, _, said in answers if said is not None)}
        for slot in range(self._supervised.replicas):
            if slot not in done:
                raise InstanceLost(f"replica {slot} did not answer: it may not have done the same")


AnyRepository = Repository | SharedRepository


async def _outcome(change: Awaitable[None]) -> str:
    """What went wrong; empty when nothing did."""
    try:
        await change
    except PacelineError as error:
        return error.message
    return ""
