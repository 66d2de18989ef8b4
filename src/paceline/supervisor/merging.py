"""The metrics of several processes, made into those of one server.

A family is a JSON object: `name`, `kind` (counter, gauge, histogram), `help`, `merge` and `samples`, each of which is
[suffix of the name, labels as Prometheus writes them, value].

Rules:
- `sum`, `min` and `max` say how equal samples become one; `replica` keeps them apart, with a label.
- What a process counted outlives it: a counter must not go back because a process was replaced, is on its way out, or
  does not answer. Of one that is killed remains what was known when anybody asked last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

METRICS: Final = "metrics"
"""What a question is about when families are to be answered."""

Family = dict[str, Any]
Families = list[Family]

_MERGED: Final[dict[str, Callable[[float, float], float]]] = {
    "sum": lambda one, other: one + other,
    "min": min,
    "max": max,
}


def merged(several: Iterable[Sequence[Family]]) -> Families:
    """One list of families made of several, in the order in which they first appear."""
    found: dict[str, Family] = {}
    samples: dict[str, dict[tuple[str, str], float]] = {}
    for families in several:
        for family in families:
            name = family["name"]
            found.setdefault(name, family)
            into = samples.setdefault(name, {})
            merge = _MERGED.get(family["merge"])
            for suffix, labels, value in family["samples"]:
                before = into.get((suffix, labels))
                into[suffix, labels] = value if before is None or merge is None else merge(before, value)
    return [
        {**family, "samples": [[suffix, labels, value] for (suffix, labels), value in samples[name].items()]}
        for name, family in found.items()
    ]


def of_replica(families: Sequence[Family], replica: int) -> Families:
    """The families of one process, where those that are kept apart say whose they are."""
    return [
        _labelled(family, f'replica="{replica}"') if family["merge"] == "replica" else family for family in families
    ]


def of_the_past(families: Sequence[Family]) -> Families:
    """What remains of a process that ends: its counters and histograms."""
    return [family for family in families if family["merge"] == "sum" and family["kind"] != "gauge"]


def _labelled(family: Family, label: str) -> Family:
    samples = [[suffix, f"{labels},{label}" if labels else label, value] for suffix, labels, value in family["samples"]]
    return {**family, "samples": samples}
