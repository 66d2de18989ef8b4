"""Which process serves which slot, and who accepts for a slot whose own process does not?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from paceline.core.backoff import Backoff
from paceline.supervisor.replica import Replica

NEVER: Final = float("inf")


@dataclass(eq=False)
class Slot:
    """The place of one process.

    Attributes:
        successor: of a restart, until it is ready.
        adopted_by: the neighbour that accepts here.
        start_at: when to start a process, in monotonic seconds.
        deaths: how often its process has died.
    """

    number: int
    current: Replica | None = None
    successor: Replica | None = None
    adopted_by: Replica | None = None
    start_at: float = NEVER
    backoff: Backoff = field(default_factory=Backoff)
    deaths: int = 0

    @property
    def is_served(self) -> bool:
        """True when its own process accepts."""
        return self.current is not None and self.current.is_ready


class Slots:
    """All slots of a server.

    Attributes:
        leaving: those whose place a successor has taken, until they have gone.
    """

    def __init__(self, count: int) -> None:
        self._slots = [Slot(number) for number in range(count)]
        self.leaving: set[Replica] = set()

    def __iter__(self) -> Iterator[Slot]:
        return iter(self._slots)

    def __len__(self) -> int:
        return len(self._slots)

    def of(self, replica: Replica) -> Slot:
        """The slot of a process."""
        return self._slots[replica.slot]

    @property
    def alive(self) -> list[Replica]:
        """Every process that has not been seen to end."""
        of_slots = [replica for slot in self._slots for replica in (slot.current, slot.successor) if replica]
        return [*of_slots, *self.leaving]

    @property
    def serving(self) -> list[Replica]:
        """The process of each slot that has one, ready or not."""
        return [slot.current for slot in self._slots if slot.current is not None]

    @property
    def next_moment(self) -> float:
        """When something is due: a start, or the end of somebody's patience."""
        starts = (slot.start_at for slot in self._slots)
        return min([*starts, *(replica.until for replica in self.alive)])

    def cover(self) -> None:
        """Let a neighbour accept for each slot whose own process does not, yet or any more."""
        ready = next((each for each in self.serving if each.is_ready), None)
        for slot in self._slots:
            if ready is not None and slot.adopted_by is None and not slot.is_served:
                slot.adopted_by = ready
                ready.tell("adopt", slot=slot.number)

    def release(self, slot: Slot) -> None:
        """A slot's own process accepts again."""
        if slot.adopted_by is not None:
            slot.adopted_by.tell("release", slot=slot.number)
            slot.adopted_by = None

    def disown(self, neighbour: Replica) -> None:
        """A process accepts nowhere any more."""
        for slot in self._slots:
            if slot.adopted_by is neighbour:
                slot.adopted_by = None

    def retire(self, slot: Slot) -> None:
        """The successor takes the place of the one that served."""
        old, slot.current, slot.successor = slot.current, slot.successor, None
        if old is not None:
            self.leaving.add(old)
            self.disown(old)
            old.leave("retire")
