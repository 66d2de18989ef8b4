"""What is a step of a load test: which load, and for how long?"""

from __future__ import annotations

import math

import msgspec

from paceline.loadtest.arrivals import AnyArrivals


class Users(msgspec.Struct, frozen=True, kw_only=True, tag="users"):
    """A closed loop: each user sends, waits for the answer, thinks, and sends again.

    Attributes:
        count: connections, each with at most one request under way.
        think_s: shortest and longest time between an answer and the next request, drawn uniformly.
    """

    count: int
    think_s: tuple[float, float] = (0.0, 0.0)


class OpenLoop(msgspec.Struct, frozen=True, kw_only=True, tag="open"):
    """Requests are due when they are due, whether or not earlier ones were answered."""

    arrivals: AnyArrivals


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One load, held for a while.

    Attributes:
        warmup_s: at the same load before it counts.
        duration_s: that counts.
        timeout_s: for each request, from when it was due.
        connections: the most at once, of an open loop.
        backlog: the most requests that wait in the client for a connection; one more is `unsent`.
        give_up: end it as soon as it can no longer meet the SLO.
    """

    load: Users | OpenLoop
    warmup_s: float = 1.0
    duration_s: float = 10.0
    timeout_s: float = 30.0
    connections: int = 1000
    backlog: int = 10_000
    seed: int = 0
    give_up: bool = False


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """Another load for the rest of a step.

    Attributes:
        factor: of the rate of an open loop, against the one that was asked for.
        users: of a closed loop.
    """

    factor: float = 1.0
    users: int = 0


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """What the generator says of itself at the end of a step.

    Attributes:
        cpu: cores that its process took while it counted; 1.0 is all that it can use.
        wall_s: how long it counted; 0.0 if the step was ended during its warm-up.
        dropped: samples that were lost because nobody took them.
        waited: share of the time in which it would have run, had other processes not had the cores.
        late_p99_s: how late it was itself at most for 99 % of the requests, while it counted; what waits for a
            connection is not its own lateness. Not a number where nothing is known of it.
    """

    cpu: float
    wall_s: float
    dropped: int = 0
    waited: float = 0.0
    late_p99_s: float = math.nan
