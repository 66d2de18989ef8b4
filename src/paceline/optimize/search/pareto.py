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
    found: list[Tried] = []
    for each in sorted(_able(tried, batch), key=lambda one: (-_ratio(one, batch), -_quality(one))):
        if not found or _quality(each) > _quality(found[-1]):
            found.append(each)
    return found


def fastest(tried: Sequence[Tried], batch: int) -> Tried:
    """Of what may be served."""
    return max(_able(tried, batch), key=lambda each: _ratio(each, batch))


def best(tried: Sequence[Tried], batch: int) -> Tried:
    """What is served: the fastest; of those nearly as fast, one that answers as the original does, or the best."""
    able = _able(tried, batch)
    first = fastest(tried, batch)
    near = [each for each in able if _ratio(each, batch) * WORTH_IT >= _ratio(first, batch)]
    return max(near, key=lambda each: (answers_as_before(each), _quality(each), _ratio(each, batch)))


def answers_as_before(tried: Tried) -> bool:
    """True when the gate found no difference to the original."""
    return tried.judgement is None or tried.judgement.method == _SAME


def _able(tried: Sequence[Tried], batch: int) -> list[Tried]:
    return [each for each in tried if each.status in _TAKING_PART and speed_at(each, batch) is not None]


def _ratio(tried: Tried, batch: int) -> float:
    speed = speed_at(tried, batch)
    return 0.0 if speed is None else speed.ratio


def _quality(tried: Tried) -> float:
    return 0.0 if tried.judgement is None else tried.judgement.difference
