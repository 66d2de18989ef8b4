"""Which flags does `paceline bench` have, and how are their values read?

Rules:
- A value is read by the rule of its quantity; what is wrong with it is a usage error.
- Flags stand in `--help` under what they are about.
- Nothing is imported for them that takes long to load.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

import click

from paceline.core.errors import ConfigError
from paceline.loadtest.quantities import parse_duration, parse_range, parse_rate, parse_slo
from paceline.loadtest.target import PROTOCOLS

_F = TypeVar("_F", bound=Callable[..., Any])
_T = TypeVar("_T")
_MOST_USERS: Final = 10_000
_LEAST_DURATION_S: Final = 0.1
_LEAST_TIMEOUT_S: Final = 1e-3
KINDS: Final = ("constant", "poisson", "gamma", "mmpp", "diurnal", "black-friday", "trace")


class Quantity(click.ParamType[_T], Generic[_T]):
    """A value that is read by a function of its text."""

    def __init__(self, name: str, parse: Callable[[str], _T]) -> None:
        self.name = name
        self._parse = parse

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return self.name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> _T:
        if not isinstance(value, str):
            return value  # type: ignore[no-any-return] # a default
        try:
            return self._parse(value)
        except ConfigError as error:
            self.fail(error.message + (f" ({error.hint})" if error.hint else ""), param, ctx)


def _listed(parse: Callable[[str], _T]) -> Callable[[str], tuple[_T, ...]]:
    return lambda text: tuple(parse(part) for part in text.split(","))


def _users(text: str) -> int:
    count = int(text) if text.strip().isdecimal() else 0
    if not 1 <= count <= _MOST_USERS:
        raise ConfigError(f"expected numbers from 1 to {_MOST_USERS}, such as 1,5,20, got {text!r}")
    return count


def _from(least_s: float) -> Callable[[str], float]:
    return lambda text: parse_duration(text, least_s=least_s)


def _rate_list(text: str) -> tuple[float, ...]:
    """Rates such as `100,200,400/s`: a unit at the end is that of all before."""
    parts = [part.strip() for part in text.split(",")]
    _, slash, unit = parts[-1].partition("/")
    return tuple(parse_rate(part if "/" in part else f"{part}{slash}{unit}") for part in parts)


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip() or any(sign in text for sign in "\r\n"):
        raise ConfigError(f"expected 'Name: value', got {text!r}")
    return name.strip(), value.strip()


_FILE: Final = click.Path(path_type=Path, dir_okay=False)
_DURATION: Final = Quantity("TIME", parse_duration)
_SHARE: Final = click.FloatRange(0.0, 1.0)
_option = click.option
SECTIONS: Final[dict[str, tuple[Callable[[Any], Any], ...]]] = {
    "What to send": (
        _option("--model", metavar="NAME", help="Which model.  [default: the only one]"),
        _option("--protocol", type=click.Choice(PROTOCOLS), help="[default: what the server speaks]"),
        _option("--rows", type=click.IntRange(1, 100_000), default=1, help="Rows in each request.  [default: 1]"),
        _option("--data", type=_FILE, help="Rows from a file: .jsonl, .json, .csv, .npy, .npz.  [default: made up]"),
        _option("--body", type=_FILE, multiple=True, help="A whole body, sent as it is. Several: in turn."),
        _option("--content-type", metavar="TYPE", help="Of --body.  [default: as the file is called]"),
        _option(
            "-H", "--header", "headers", type=Quantity("'NAME: VALUE'", _header), multiple=True, help="Sent along."
        ),
        _option("--replay", type=_FILE, help='Requests of JSON lines: {"at": seconds, "body": ...}.'),
    ),
    "Users, who wait for their answers": (
        _option("--users", type=Quantity("N,N,...", _listed(_users)), help="How many; a step for each number."),
        _option(
            "--think", type=Quantity("TIME..TIME", parse_range), help="Between answer and next request, such as 1s..3s."
        ),
    ),
    "A rate, whatever becomes of the answers": (
        _option("--rate", type=Quantity("RATE,...", _rate_list), help="Such as 200/s; a step for each."),
        _option("--arrivals", metavar="KIND", help=f"{', '.join(KINDS)}.  [default: poisson]"),
        _option(
            "--cv", type=float, metavar="NUMBER", help="gamma: how uneven the gaps are; 1 is poisson.  [default: 2]"
        ),
        _option(
            "--burst-factor",
            type=float,
            metavar="NUMBER",
            help="mmpp: rate in bursts over the rate outside.  [default: 5]",
        ),
        _option(
            "--burst-share", type=_SHARE, metavar="SHARE", help="mmpp: of the time that is in bursts.  [default: 0.1]"
        ),
        _option("--burst-length", type=_DURATION, help="mmpp: mean length of a burst.  [default: 1s]"),
        _option("--period", type=_DURATION, help="diurnal: length of a day.  [default: the step]"),
        _option(
            "--peak",
            type=float,
            metavar="NUMBER",
            help="diurnal, black-friday: highest rate over the mean, over the quiet.",
        ),
        _option("--peak-at", type=_SHARE, metavar="SHARE", help="black-friday: when, of the step.  [default: 0.3]"),
        _option(
            "--ramp", type=_SHARE, metavar="SHARE", help="black-friday: up to the peak, of the step.  [default: 0.02]"
        ),
        _option("--decay", type=_SHARE, metavar="SHARE", help="black-friday: time constant after it.  [default: 0.2]"),
        _option("--trace", type=_FILE, help="Arrivals from a file: a time on each line, CSV or JSON lines."),
        _option(
            "--time-scale",
            type=click.FloatRange(0, min_open=True),
            metavar="NUMBER",
            help="Of --trace and --replay: 0.1 plays an hour in six minutes.",
        ),
        _option("--connections", type=click.IntRange(1, 60_000), help="The most at once.  [default: 1000]"),
    ),
    "How long": (
        _option(
            "--duration",
            type=Quantity("TIME", _from(_LEAST_DURATION_S)),
            help="Of each step.  [default: 10s; as long as a trace]",
        ),
        _option("--warm-up", type=_DURATION, help="Before each step counts.  [default: 1s]"),
        _option(
            "--timeout",
            type=Quantity("TIME", _from(_LEAST_TIMEOUT_S)),
            default=30.0,
            help="For each request.  [default: 30s]",
        ),
        _option(
            "--seed",
            type=click.IntRange(0),
            default=0,
            help="The same arrivals and bodies again.  [default: 0]",
        ),
    ),
    "What it is for": (
        _option("--find-capacity", is_flag=True, help="Find the highest rate that keeps --slo."),
        _option("--slo", type=Quantity("pN=TIME", parse_slo), help="Such as p99=50ms; counts the goodput, too."),
        _option("--baseline", type=_FILE, help="What --output wrote before, to compare with."),
        _option(
            "--fail-if",
            multiple=True,
            metavar="RULE",
            help="End with code 1: p99+10%, rate-5%, p99>50ms, errors>1%. Several: any.",
        ),
    ),
    "What comes out": (
        _option("--report", type=_FILE, help="Write an HTML page with charts."),
        _option("--markdown", type=_FILE, help="Write a summary, for a pull request."),
        _option("--output", type=_FILE, help="Write the result as JSON."),
        _option("--json", "as_json", is_flag=True, help="Print the result as JSON."),
        _option("--quiet", is_flag=True, help="Say nothing while it runs."),
        _option("--live/--no-live", default=True, help="Draw on the terminal while it runs, and read keys."),
        _option("--debug", is_flag=True, help="Tracebacks."),
    ),
    "Locust": (
        _option(
            "--engine", type=click.Choice(["paceline", "locust"]), default="paceline", help="What sends the requests."
        ),
        _option("--locustfile", type=_FILE, help="Write a locustfile for this server, and test nothing."),
        _option("--force", is_flag=True, help="Over a locustfile that is there."),
    ),
}


def with_flags(function: _F) -> _F:
    """Add all of them."""
    for options in reversed(SECTIONS.values()):
        for option in reversed(options):
            function = option(function)
    return function


class BenchCommand(click.Command):
    """Shows its flags under the headings of `SECTIONS`."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        params = [param for param in self.get_params(ctx) if isinstance(param, click.Option)]
        shown = iter([record for param in params if (record := param.get_help_record(ctx)) is not None])
        for heading, options in SECTIONS.items():
            with formatter.section(heading):
                formatter.write_dl([next(shown) for _ in options])
        with formatter.section("Other"):
            formatter.write_dl(list(shown))
