"""When do requests arrive, whatever becomes of those before?

Rules:
- A process yields its instants in blocks, so that an hour of them takes no more memory than a second.
- What is random comes from the generator that is passed in: the same seed gives the same arrivals.
- The mean rate is the one that was asked for, whatever the pattern; each kind says over which time.
- Gaps are drawn from their whole distribution: none is cut off, neither the short ones nor the long ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from paceline.core.errors import ConfigError
from paceline.loadtest import trace_file

_BLOCK: Final = 4096
Times = NDArray[np.float64]
"""Seconds since the start of the step, shape [n]."""


class Arrivals(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind"):
    """A point process.

    Attributes:
        rate: mean arrivals per second; > 0.

    Raises:
        ConfigError: a parameter is out of its range.
    """

    rate: float

    def __post_init__(self) -> None:
        self._check("rate", self.rate > 0, "more than 0")

    def blocks(self, duration_s: float, random: np.random.Generator) -> Iterator[Times]:
        """Instants that do not decrease, from 0 and below `duration_s`; a block may be empty."""
        for block in self._endless(duration_s, random):
            if block.size and block[-1] >= duration_s:
                yield block[block < duration_s]
                return
            yield block

    def _endless(self, duration_s: float, random: np.random.Generator) -> Iterator[Times]:
        """Blocks that may go on beyond the duration."""
        raise NotImplementedError

    def _check(self, name: str, ok: bool, expected: str) -> None:
        value = getattr(self, name)
        if not (ok and math.isfinite(value)):
            raise ConfigError(f"{self.__struct_config__.tag} arrivals: {name}: expected {expected}, got {value:g}")


class Constant(Arrivals, frozen=True, tag="constant"):
    """Evenly spaced, the first one at 0: as many as asked for in any whole number of gaps."""

    def _endless(self, duration_s: float, random: np.random.Generator) -> Iterator[Times]:
        begin = 0
        while True:  # counted, not summed up: an hour of gaps adds up no rounding
            yield np.arange(begin, begin + _BLOCK) / self.rate
            begin += _BLOCK


class Poisson(Arrivals, frozen=True, tag="poisson"):
    """Independent of one another, as of many users who know nothing of each other. Mean over any time."""

    def _endless(self, duration_s: float, random: np.random.Generator) -> Iterator[Times]:
        yield from _renewals(0.0, lambda: random.exponential(1.0 / self.rate, _BLOCK))


class Gamma(Arrivals, frozen=True, tag="gamma"):
    """Independent gaps that vary more than a Poisson process's, or less. Mean over any time.

    Attributes:
        cv: standard deviation of a gap over its mean: 0.5 is nearly regular, 1 is Poisson, 3 comes in clumps.
    """

    cv: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("cv", 0.01 <= self.cv <= 100, "0.01 to 100")

    def _endless(self, duration_s: float, random: np.random.Generator) -> Iterator[Times]:
        shape, scale = self.cv**-2, self.cv**2 / self.rate
        # The step starts at no arrival but at some instant, which falls into a gap in proportion to its length, and
        # anywhere in it. With a gap as any other in this place, clumpy arrivals would begin with a clump.
        rest_s = random.uniform() * random.gamma(shape + 1.0, scale)
        yield np.array([rest_s])
        yield from _renewals(rest_s, lambda: random.gamma(shape, scale, _BLOCK))


class Mmpp(Arrivals, frozen=True, tag="mmpp"):
    """A Poisson process of two rates, between which it changes at random: quiet, burst, quiet, ...

    A Markov-modulated Poisson process: how long it stays in either is exponential. Mean over many bursts.

    Attributes:
        burst_factor: rate in a burst over the rate outside.
        burst_share: of the time that is in bursts.
        burst_s: mean length of a burst.
    """

    burst_factor: float = 5.0
    burst_share: float = 0.1
    burst_s: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("burst_factor", self.burst_factor >= 1, "1 or more")
        self._check("burst_share", 0 < self.burst_share < 1, "a share between 0 and 1")
        self._check("burst_s", self.burst_s >= 1e-3, "0.001 or more")

    def _endless(self, duration_s: float, random: np.random.Generator) -> Iterator[Times]:
        quiet_rate = self.rate / (1.0 - self.burst_share + self.burst_share * self.burst_factor)
        rates = np.array([quiet_rate, quiet_rate * self.burst_factor])
        mean_s = np.array([self.burst_s * (1.0 / self.burst_share - 1.0), self.burst_s])
        states = (np.arange(256) + int(random.uniform() < self.burst_share)) % 2
        begin_s = 0.0
        while begin_s < duration_s:
            stays_s = random.exponential(mean_s[states])
            times = begin_s + np.cumsum(np.append(0.0, stays_s))
            yield from _poisson_along(times, np.cumsum(np.append(0.0, stays_s * rates[states])), random)
            begin_s = float(times[-1])


class _Shaped(Arrivals, frozen=True):
    """A Poisson process whose rate follows a curve over the whole step; mean over the whole step."""

    def expected(self, times: Times, duration_s: float) -> Times:
        """Mean number of arrivals up to each of `times`, of a step that takes `duration_s`."""
        whole = float(self._area(np.array([duration_s]), duration_s)[0])
        return self.rate * duration_s / whole * self._area(times, duration_s)

    def _endless(self, duration_s: float, random: np.random.Generator) -> Iterator[Times]:
        pieces = math.ceil(duration_s / self._piece_s(duration_s))
        for begin in range(0, pieces, _BLOCK):
            times = np.arange(begin, min(begin + _BLOCK, pieces) + 1, dtype=np.float64) * (duration_s / pieces)
            yield from _poisson_along(times, self.expected(times, duration_s), random)

    def _area(self, times: Times, duration_s: float) -> Times:
        """Under the curve, from 0 to each of `times`, in any unit."""
        raise NotImplementedError

    def _piece_s(self, duration_s: float) -> float:
        """Over so long the curve is as good as flat."""
        raise NotImplementedError


class Diurnal(_Shaped, frozen=True, tag="diurnal"):
    """Days: a sinusoid that starts at its lowest.

    Attributes:
        period_s: length of a day; 0: the whole step.
        peak: highest rate over the mean; 1 to 2.
    """

    period_s: float = 0.0
    peak: float = 1.8

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("period_s", self.period_s == 0 or self.period_s >= 0.1, "0.1 or more, or 0")
        self._check("peak", 1 <= self.peak <= 2, "1 to 2 (a sinusoid is as far below its mean as above)")

    def _area(self, times: Times, duration_s: float) -> Times:
        turn = 2.0 * math.pi / (self.period_s or duration_s)
        area: Times = times - (self.peak - 1.0) * np.sin(turn * times) / turn
        return area

    def _piece_s(self, duration_s: float) -> float:
        return min(self.period_s or duration_s, duration_s) / 512.0


class BlackFriday(_Shaped, frozen=True, tag="black-friday"):
    """Quiet, then the doors open: a steep ramp to a peak, and a slow decay.

    Attributes:
        peak: highest rate over that of the quiet time.
        at: when it is reached, as a share of the step.
        ramp: how long it takes to get there, as a share of the step.
        decay: time constant of the way back, as a share of the step.
    """

    peak: float = 10.0
    at: float = 0.3
    ramp: float = 0.02
    decay: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("peak", self.peak >= 1, "1 or more")
        self._check("at", 0 < self.at < 1, "a share between 0 and 1")
        self._check("ramp", 1e-4 <= self.ramp <= self.at, f"a share from 0.0001 up to `at`, {self.at:g}")
        self._check("decay", self.decay >= 1e-4, "0.0001 or more")

    def _area(self, times: Times, duration_s: float) -> Times:
        share = times / duration_s
        climbed = np.clip(share - (self.at - self.ramp), 0.0, self.ramp)
        fallen = self.decay * -np.expm1(-np.maximum(share - self.at, 0.0) / self.decay)
        return share + (self.peak - 1.0) * (climbed**2 / (2.0 * self.ramp) + fallen)

    def _piece_s(self, duration_s: float) -> float:
        return duration_s * min(self.ramp, self.decay, 1.0) / 64.0


class Trace(Arrivals, frozen=True, tag="trace"):
    """Arrivals that were recorded; it ends with its last one. Mean from the first to the last.

    Attributes:
        instants: seconds since the first, ascending, as little-endian doubles.
        copies: mean number of arrivals at each instant. Below 1 some are left out at random; above 1 the further
            ones are spread at random up to the next instant.
    """

    instants: bytes
    copies: float = 1.0

    @classmethod
    def of(cls, instants: Times, rate: float | None = None, time_scale: float | None = None) -> Trace:
        """Play these instants, which do not decrease.

        Args:
            rate: mean to play them at. Without a time scale the clock runs faster or slower for it; with one, arrivals
                are left out or added.
            time_scale: seconds that one recorded second takes; 0.1 plays an hour in six minutes.

        Raises:
            ConfigError: fewer than two instants, no time between first and last, or a scale that is none.
        """
        instants = np.asarray(instants, "<f8")
        if instants.size < 2 or not instants[-1] > instants[0]:
            raise ConfigError("trace arrivals: expected two or more instants that differ, got fewer")
        if time_scale is not None and not 0 < time_scale < math.inf:
            raise ConfigError(f"trace arrivals: time_scale: expected more than 0, got {time_scale:g}")
        recorded = (instants.size - 1) / float(instants[-1] - instants[0])
        wanted = recorded / (time_scale or 1.0) if rate is None else rate
        if not 0 < wanted < math.inf:
            raise ConfigError(f"trace arrivals: rate: expected more than 0, got {wanted:g}")
        scale = time_scale or recorded / wanted
        return cls(rate=wanted, instants=((instants - instants[0]) * scale).tobytes(), copies=wanted * scale / recorded)

    @property
    def span_s(self) -> float:
        """From the first to the last."""
        return float(np.frombuffer(self.instants, "<f8")[-1])

    def _endless(self, duration_s: float, random: np.random.Generator) -> Iterator[Times]:
        every = np.frombuffer(self.instants, "<f8")
        for begin in range(0, every.size, _BLOCK):
            yield self._copied(every[begin : begin + _BLOCK + 1], random)

    def _copied(self, instants: Times, random: np.random.Generator) -> Times:
        """The arrivals at up to `_BLOCK` instants; one further instant bounds the last gap."""
        here = instants[:_BLOCK]
        if math.isclose(self.copies, 1.0, rel_tol=1e-9):
            return here
        counts = np.floor(self.copies + random.uniform(size=here.size)).astype(np.int64)
        gaps_s = np.diff(instants, append=instants[-1])[: here.size]
        first = np.repeat(np.cumsum(counts) - counts, counts) == np.arange(counts.sum())
        return np.sort(np.repeat(here, counts) + np.repeat(gaps_s, counts) * random.uniform(size=first.size) * ~first)


AnyArrivals = Constant | Poisson | Gamma | Mmpp | Diurnal | BlackFriday | Trace
"""What a step may have."""

_KINDS: Final[dict[str, type[Arrivals]]] = {
    str(kind.__struct_config__.tag): kind for kind in (Constant, Poisson, Gamma, Mmpp, Diurnal, BlackFriday, Trace)
}
KINDS: Final = tuple(_KINDS)
"""What `parse` takes."""


def parse(kind: str, rate: float | None, **options: Any) -> AnyArrivals:
    """Arrivals as the command line has them.

    Args:
        kind: one of `KINDS`.
        rate: mean arrivals per second; None only for a trace: as it was recorded.
        options: attributes of the kind; a trace takes `file` and `time_scale`. Those that are None were not given.

    Raises:
        ConfigError: no such kind, an option that the kind does not have, a value out of its range, or no such trace.
    """
    if kind not in _KINDS:
        raise ConfigError(f"arrivals: expected one of {', '.join(KINDS)}, got {kind!r}", hint=_hint(kind))
    given = {name: value for name, value in options.items() if value is not None}
    known = ("file", "time_scale") if kind == "trace" else set(_KINDS[kind].__struct_fields__) - {"rate"}
    for name in given:
        if name not in known:
            takes = f"takes {', '.join(sorted(known))}" if known else "takes nothing but a rate"
            raise ConfigError(f"{kind} arrivals: {name} has no meaning here", hint=f"{kind} {takes}")
    if kind == "trace":
        return _recorded(rate, **given)
    if rate is None:
        raise ConfigError(f"{kind} arrivals need a rate", hint="such as --rate 200/s")
    return _KINDS[kind](rate=rate, **given)  # type: ignore[return-value] # those of AnyArrivals


def _recorded(rate: float | None, file: Path | str | None = None, time_scale: float | None = None) -> Trace:
    if file is None:
        raise ConfigError("trace arrivals need a file of instants")
    return Trace.of(trace_file.read(Path(file)), rate, time_scale)


def _hint(kind: str) -> str | None:
    close = get_close_matches(kind, KINDS, n=1)
    return f"did you mean {close[0]!r}?" if close else None


def _renewals(begin_s: float, gaps: Any) -> Iterator[Times]:
    """Arrivals after `begin_s` with these gaps, for ever."""
    while True:
        block = begin_s + np.cumsum(gaps())
        begin_s = float(block[-1])
        yield block


def _poisson_along(times: Times, expected: Times, random: np.random.Generator) -> Iterator[Times]:
    """A Poisson process with that mean number of arrivals up to each of `times`, linear in between.

    By change of time: where the mean number grows by one, an exponential gap of mean one passes. It has no memory, so
    each stretch may begin anew.
    """
    at, end = float(expected[0]), float(expected[-1])
    while at < end:
        size = min(_BLOCK, int(1.1 * (end - at)) + 16)
        levels = at + np.cumsum(random.exponential(1.0, size))
        at = float(levels[-1])
        yield np.interp(levels[levels < end], expected, times)
