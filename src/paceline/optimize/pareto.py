"""Which candidates would nobody give up? Those that no other beats in speed without being worse."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from paceline.optimize.measure import WORTH_IT
from paceline.optimize.result import Speed, Tried

_TAKING_PART: Final = ("baseline", "accepted")
_SAME: Final = "same answers"


def speed_at(tried: Tried, batch: int) -> Speed | None:
    """How fast it is with such batches, where that was measured."""
    return next((each for each in tried.speeds if each.batch == batch), None)


def front(tried: Sequence[Tried], batch: int) -> list[Tried]:
    """Of what may be served: the fastest, and each that is better than all that are faster; fastest first.

    Better is what the gate's difference says: the metric's, with its sign turned where smaller is better.
    """
    able = [each for each in tried if each.status in _TAKING_PART and speed_at(each, batch) is not None]
    found: list[Tried] = []
    for each in sorted(able, key=lambda one: (-_ratio(one, batch), -_quality(one))):
        if not found or _quality(each) > _quality(found[-1]):
            found.append(each)
    return found


def best(tried: Sequence[Tried], batch: int) -> Tried:
    """What is served: the fastest; of those nearly as fast, one that answers as the original does, or the best."""
    able = [each for each in tried if each.status in _TAKING_PART and speed_at(each, batch) is not None]
    fastest = max(_ratio(each, batch) for each in able)
    near = [each for each in able if _ratio(each, batch) * WORTH_IT >= fastest]
    return max(near, key=lambda each: (_is_same(each), _quality(each), _ratio(each, batch)))


def _ratio(tried: Tried, batch: int) -> float:
    speed = speed_at(tried, batch)
    return 0.0 if speed is None else speed.ratio


def _quality(tried: Tried) -> float:
    return 0.0 if tried.judgement is None else tried.judgement.difference


def _is_same(tried: Tried) -> bool:
    return tried.judgement is None or tried.judgement.method == _SAME
