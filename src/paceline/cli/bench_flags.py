"""What was asked of `paceline bench`, and what contradicts itself?

Flags that exclude each other, or that say nothing without another, are refused with the reason and with what to leave
out or to add; none is silently ignored.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, NamedTuple

import click
import msgspec

from paceline.loadtest.result import Slo


class _Clash(NamedTuple):
    """Two flags that exclude each other."""

    first: str
    second: str
    why: str


_WAITING: Final = "users wait for their answers, and a rate does not"
_SEARCHES: Final = "--find-capacity chooses the rates itself"
_ONE_SOURCE: Final = "requests come from one place"
_RECORDED: Final = "--replay has its own arrivals"
_WHEN: Final = "the file says when requests arrive"
_NO_RATES: Final = "Locust has users, and no rates"
_CLASHES: Final = (
    *(_Clash("users", other, _WAITING) for other in ("rate", "arrivals", "trace")),
    *(_Clash("find_capacity", other, _SEARCHES) for other in ("users", "rate", "arrivals", "trace", "replay")),
    *(_Clash("replay", other, _RECORDED) for other in ("users", "arrivals", "trace")),
    _Clash("data", "body", _ONE_SOURCE),
    _Clash("data", "replay", _ONE_SOURCE),
    _Clash("body", "replay", _ONE_SOURCE),
    *(
        _Clash(locust, other, _NO_RATES)
        for locust in ("locustfile", "engine")
        for other in ("rate", "arrivals", "trace", "replay", "find_capacity")
    ),
)
_KINDS: Final = {
    "cv": "gamma",
    **dict.fromkeys(("burst_factor", "burst_share", "burst_length"), "mmpp"),
    "period": "diurnal",
    **dict.fromkeys(("peak", "peak_at", "ramp", "decay"), "black-friday"),
}
"""The kind of arrivals that a flag is about, or one of them."""
_NEEDS: Final[dict[str, tuple[str, ...]]] = {
    "think": ("users", "locustfile"),
    "arrivals": ("rate", "trace"),
    **dict.fromkeys(_KINDS, ("arrivals",)),
    "time_scale": ("trace", "replay"),
    "connections": ("rate", "trace", "replay", "find_capacity"),
    "find_capacity": ("slo",),
    "baseline": ("fail_if",),
    "content_type": ("body", "replay"),
    "force": ("locustfile",),
}
"""What a flag is about: any of these has to be there, too."""
_EXAMPLES: Final = {
    "users": "--users 1,5,20",
    "rate": "--rate 200/s",
    "slo": "--slo p99=50ms",
    "fail_if": "--fail-if p99+10%",
    "as_json": "--json",
}


class Flags(msgspec.Struct, frozen=True, kw_only=True):
    """Everything but the target. What was not given is None, or empty."""

    model: str | None
    protocol: str | None
    rows: int
    data: Path | None
    body: tuple[Path, ...]
    content_type: str | None
    headers: tuple[tuple[str, str], ...]
    replay: Path | None
    users: tuple[int, ...] | None
    think: tuple[float, float] | None
    rate: tuple[float, ...] | None
    duration: float | None
    warm_up: float | None
    timeout: float
    connections: int | None
    seed: int
    arrivals: str | None
    cv: float | None
    burst_factor: float | None
    burst_share: float | None
    burst_length: float | None
    period: float | None
    peak: float | None
    peak_at: float | None
    ramp: float | None
    decay: float | None
    trace: Path | None
    time_scale: float | None
    find_capacity: bool
    slo: Slo | None
    baseline: Path | None
    fail_if: tuple[str, ...]
    engine: str
    locustfile: Path | None
    force: bool
    report: Path | None
    markdown: Path | None
    output: Path | None
    as_json: bool
    quiet: bool
    live: bool
    debug: bool

    @property
    def arrival_options(self) -> dict[str, Any]:
        """Those of the kind of arrivals, by the names that `arrivals.parse` has for them."""
        return {
            "cv": self.cv,
            "burst_factor": self.burst_factor,
            "burst_share": self.burst_share,
            "burst_s": self.burst_length,
            "period_s": self.period,
            "peak": self.peak,
            "at": self.peak_at,
            "ramp": self.ramp,
            "decay": self.decay,
            "file": self.trace,
            "time_scale": None if self.replay else self.time_scale,
        }

    def given(self) -> set[str]:
        """The flags, by their names here, that say something."""
        values = msgspec.structs.asdict(self)
        values["engine"] = self.engine != "paceline"
        return {name for name, value in values.items() if value is not None and value is not False and value != ()}


def check(flags: Flags) -> None:
    """Find what contradicts itself.

    Raises:
        click.UsageError: it says what to leave out, or to add.
    """
    given = flags.given()
    for first, second, why in _CLASHES:
        if first in given and second in given:
            raise click.UsageError(f"{_flag(first)} and {_flag(second)}: {why}; leave one of the two out.")
    for name, others in _NEEDS.items():
        if name in given and given.isdisjoint(others):
            known = {**_EXAMPLES, "arrivals": f"--arrivals {_KINDS.get(name, 'KIND')}"}
            wanted = " or ".join(known.get(other, _flag(other)) for other in others)
            raise click.UsageError(f"{_flag(name)} says nothing without {wanted}: add that, or leave it out.")
    if flags.trace and flags.arrivals not in (None, "trace"):
        raise click.UsageError(f"--trace and --arrivals {flags.arrivals}: {_WHEN}; leave one of the two out.")
    if flags.arrivals == "trace" and flags.trace is None:
        raise click.UsageError("--arrivals trace says nothing without --trace FILE: add that.")


def _flag(name: str) -> str:
    return "--engine locust" if name == "engine" else f"--{name.replace('_', '-')}"
