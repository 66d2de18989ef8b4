"""What waits, and in which order?

Rules:
- Earliest deadline first; first come, first served where deadlines are equal.
- Only requests of one group share a batch; the group whose head is most urgent goes first.
- Requests, rows and bytes are counted, so that each can have a bound.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Hashable, Iterator

from paceline.core.requests import QUEUED, InferRequest


def _deadline(request: InferRequest) -> float:
    return request.deadline


class DeadlineQueue:
    """Requests in groups, each sorted by deadline.

    Clients nearly always send the same timeout, so a newcomer goes to the end: appending is the fast path.
    """

    __slots__ = ("_groups", "bytes", "requests", "rows")

    def __init__(self) -> None:
        self._groups: dict[Hashable, deque[InferRequest]] = {}
        self.requests = 0
        self.rows = 0
        self.bytes = 0

    def push(self, request: InferRequest) -> None:
        """Add a request behind all those whose deadline is not later."""
        group = self._groups.get(request.group)
        if group is None:
            self._groups[request.group] = deque((request,))
        elif request.deadline >= group[-1].deadline:
            group.append(request)
        else:
            group.insert(bisect_right(group, request.deadline, key=_deadline), request)
        self.requests += 1
        self.rows += request.rows
        self.bytes += request.bytes

    def remove(self, request: InferRequest) -> None:
        """Take a request out from wherever it stands."""
        group = self._groups[request.group]
        group.remove(request)
        self._forget(request, group)

    def pop(self, group: deque[InferRequest]) -> InferRequest:
        """Take the head of `group`."""
        request = group.popleft()
        self._forget(request, group)
        return request

    def take(self, group: deque[InferRequest], max_rows: int) -> tuple[list[InferRequest], int]:
        """Take heads of `group` while their rows fit into `max_rows`; the requests and their rows."""
        requests: list[InferRequest] = []
        rows = size_bytes = 0
        while group:
            following = rows + group[0].rows
            if following > max_rows:
                break
            rows = following
            request = group.popleft()
            size_bytes += request.bytes
            requests.append(request)
        if not group:
            del self._groups[requests[0].group]
        self.requests -= len(requests)
        self.rows -= rows
        self.bytes -= size_bytes
        return requests, rows

    def next_group(self, now: float) -> deque[InferRequest] | None:
        """The most urgent group, sorted by deadline; None when nothing waits."""
        groups = self._groups
        if not groups:
            return None
        if len(groups) == 1:
            return next(iter(groups.values()))
        return min(groups.values(), key=lambda group: (group[0].deadline, group[0].sequence))

    def next_start(self) -> float:
        """When to ask again for a group that had none to serve; infinity: only once something has happened."""
        return float("inf")

    def earliest_deadline(self) -> float:
        """Absolute seconds; infinity when nothing waits."""
        return min((group[0].deadline for group in self._groups.values()), default=float("inf"))

    def expired(self, now: float) -> list[InferRequest]:
        """Take out every request whose deadline is not after `now`."""
        late = []
        for group in list(self._groups.values()):
            while group and group[0].deadline <= now:
                late.append(self.pop(group))
        return late

    def validate_state(self) -> None:
        """Check that counters and order agree with what is held.

        Raises:
            AssertionError: a defect in the queue.
        """
        held = list(self)
        assert self.requests == len(held)
        assert self.rows == sum(request.rows for request in held)
        assert self.bytes == sum(request.bytes for request in held)
        assert all(request.state == QUEUED for request in held)
        for key, group in self._groups.items():
            order = [(request.deadline, request.sequence) for request in group]
            assert order == sorted(order)
            assert group
            assert all(request.group == key for request in group)

    def __iter__(self) -> Iterator[InferRequest]:
        for group in self._groups.values():
            yield from group

    def _forget(self, request: InferRequest, group: deque[InferRequest]) -> None:
        if not group:
            del self._groups[request.group]
        self.requests -= 1
        self.rows -= request.rows
        self.bytes -= request.bytes
