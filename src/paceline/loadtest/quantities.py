"""How are rates, times and promises written on the command line?

Rules:
- A rate is per second unless it says otherwise: `200`, `200/s`, `12k/h`, `90/min`.
- A time is in seconds unless it says otherwise: `60`, `60s`, `5m`, `1.5h`, `500ms`, `20us`.
- A latency says its unit: `p99=50` would be fifty seconds, which every server keeps and nobody means.
"""

from __future__ import annotations

import math
import re
from typing import Final

from paceline.core.errors import ConfigError
from paceline.loadtest.result import Slo

_SECONDS: Final = {
    "us": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "min": 60.0,
    "h": 3600.0,
    "d": 86400.0,
}
_FACTORS: Final = {"": 1.0, "k": 1e3, "M": 1e6}
_NUMBER: Final = r"(\d+(?:\.\d*)?|\.\d+)"
_RATE: Final = re.compile(rf"{_NUMBER}\s*([kM]?)\s*(?:/\s*(s|m|min|h|d))?")
_DURATION: Final = re.compile(rf"{_NUMBER}\s*(us|ms|s|m|min|h|d)?")
_SLO: Final = re.compile(rf"p{_NUMBER}\s*(?:<=?|=)\s*(.+)")


def parse_rate(text: str) -> float:
    """Per second; more than 0.

    Raises:
        ConfigError: it is no rate.
    """
    match = _RATE.fullmatch(text.strip())
    rate = float(match[1]) * _FACTORS[match[2]] / _SECONDS[match[3] or "s"] if match else 0.0
    if not 0 < rate < math.inf:
        raise ConfigError(f"expected a rate such as 200/s, 90/min or 12k/h, got {text!r}")
    return rate


def parse_duration(text: str, *, least_s: float = 0.0) -> float:
    """Seconds.

    Raises:
        ConfigError: it is no time, or shorter than `least_s`.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ConfigError(f"expected a time such as 60s, 5m or 500ms, got {text!r}")
    duration_s = float(match[1]) * _SECONDS[match[2] or "s"]
    if not least_s <= duration_s < math.inf:
        raise ConfigError(f"expected a time of {least_s:g} s or more, got {text!r}")
    return duration_s


def parse_latency(text: str, *, least_s: float = 0.0) -> float:
    """Milliseconds, of a time that says its unit.

    Raises:
        ConfigError: it is no time, has no unit, or is shorter than `least_s`.
    """
    if re.fullmatch(_NUMBER, text.strip()):
        raise ConfigError(f"expected a time with its unit, such as {text.strip()}ms, got {text!r}")
    return parse_duration(text, least_s=least_s) * 1e3


def parse_range(text: str) -> tuple[float, float]:
    """Shortest and longest time of `1s..3s` or `1..3s`; of `2s`, twice the same.

    Raises:
        ConfigError: it is no such range, or ends before it begins.
    """
    first, dots, last = (part.strip() for part in text.partition(".."))
    longest = parse_duration(last if dots else first)
    unit = re.search(r"[a-z]*$", last)
    if dots and unit and re.fullmatch(_NUMBER, first):
        first += unit[0]
    shortest = parse_duration(first)
    if shortest > longest:
        raise ConfigError(f"expected the shorter time first, got {text!r}")
    return shortest, longest


def parse_slo(text: str) -> Slo:
    """A promise such as `p99=50ms`, also written `p99<50ms`.

    Raises:
        ConfigError: it is none.
    """
    match = _SLO.fullmatch(text.strip())
    if match is None or not 0 < float(match[1]) < 100:
        raise ConfigError(f"expected a percentile and a time such as p99=50ms, got {text!r}")
    return Slo(percentile=float(match[1]), latency_ms=parse_latency(match[2], least_s=1e-6))
